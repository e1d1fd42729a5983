# SPDX-License-Identifier: Apache-2.0
"""Mutual information of vectors and a binary label, by MINE (Belghazi et al., ICML 2018).

A small network f learns to raise the bound of Donsker and Varadhan (GenSR, equation 13):

    I(X; Y) >= E[f(x, y)] - log E[exp f(x, y')]

where y' is drawn independently of x. For any f, the bound holds on cases that f was not trained on, up to sampling
error: so f is trained on one half of the cases and evaluated on the other, and the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from seekrec.errors import DataError

FloatArray = npt.NDArray[np.float64]

_HIDDEN = 64
# The most steps that it learns for; it keeps the weights that are best on a quarter of what it could learn from.
_NUM_STEPS = 400
_EVERY = 10  # steps between two looks at the cases that stop it


class Information(NamedTuple):
    """An estimate, group by group of its cases.

    Args:
        joint (`np.ndarray`): float64 `(num_groups,)`: mean of f over the cases of a group.
        product (`np.ndarray`): float64 `(num_groups,)`: mean of exp f over its cases, each with all answers.
    """

    joint: FloatArray
    product: FloatArray

    @property
    def bits(self) -> float:
        """The bound, in bits: at most 1 where both answers are as frequent."""
        return float((self.joint.mean() - np.log(self.product.mean())) / math.log(2))

    def resampled(self, *, seed: int = 0, num_samples: int = 1000) -> FloatArray:
        """Return the bound in bits of resamples of the groups; the same seed gives the same groups.

        Args:
            seed (`int`): Seed of the resampling.
            num_samples (`int`): Number of resamples.
        """
        draws = np.random.default_rng(seed).integers(len(self.joint), size=(num_samples, len(self.joint)))
        bounds: FloatArray = self.joint[draws].mean(1) - np.log(self.product[draws].mean(1))
        return bounds / math.log(2)


def mutual_information(
    vectors: npt.ArrayLike, answers: npt.ArrayLike, groups: npt.ArrayLike, *, seed: int = 0
) -> Information:
    """Estimate the mutual information of vectors with answers.

    Args:
        vectors (`ArrayLike`): Floats of shape `(num_cases, size)`.
        answers (`ArrayLike`): 0 or 1 for each case.
        groups (`ArrayLike`): Integer for each case: those of one group (a request, say) are never parted, neither
            between learning and measuring nor by an interval.
        seed (`int`): Seed of the halves and of the network.

    Raises:
        DataError: If there are less than eight groups, or an answer is neither 0 nor 1.
    """
    x = torch.from_numpy(np.asarray(vectors, dtype=np.float32))
    y = torch.from_numpy(np.asarray(answers, dtype=np.int64))
    numbers, group = np.unique(np.asarray(groups), return_inverse=True)
    if len(numbers) < 8:
        raise DataError(
            f"Mutual information needs at least 8 groups of cases to train and evaluate on; got {len(numbers)}."
        )
    if not set(y.unique().tolist()) <= {0, 1}:
        raise DataError(f"`answers` contains {y.unique().tolist()[:5]}; give 0 or 1 for each case.")
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
    share = torch.bincount(y, minlength=2).float() / len(y)
    parts = np.random.default_rng(seed).permutation(len(numbers)) % 8  # four to measure, one to stop, three to learn
    part_of = torch.from_numpy(parts[group])
    values = torch.zeros(len(x), 2)
    for half in (0, 1):
        others = part_of % 2 != half
        stops = others & (part_of // 2 == 0)
        network = _learn(x, y, share, others & ~stops, stops, seed=seed)
        with torch.no_grad():
            measured = ~others
            values[measured] = network(x[measured])
    places = torch.from_numpy(group)
    counts = torch.bincount(places).double()
    joint = torch.zeros(len(numbers)).double().index_add(0, places, values.gather(1, y[:, None])[:, 0].double())
    product = torch.zeros(len(numbers)).double().index_add(0, places, (values.exp() * share).sum(1).double())
    return Information((joint / counts).numpy(), (product / counts).numpy())


def resampled_mean(estimates: Sequence[Information], *, num_samples: int = 10_000) -> FloatArray:
    """Return the mean of several estimates, in bits, of resamples of the groups and of the estimates.

    Args:
        estimates (`Sequence[Information]`): Of the same groups; the same resamples for as many estimates.
        num_samples (`int`): Number of resamples.
    """
    # (num_estimates, num_samples): each column is one resample of the groups.
    bits = np.stack([one.resampled(num_samples=num_samples) for one in estimates])
    drawn = np.random.default_rng(0).integers(len(estimates), size=bits.shape)
    means: FloatArray = np.take_along_axis(bits, drawn, axis=0).mean(0)
    return means


def _learn(x: Tensor, y: Tensor, share: Tensor, learns: Tensor, stops: Tensor, *, seed: int) -> nn.Module:
    """Return a network of x, with an output for each answer, that was best on the cases that stop it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(x.shape[1], _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, 2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.1)

    def bound(chosen: Tensor) -> Tensor:
        values = network(x[chosen])
        joint = values.gather(1, y[chosen][:, None]).mean()
        return joint - (torch.logsumexp(values + share.log(), dim=(0, 1)) - math.log(int(chosen.sum())))

    best, kept = -math.inf, {name: one.clone() for name, one in network.state_dict().items()}
    for step in range(_NUM_STEPS):
        if step % _EVERY == 0:
            with torch.no_grad():
                found = float(bound(stops))
            if found > best:
                best, kept = found, {name: one.clone() for name, one in network.state_dict().items()}
        optimizer.zero_grad()
        (-bound(learns)).backward()
        optimizer.step()
    network.load_state_dict(kept)
    return network


__all__ = ["Information", "mutual_information", "resampled_mean"]
