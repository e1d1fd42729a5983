# SPDX-License-Identifier: Apache-2.0
"""DSFNet: layers whose weights are mixed from those of several scenarios (IntSR, equations 10-13).

A layer's weights are never put together for each row: with `W_l = sum_g gamma_g W_g` the product is
`sum_g gamma_g (x W_g + b_g)`, one product for all scenarios.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seekrec.models.intsr.configuration_intsr import IntSRConfig


class ResidualLinear(nn.Linear):
    """A linear layer that closes a residual: it starts with the small weights of embeddings."""


class DSFNet(nn.Module):
    """Scenario-dependent layers, or, without `use_dsfnet`, as many plain ones.

    The paper gives no activation: SiLU stands between layers. A residual around all of them, which it does not
    mention, and small weights in the last one let the model begin as if they were not there.
    """

    def __init__(self, config: IntSRConfig) -> None:
        super().__init__()
        size, self.num_scenarios = config.hidden_size, config.num_scenarios if config.use_dsfnet else 1
        kinds = [nn.Linear] * (config.num_dsf_layers - 1) + [ResidualLinear]
        self.layers = nn.ModuleList(kind(size, self.num_scenarios * size) for kind in kinds)
        self.gates = self.filter = None
        if config.use_dsfnet:
            # R is the setting of the question (time, place), its page and its task tag, two vectors of this width.
            self.gates = nn.ModuleList(nn.Linear(2 * size, config.num_scenarios) for _ in range(config.num_dsf_layers))
            self.filter = nn.Linear(3 * size, size)

    def forward(self, hidden_states: Tensor, scenario: Tensor) -> Tensor:
        """Apply the layers.

        Args:
            hidden_states (`torch.Tensor`): Of shape `(..., hidden_size)`.
            scenario (`torch.Tensor`): R of equation 10, of shape `(..., 2 * hidden_size)`.

        Returns:
            `torch.Tensor`: Of the shape of `hidden_states`.
        """
        mixed = hidden_states
        if self.filter is not None:
            mixed = mixed * torch.sigmoid(self.filter(torch.cat([mixed, scenario], dim=-1)))
        for number, layer in enumerate(self.layers):
            by_scenario = layer(mixed).unflatten(-1, (self.num_scenarios, -1))
            if self.gates is None:
                mixed = by_scenario[..., 0, :]
            else:
                weight = 2 * torch.sigmoid(self.gates[number](scenario))
                mixed = (weight[..., None] * by_scenario).sum(-2)
            if number + 1 < len(self.layers):
                mixed = F.silu(mixed)
        return hidden_states + mixed


__all__ = ["DSFNet", "ResidualLinear"]
