# SPDX-License-Identifier: Apache-2.0
"""The order of windows that are read from shards: a shuffle that holds one buffer of window numbers.

In each epoch the shards are shuffled, and the windows of as many of them as fill a buffer are shuffled together. That
reads the memory-mapped files about once from end to end, and the order depends on the seed, the epoch and the global
batch alone. So a training that is resumed skips batches without reading them (`Trainer` does), whatever the number of
workers, and gets those that would have followed.

Processes take turns by batch (accelerate does that), so they share an epoch without a window in common. Where the
last global batch is not full, accelerate would begin the epoch anew to fill it up. Here the windows of the last two
global batches are spread over the processes evenly instead, and places that stay free are filled by windows without
their questions: each question is asked once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from seekrec.corpora.mixture import group_by_length
from seekrec.corpora.window_shards import WindowShards
from seekrec.errors import ConfigurationError

# Windows that are shuffled together, at least: 8 MB of numbers, and of lengths as much.
BUFFER_SIZE = 1 << 20


class ShardSampler(Sampler[int]):
    """Codes of windows, `epoch * num_windows + window`, in the order of an epoch; see the top of this file.

    Args:
        shards ([`WindowShards`]): The windows.
        batch_size (`int`): Windows of a batch of one process.
        num_processes (`int`): Processes that train together.
        seed (`int`): Seed of all draws.
        buffer_size (`int`): Windows that are shuffled together, at least; all of a shard always are.

    Raises:
        ConfigurationError: If there are more processes than windows.
    """

    def __init__(
        self,
        shards: WindowShards,
        *,
        batch_size: int,
        num_processes: int = 1,
        seed: int = 0,
        buffer_size: int = BUFFER_SIZE,
    ) -> None:
        if len(shards) < num_processes:
            raise ConfigurationError(
                f"{num_processes} processes have {len(shards)} windows to train on; start fewer of them."
            )
        self.shards, self.batch_size, self.num_processes = shards, batch_size, num_processes
        self.seed, self.buffer_size, self.epoch = seed, buffer_size, 0

    def __len__(self) -> int:
        if self.num_processes == 1:
            return len(self.shards)
        return -(-len(self.shards) // self._global_batch) * self._global_batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        total, size = len(self.shards), self._global_batch
        rest = total % size
        # What is spread evenly at the end: the incomplete global batch, and the one before it.
        num_spread = 0 if self.num_processes == 1 or not rest else min(total, size + rest)
        left, kept = total - num_spread, []
        for windows in self._buffers():
            yield from windows[:left].tolist()
            kept.append(windows[left:])
            left = max(0, left - len(windows))
        if num_spread:
            last = np.concatenate(kept)
            for part in np.array_split(last, self.num_processes * -(-num_spread // size)):
                yield from part.tolist()
                yield from [-1 - int(part[0])] * (self.batch_size - len(part))

    @property
    def _global_batch(self) -> int:
        return self.batch_size * self.num_processes

    def _buffers(self) -> Iterator[np.ndarray]:
        """Yield the codes of the epoch; all but the last come in whole global batches."""
        shards, size = self.shards, self._global_batch
        generator = np.random.default_rng([self.seed, self.epoch])
        waiting = generator.permutation(len(shards.shards)).tolist()
        rest = np.empty((2, 0), dtype=np.int64)
        while waiting:
            parts = []
            num_windows = 0
            while waiting and num_windows < self.buffer_size:
                number = waiting.pop(0)
                lengths = shards.lengths(number)
                parts.append(np.stack([shards.first[number] + np.arange(len(lengths)), lengths]))
                num_windows += len(lengths)
            found = np.concatenate([rest, generator.permutation(np.concatenate(parts, axis=1), axis=1)], axis=1)
            whole = found.shape[1] if not waiting else found.shape[1] // size * size
            rest = found[:, whole:]
            windows, lengths = found[:, :whole]
            yield self.epoch * len(shards) + group_by_length(windows, lengths, size, generator)


__all__ = ["BUFFER_SIZE", "ShardSampler"]
