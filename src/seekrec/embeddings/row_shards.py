# SPDX-License-Identifier: Apache-2.0
"""An embedding table whose rows are sharded over the processes of a training.

Each process holds one range of rows, so each stores only its share of the table, its gradients and the optimizer's
moments. To read rows, a process sends their numbers to their owners and receives the vectors; in the backward pass
gradients travel back the same way, and each row gets their sum divided by the number of processes: the mean, as
`DistributedDataParallel` takes for all other weights. The cost of a step depends on the rows it reads, not on the size
of the table.

Why not use a library? Measured with two processes that read 4,000 rows of 64 numbers each
(`recipes/benchmarks/shared_tables.py`): a step takes 28 ms at 100 thousand rows, 30 at 1 million and 39 at 10 million.
torch's own `RowwiseParallel` makes a gradient of the whole shard, zero except for the rows read, and AdamW reads and
writes all of it: 128 ms and about 2 seconds at the first two sizes; and all processes must ask for the same rows.
TorchRec (1.8) has no Adam on the CPU, updates rows in the backward pass, before gradients can be clipped, and requires
its own input types and one minor version of torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from seekrec.util.tensor_files import reserve_tensors, write_rows

# Numbers that are sent at a time where the whole table is read.
_BLOCK_NUMBERS = 2**24


class RowShards(nn.Embedding):
    """The rows that this process holds of a table, which is read as if it were all here.

    Every process must read it as often as the others and in the same order, be it for no rows at all. Weights that are
    loaded are those of the whole table.

    Args:
        table (`nn.Embedding`): The whole table, the same in every process; it is not changed.
    """

    def __init__(self, table: nn.Embedding) -> None:
        self.num_rows = table.num_embeddings
        rank, count = dist.get_rank(), dist.get_world_size()
        self.bounds = [self.num_rows * number // count for number in range(count + 1)]
        self.begin = self.bounds[rank]
        # The rows that are here.
        self.held = slice(self.begin, self.bounds[rank + 1])
        own = table.weight.detach()[self.held].clone()
        super().__init__(len(own), table.embedding_dim, sparse=True, _weight=own)
        self.weight.requires_grad_(table.weight.requires_grad)

    def forward(self, input: Tensor) -> Tensor:
        """Return rows of the table.

        Args:
            input (`torch.LongTensor`): Numbers of rows of the whole table, in any shape.

        Returns:
            `torch.Tensor`: Rows `(*input.shape, embedding_dim)`.
        """
        # In order, so those of one process lie side by side.
        asked, places = input.unique(return_inverse=True)
        ends = torch.tensor(self.bounds[1:-1], device=input.device)
        sent = torch.bincount(torch.bucketize(asked, ends, right=True), minlength=len(self.bounds) - 1)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent)
        num_sent, num_received = sent.tolist(), received.tolist()
        wanted = asked.new_empty(sum(num_received))
        dist.all_to_all_single(wanted, asked, num_received, num_sent)
        own = F.embedding(wanted - self.begin, self.weight, sparse=True)
        vectors: Tensor = _Exchange.apply(own, num_received, num_sent)
        return F.embedding(places, vectors)

    def blocks(self) -> Iterator[Tensor]:
        """Read the whole table in order, a block of rows at a time; all processes must do so together.

        Yields:
            `torch.Tensor`: Rows `(num_rows, embedding_dim)`, the same in every process, overwritten by the next ones.
        """
        size = max(1, _BLOCK_NUMBERS // self.embedding_dim)
        rank = dist.get_rank()
        for owner, (first, end) in enumerate(zip(self.bounds[:-1], self.bounds[1:], strict=True)):
            for begin in range(first, end, size):
                if owner == rank:
                    block = self.weight.detach()[begin - first : begin - first + size].contiguous()
                else:
                    block = self.weight.new_empty((min(size, end - begin), self.embedding_dim))
                dist.broadcast(block, owner)
                yield block

    def gather(self) -> nn.Embedding:
        """Return the whole table in the first process, and one without memory in the others."""
        is_first = dist.get_rank() == 0
        device = self.weight.device if is_first else torch.device("meta")
        weight = torch.empty((self.num_rows, self.embedding_dim), dtype=self.weight.dtype, device=device)
        begin = 0
        for block in self.blocks():
            if is_first:
                weight[begin : begin + len(block)] = block
            begin += len(block)
        return nn.Embedding(self.num_rows, self.embedding_dim, _weight=weight)

    def own_rows(self, whole: Tensor) -> Tensor:
        """Return what belongs to the rows of this process of a tensor of all rows."""
        return whole[self.held]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        name = f"{prefix}weight"
        if name in state_dict and len(state_dict[name]) == self.num_rows:
            state_dict = {**state_dict, name: self.own_rows(state_dict[name])}
        super()._load_from_state_dict(state_dict, prefix, *args)


class _Splits(Protocol):
    """How many rows each process gave and took."""

    num_given: list[int]
    num_taken: list[int]


class _Exchange(torch.autograd.Function):
    """Send each process the rows that it asked for; backward the gradients of what this one asked for, as a mean."""

    @staticmethod
    def forward(ctx: _Splits, rows: Tensor, num_given: list[int], num_taken: list[int]) -> Tensor:
        ctx.num_given, ctx.num_taken = num_given, num_taken
        taken = rows.new_empty((sum(num_taken), *rows.shape[1:]))
        dist.all_to_all_single(taken, rows.contiguous(), num_taken, num_given)
        return taken

    @staticmethod
    @once_differentiable
    def backward(ctx: _Splits, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        gradient = grad_outputs[0]
        back = gradient.new_empty((sum(ctx.num_given), *gradient.shape[1:]))
        dist.all_to_all_single(back, gradient.contiguous(), ctx.num_given, ctx.num_taken)
        return back / dist.get_world_size(), None, None


def row_shards(model: nn.Module) -> dict[str, RowShards]:
    """Return the tables of a model whose rows lie in several processes, by the name of their weight."""
    return {f"{name}.weight": part for name, part in model.named_modules() if isinstance(part, RowShards)}


def replace_table(model: nn.Module, table: nn.Embedding, new: nn.Embedding) -> None:
    """Put another table in the place of one that a model holds; `DistributedDataParallel` leaves shards alone."""
    for part in list(model.modules()):
        for name, child in part.named_children():
            if child is table:
                setattr(part, name, new)
    # Weights that are not the same in all processes.
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, list(row_shards(model)))


def save_rows(path: Path | None, rows: dict[str, tuple[RowShards, Tensor]], others: dict[str, Tensor]) -> None:
    """Write one file of whole tables, each process its rows; all processes must call it together.

    Args:
        path (`Path`): The file, which all processes can reach; that of the first one counts.
        rows (`dict`): By name of the whole tensor the table, and the rows of it that are here.
        others (`dict[str, torch.Tensor]`): What else the first process writes into the file.
    """
    told: list[Path | None] = [path]
    dist.broadcast_object_list(told)
    file = cast(Path, told[0])
    if dist.get_rank() == 0:
        shapes = {name: torch.Size([table.num_rows, *own.shape[1:]]) for name, (table, own) in rows.items()}
        reserve_tensors(file, others | {name: own for name, (_, own) in rows.items()}, shapes)
    dist.barrier()
    for name, (table, own) in rows.items():
        write_rows(file, name, own, first=table.begin)
    dist.barrier()


__all__ = ["RowShards", "replace_table", "row_shards", "save_rows"]
