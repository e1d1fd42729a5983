# SPDX-License-Identifier: Apache-2.0
"""Write safetensors files in parts, by several processes at once.

`safetensors.torch.save_file` takes whole tensors. A table whose rows are spread over processes is not a whole tensor
in any of them: here one process writes the header and allocates the file, then each writes its rows in place. The
result is an ordinary safetensors file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# What the format calls the types of weights and of what optimizers keep.
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.bool: "BOOL",
}
# Rows are copied so many bytes at a time.
_BLOCK_BYTES = 2**26


def reserve_tensors(path: str | Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Write a file of tensors, and leave room in it for those that are written row by row.

    Args:
        path (`str` or `Path`): The file to write; an older one is overwritten.
        tensors (`Mapping[str, torch.Tensor]`): Tensors that are written now, and for each name of `shapes` one of the
            type that comes.
        shapes (`Mapping[str, torch.Size]`): Shape of each tensor that is written later by [`write_rows`].
    """
    begin = 0
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    # Numbers begin at a multiple of their size.
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
        shape = shapes.get(name, tensor.shape)
        end = begin + shape.numel() * tensor.itemsize
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + begin)
    for name, tensor in tensors.items():
        if name not in shapes:
            write_rows(path, name, tensor)


def write_rows(path: str | Path, name: str, rows: Tensor, *, first: int = 0) -> None:
    """Write rows of a tensor at their place in a file that [`reserve_tensors`] made.

    Args:
        path (`str` or `Path`): The file.
        name (`str`): Name of the tensor.
        rows (`torch.Tensor`): The rows, of the type of the tensor, `(num_rows, ...)`.
        first (`int`): Number of the first of them.
    """
    with Path(path).open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        begin = 8 + length + json.loads(file.read(length))[name]["data_offsets"][0]
        rows = rows.detach()
        width = rows[0].numel() * rows.itemsize if rows.ndim and len(rows) else rows.itemsize
        file.seek(begin + first * width)
        size = max(1, _BLOCK_BYTES // max(width, 1))
        for part in rows.split(size) if rows.ndim else (rows,):
            file.write(_as_bytes(part))


def _as_bytes(tensor: Tensor) -> memoryview:
    array: np.ndarray = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return array.data


__all__ = ["reserve_tensors", "write_rows"]
