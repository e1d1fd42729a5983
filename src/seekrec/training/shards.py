# SPDX-License-Identifier: Apache-2.0
"""The order of rows read from shards: a shuffle with one buffer of row numbers per task.

Rows of a task are dealt like cards, as in `corpora/mixture.py`: the shards of a pile are shuffled, the rows of as many
of them as fill a buffer are shuffled together, and a new pile begins when one is used up. An epoch takes rows from
each task by its weight, and mixes them in sections. That reads the memory-mapped files about once from end to end, and
the order depends on the seed, the epoch and the global batch alone. So a resumed training skips batches without
reading them (`Trainer` does), whatever the number of workers, and continues with the same batches.

Processes take turns by batch (accelerate does that), so they share an epoch without a row in common. If the last
global batch is not full, accelerate would fill it up from the start of the epoch. Here the rows of the last two global
batches are spread evenly over the processes instead, and empty slots are filled with codes below 0, which a collator
drops or masks: each row is used once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import Sampler

from seekrec.corpora.mixture import group_by_length, rows_per_epoch
from seekrec.corpora.partitioned import CorpusShards
from seekrec.corpora.shards import Shards
from seekrec.errors import ConfigurationError

# Rows that are shuffled together, at least: 8 MB of numbers, and of lengths as much.
BUFFER_SIZE = 1 << 20


class ShardSampler(Sampler[int]):
    """Codes of rows, `epoch * num_rows + row`, in the order of an epoch; see the top of this file.

    Args:
        shards ([`Shards`]): The rows.
        batch_size (`int`): Rows of a batch of one process.
        num_processes (`int`): Processes that train together.
        seed (`int`): Seed of all draws.
        weights (`Mapping[str, float]`, *optional*): Weight of each task, as in [`rows_per_epoch`]; if not given, an
            epoch contains each row once.
        epoch_size (`int`, *optional*): Rows of an epoch, as in [`rows_per_epoch`].
        buffer_size (`int`): Rows that are shuffled together, at least; all of a shard always are.

    Raises:
        ConfigurationError: If there are more processes than rows, or batches of several processes are too small to
            share what is left over.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        batch_size: int,
        num_processes: int = 1,
        seed: int = 0,
        weights: Mapping[str, float] | None = None,
        epoch_size: int | None = None,
        buffer_size: int = BUFFER_SIZE,
    ) -> None:
        counts = shards.num_rows
        self.rows_per_epoch = counts if weights is None else rows_per_epoch(counts, weights, epoch_size)
        self.num_rows = sum(self.rows_per_epoch.values())
        if self.num_rows < num_processes:
            raise ConfigurationError(
                f"{num_processes} processes have {self.num_rows} rows to train on; start fewer of them."
            )
        if batch_size == 1 < num_processes and self.num_rows % num_processes:
            raise ConfigurationError(
                f"{num_processes} processes cannot share {self.num_rows} rows one at a time; give "
                "`per_device_train_batch_size` 2 or more."
            )
        self.shards, self.batch_size, self.num_processes = shards, batch_size, num_processes
        self.seed, self.buffer_size, self.epoch = seed, buffer_size, 0

    def __len__(self) -> int:
        if self.num_processes == 1:
            return self.num_rows
        return -(-self.num_rows // self._global_batch) * self._global_batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        total, size = self.num_rows, self._global_batch
        rest = total % size
        # What is spread evenly at the end: the incomplete global batch, and the one before it.
        num_spread = 0 if self.num_processes == 1 or not rest else min(total, size + rest)
        left, kept = total - num_spread, []
        for codes in self._sections():
            yield from codes[:left].tolist()
            kept.append(codes[left:])
            left = max(0, left - len(codes))
        if num_spread:
            last = np.concatenate(kept)
            for part in np.array_split(last, self.num_processes * -(-num_spread // size)):
                yield from part.tolist()
                yield from [-1 - int(part[0])] * (self.batch_size - len(part))

    @property
    def _global_batch(self) -> int:
        return self.batch_size * self.num_processes

    def _sections(self) -> Iterator[np.ndarray]:
        """Yield the codes of the epoch; all but the last section come in whole global batches."""
        size, counts = self._global_batch, self.rows_per_epoch
        num_sections = max(1, self.num_rows // self.buffer_size)
        decks = [_Deck(self._cards(task, number, self.epoch * counts[task])) for number, task in enumerate(counts)]
        rest = np.empty(0, dtype=np.int64)
        for section in range(num_sections):
            dealt = [
                deck.take(count * (section + 1) // num_sections - count * section // num_sections)
                for deck, count in zip(decks, counts.values(), strict=True)
            ]
            generator = np.random.default_rng([self.seed, 1, self.epoch, section])
            rows = np.concatenate([rest, generator.permutation(np.concatenate(dealt))])
            is_last = section + 1 == num_sections
            whole = len(rows) if is_last else len(rows) // size * size
            rows, rest = rows[:whole], rows[whole:]
            yield self.epoch * len(self.shards) + group_by_length(rows, self.shards.lengths(rows), size, generator)

    def _cards(self, task: str, number: int, start: int) -> Iterator[np.ndarray]:
        """Yield the rows of a task from a place in the endless row of its piles on, a buffer at a time."""
        shards = self.shards
        own = np.array([place for place, shard in enumerate(shards.shards) if shard.task == task])
        counts = np.diff(shards.first)
        pile, skipped = divmod(start, max(1, int(counts[own].sum())))
        while len(own):
            waiting = np.random.default_rng([self.seed, 0, number, pile]).permutation(own).tolist()
            buffer = 0
            while waiting:
                group = [waiting.pop(0)]
                while waiting and counts[group].sum() < self.buffer_size:
                    group.append(waiting.pop(0))
                total = int(counts[group].sum())
                if skipped < total:
                    rows = np.concatenate([np.arange(shards.first[one], shards.first[one + 1]) for one in group])
                    generator = np.random.default_rng([self.seed, 0, number, pile, buffer])
                    yield generator.permutation(rows)[skipped:]
                skipped = max(0, skipped - total)
                buffer += 1
            pile += 1


class ShardCollator:
    """Makes batches from codes of rows (see [`ShardSampler`]); those below 0 are left out.

    Args:
        shards ([`CorpusShards`]): The rows.
        collate (`Callable`): Makes a batch of rows.
    """

    def __init__(self, shards: CorpusShards, collate: Callable[[list[dict[str, list[int]]]], dict[str, Tensor]]):
        self.shards, self.collate = shards, collate

    def __call__(self, codes: Sequence[int]) -> dict[str, Tensor]:
        """Make a batch."""
        numbers = np.asarray(codes, dtype=np.int64)
        return self.collate(self.shards.take(numbers[numbers >= 0] % len(self.shards)))


class _Deck:
    """Takes so many cards at a time from the buffers of a task."""

    def __init__(self, buffers: Iterator[np.ndarray]) -> None:
        self._buffers, self._left = buffers, np.empty(0, dtype=np.int64)

    def take(self, count: int) -> np.ndarray:
        """Return the next cards: int64 of shape `(count,)`."""
        parts = [self._left[:count]]
        self._left = self._left[count:]
        while (missing := count - sum(map(len, parts))) > 0:
            cards = next(self._buffers)
            parts.append(cards[:missing])
            self._left = cards[missing:]
        return np.concatenate(parts)


__all__ = ["BUFFER_SIZE", "ShardCollator", "ShardSampler"]
