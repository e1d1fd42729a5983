# SPDX-License-Identifier: Apache-2.0
"""Choose the rows of each task in an epoch, and their order.

A **weight** is a share: with `nrip` 1.0 and `nsqp` 0.1, an epoch has ten rows of `nrip` for each row of `nsqp`,
however many rows each task has. Rows are dealt like cards: a task's rows are shuffled, epochs deal from the pile, and
it is reshuffled only when used up. So no row is repeated before all others of its task were used, whether an epoch
needs fewer or more rows than the task has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, concatenate_datasets
from torch.utils.data import Sampler

from seekrec.errors import ConfigurationError

# Length groups are formed among so many batches: enough to find rows of like length, few enough to stay random.
_BATCHES_TO_GROUP = 50


def rows_per_epoch(
    num_rows: Mapping[str, int], weights: Mapping[str, float], epoch_size: int | None = None
) -> dict[str, int]:
    """Divide the rows of an epoch among tasks.

    Args:
        num_rows (`Mapping[str, int]`): Rows of each task.
        weights (`Mapping[str, float]`): Weight of each task, 0 or more; a task left out has none.
        epoch_size (`int`, *optional*): Rows of an epoch. `None` takes as many as pass the tasks of the greatest weight
            once, all together.

    Returns:
        `dict[str, int]`: Rows of each task in an epoch, in the order of `num_rows`; they add up to the epoch's size.

    Raises:
        ConfigurationError: If a weight is negative or not finite, its task has no rows, or no weight is above 0.

    Example:
        >>> rows_per_epoch({"nrip": 600, "nsip": 400, "nsqp": 400}, {"nrip": 1.0, "nsip": 1.0, "nsqp": 0.2})
        {'nrip': 500, 'nsip': 500, 'nsqp': 100}
    """
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise ConfigurationError(f"The weight of task {name!r} is {weight}; give a number from 0 up.")
        if weight and not num_rows.get(name):
            raise ConfigurationError(
                f"Task {name!r} has weight {weight} but no rows; give one of {', '.join(num_rows)}, or leave it out."
            )
    share = np.array([weights.get(name, 0.0) for name in num_rows])
    if not share.any():
        raise ConfigurationError(f"No task of {dict(weights)} has a weight above 0; give one to at least one.")
    if epoch_size is None:
        greatest = share == share.max()
        epoch_size = round(np.array(list(num_rows.values()))[greatest].sum() * share.sum() / share[greatest].sum())
    if epoch_size < 1:
        raise ConfigurationError(f"`epoch_size` is {epoch_size}; give 1 or more, or None.")
    exact = epoch_size * share / share.sum()
    counts = np.floor(exact + 1e-9).astype(np.int64)
    # The rows lost to rounding go to those who lost most.
    for task in np.argsort(counts - exact, kind="stable")[: epoch_size - counts.sum()]:
        counts[task] += 1
    return dict(zip(num_rows, counts.tolist(), strict=True))


class MixtureSampler(Sampler[int]):
    """Draw the rows of concatenated tasks by weight.

    The order depends on the seed and the epoch alone, so a resumed run (`accelerate.skip_first_batches`) sees what the
    interrupted one would have seen. Call `set_epoch` at the start of each epoch; `Trainer` and accelerate do.

    Args:
        num_rows (`Mapping[str, int]`): Rows of each task, in the order in which the tasks are concatenated.
        weights (`Mapping[str, float]`): As in [`rows_per_epoch`].
        epoch_size (`int`, *optional*): As in [`rows_per_epoch`].
        seed (`int`): Seed of all draws.
        lengths (`np.ndarray`, *optional*): int64 length of each row; with it, batches contain rows of like length.
        batch_size (`int`, *optional*): Rows of a batch; needed with `lengths`, and only used there.

    Raises:
        ConfigurationError: If [`rows_per_epoch`] raises it, or if `lengths` is given without `batch_size`, or has
            another number of rows.
    """

    def __init__(
        self,
        num_rows: Mapping[str, int],
        weights: Mapping[str, float],
        *,
        epoch_size: int | None = None,
        seed: int = 0,
        lengths: np.ndarray | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.num_rows = dict(num_rows)
        self.rows_per_epoch = rows_per_epoch(num_rows, weights, epoch_size)
        self.seed = seed
        self.epoch = 0
        self._lengths = None if lengths is None else np.asarray(lengths)
        self._batch_size = batch_size or 0
        if self._lengths is not None and self._batch_size < 1:
            raise ConfigurationError(f"`batch_size` is {batch_size}; `lengths` groups batches, so give their size.")
        if self._lengths is not None and len(self._lengths) != sum(self.num_rows.values()):
            raise ConfigurationError(
                f"`lengths` has {len(self._lengths)} entries for {sum(self.num_rows.values())} rows; give one "
                "for each."
            )

    def __len__(self) -> int:
        return sum(self.rows_per_epoch.values())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(self.draw(self.epoch).tolist())

    def draw(self, epoch: int) -> np.ndarray:
        """Return the rows of an epoch in order: int64 of shape `(len(self),)`."""
        chosen, first = [], 0
        for number, (name, size) in enumerate(self.num_rows.items()):
            chosen.append(
                first + self._deal(number, size, epoch * self.rows_per_epoch[name], self.rows_per_epoch[name])
            )
            first += size
        generator = np.random.default_rng([self.seed, 1, epoch])
        rows = generator.permutation(np.concatenate(chosen))
        if self._lengths is None:
            return rows
        return group_by_length(rows, self._lengths[rows], self._batch_size, generator)

    def _deal(self, task: int, size: int, start: int, count: int) -> np.ndarray:
        """Return the cards `start..start + count - 1` of the endless row of shuffled piles."""
        if not count:
            return np.empty(0, dtype=np.int64)
        piles = range(start // size, (start + count - 1) // size + 1)
        cards = np.concatenate([np.random.default_rng([self.seed, 0, task, pile]).permutation(size) for pile in piles])
        return cards[start - piles.start * size :][:count]


def group_by_length(rows: np.ndarray, lengths: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Reorder rows such that each batch has rows of like length, the batches in random order.

    Args:
        rows (`np.ndarray`): int64 row numbers, shuffled.
        lengths (`np.ndarray`): int64 length of each.
        size (`int`): Rows of a batch.
        generator (`np.random.Generator`): Draws the order of the batches.

    Returns:
        `np.ndarray`: The rows; an incomplete batch stays last, else it would shift the ones after it.
    """
    section = np.arange(len(rows)) // (size * _BATCHES_TO_GROUP)
    rows = rows[np.lexsort((lengths, section))]
    num_full = len(rows) // size
    full = rows[: num_full * size].reshape(num_full, size)
    return np.concatenate([full[generator.permutation(num_full)].ravel(), rows[num_full * size :]])


def mix_tasks(
    corpus: DatasetDict,
    weights: Mapping[str, float],
    *,
    epoch_size: int | None = None,
    seed: int = 0,
    group_by_length: bool = False,
    batch_size: int | None = None,
) -> tuple[Dataset, MixtureSampler]:
    """Join the tasks of a corpus to one data set, with the sampler that goes with it.

    Args:
        corpus (`datasets.DatasetDict`): A data set for each task, as `build_corpus` gives.
        weights (`Mapping[str, float]`): As in [`rows_per_epoch`].
        epoch_size (`int`, *optional*): As in [`rows_per_epoch`].
        seed (`int`): Seed of all draws.
        group_by_length (`bool`): Whether batches contain instructions of like length, to save padding.
        batch_size (`int`, *optional*): Needed with `group_by_length`.

    Returns:
        `tuple[datasets.Dataset, MixtureSampler]`: Both for one `DataLoader`.
    """
    whole = concatenate_datasets(list(corpus.values()))
    sampler = MixtureSampler(
        {name: len(rows) for name, rows in corpus.items()},
        weights,
        epoch_size=epoch_size,
        seed=seed,
        lengths=input_lengths(whole) if group_by_length else None,
        batch_size=batch_size,
    )
    return whole, sampler


def input_lengths(dataset: Dataset) -> np.ndarray:
    """Count the tokens of each instruction of a data set: int64."""
    column = dataset.with_format("arrow")[:]["input_ids"]
    return np.asarray(pc.list_value_length(column), dtype=np.int64)
