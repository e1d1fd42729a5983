# SPDX-License-Identifier: Apache-2.0
"""What the processes of a run tell each other of their batches.

Only numbers are gathered, rows and probabilities, and no vectors: every process looks the vectors of foreign rows up
itself. So gradients reach the weights of all processes by the usual mean over processes, and nothing is sent backward.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def gather_columns(*columns: Tensor) -> tuple[list[Tensor], int]:
    """Put the entries of all processes one behind the other, in the order of their ranks.

    Every process must call it in the same step, even with no entry. A process alone gets its own.

    Args:
        columns (`torch.Tensor`): Of shape `(num_entries,)`, whose number differs between processes; without gradients.

    Returns:
        `tuple`: The columns over all processes, and how many entries come before this process's own.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return list(columns), 0
    own = torch.tensor([len(columns[0])], device=columns[0].device)
    found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(found, own)
    counts = torch.cat(found).tolist()
    gathered = []
    for column in columns:
        padded = column.new_zeros(max(counts))
        padded[: len(column)] = column
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        gathered.append(torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]))
    return gathered, sum(counts[: dist.get_rank()])


__all__ = ["gather_columns"]
