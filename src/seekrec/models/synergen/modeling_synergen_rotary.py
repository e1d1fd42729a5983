# SPDX-License-Identifier: Apache-2.0
"""Rotary embedding of the clock's time (SynerGen, section 3.4).

Rotary embedding turns pairs of numbers of queries and keys by an angle in proportion to where they stand, so that
their product depends on the distance alone. Here they stand at a number of seconds. A Unix time of 1.7e9 in float32
is right to 128 seconds; so seconds are counted from an origin of each sequence, in int64, and angles are made and
reduced to one turn in float64. Twenty years by the shortest scale of two seconds are 2e9 radians, right to 4e-7.

The time scales (seconds of one full turn) grow geometrically, as the wavelengths of usual rotary embedding do. They
can be trained. The angle between two moments thousands of turns apart has a slope in the scale that is thousands of
times too steep to follow, so slopes are cut off where the angle is beyond `_SLOPE_LIMIT`: short scales stay where they
are, and long ones move.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from seekrec.models.synergen.configuration_synergen import SynerGenConfig

_TURN = 2 * math.pi
_SLOPE_LIMIT = 10 * _TURN
# Wavelengths of tokens counted in order: those of Su et al.
_ORDER_BASE = 10_000.0


class TimeRotary(nn.Module):
    """Times and places to angles; shared by all layers."""

    def __init__(self, config: SynerGenConfig) -> None:
        super().__init__()
        head_size = config.hidden_size // config.num_attention_heads
        num_pairs = int(head_size * config.rotary_fraction) // 2
        by_order = {"time": 0, "order": num_pairs, "both": num_pairs // 2}[config.time_encoding]
        self.num_by_time, self.num_by_order = num_pairs - by_order, by_order
        self.shortest, self.longest = config.min_period, config.max_period
        learns = config.learn_time_scales and self.num_by_time > 0
        self.log_scales = nn.Parameter(torch.empty(self.num_by_time)) if learns else None

    def forward(self, seconds: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Give cosines and sines.

        Args:
            seconds (`torch.LongTensor`): Since the origin of the sequence, of any shape.
            places (`torch.LongTensor`): Numbers of the tokens, of that shape.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: float32 of shape `(*seconds.shape, num_pairs)`.
        """
        angles = torch.cat([self._by_time(seconds), self._by_order(places)], dim=-1)
        return angles.cos().float(), angles.sin().float()

    def _by_time(self, seconds: Tensor) -> Tensor:
        steps = torch.linspace(0, 1, self.num_by_time, dtype=torch.float64, device=seconds.device)
        turns = (self.longest / self.shortest) ** -steps / self.shortest
        if self.log_scales is None:
            return (seconds.double()[..., None] * turns).remainder(1.0) * _TURN
        log_scales = self.log_scales.double()
        angles = seconds.double()[..., None] * (turns * torch.exp(-log_scales.detach())) * _TURN
        slope = -angles * (angles.abs() <= _SLOPE_LIMIT)
        return angles.remainder(_TURN) + (log_scales - log_scales.detach()) * slope

    def _by_order(self, places: Tensor) -> Tensor:
        steps = torch.arange(self.num_by_order, dtype=torch.float64, device=places.device)
        return places.double()[..., None] * _ORDER_BASE ** (-steps / max(self.num_by_order, 1))


def rotate(vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the first pairs of numbers of each vector.

    Args:
        vectors (`torch.Tensor`): Of shape `(..., head_size)`.
        cosines (`torch.Tensor`): Of shape `(..., num_pairs)`; a pair is number k and number `num_pairs + k`.
        sines (`torch.Tensor`): Likewise.

    Returns:
        `torch.Tensor`: Of the shape of `vectors`.
    """
    count = cosines.shape[-1]
    cosines, sines = cosines.to(vectors.dtype), sines.to(vectors.dtype)
    first, second = vectors[..., :count], vectors[..., count : 2 * count]
    return torch.cat(
        [first * cosines - second * sines, first * sines + second * cosines, vectors[..., 2 * count :]], dim=-1
    )


__all__ = ["TimeRotary", "rotate"]
