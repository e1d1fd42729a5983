# SPDX-License-Identifier: Apache-2.0
"""Linear layers on a CPU with their weights laid out for oneDNN.

A decoding step multiplies few rows with large matrices, and the ordinary kernel rearranges the matrix each time.
Packing does this once. The operators are private to torch: they are tested first, and if they are missing or wrong
nothing is packed.

Unusual here: a packed layer is still an `nn.Linear` with its own parameters, so saving, training and adapters work as
usual. Only its class is swapped inside a `with` block, and copies of it are ordinary layers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import SupportsIndex, TypeGuard

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

# Largest difference from the ordinary kernel in the trial, whose results have a standard deviation of 8.
_TOLERANCE = 1e-4


@contextmanager
def packed_linears(model: nn.Module, *, min_weights: int = 2**17) -> Iterator[int]:
    """Speed up the large linear layers of a model on a CPU while the block runs.

    ```python
    with packed_linears(model):
        answers = model.retrieve(inputs)
    ```

    Results differ from the ordinary ones by rounding. Layers that are small, not float32, not on the CPU or of a class
    of their own stay as they are, and so do all where this build of torch lacks the kernel (which is logged). A call
    that needs gradients, is cast automatically, or finds the weight changed since takes the ordinary way. A weight
    changed through `.data`, as `peft` does to merge an adapter, cannot be noticed: merge before the block.

    Packing takes the time of reading the weights once, and as much memory as they have again: enter the block once
    for many requests, not for each, and leave it when no other thread uses the model. A block inside a block changes
    nothing.

    Args:
        model (`torch.nn.Module`): The model; of an encoder-decoder, encoder and head are packed too.
        min_weights (`int`): Entries of the smallest matrix to pack. Calling the packed kernel costs some 20
            microseconds more, which smaller ones do not win back.

    Yields:
        `int`: How many layers this block packed.
    """
    packed: list[nn.Linear] = []
    if _can_pack():
        for module in model.modules():
            if _can_be_packed(module) and module.weight.numel() >= min_weights:
                weight = module.weight
                module.__dict__["_packed"] = _pack(weight.detach())
                module.__dict__["_packed_from"] = (weight.data_ptr(), weight._version)
                module.__class__ = PackedLinear
                packed.append(module)
    else:
        logger.info("This build of torch has no working oneDNN kernel for packed weights; nothing is packed.")
    try:
        yield len(packed)
    finally:
        for module in packed:
            module.__class__ = nn.Linear
            del module.__dict__["_packed"], module.__dict__["_packed_from"]


class PackedLinear(nn.Linear):
    """What a layer is inside [`packed_linears`]. Copies and pickles of it are of class `nn.Linear`."""

    _packed: Tensor
    _packed_from: tuple[int, int]

    def forward(self, input: Tensor) -> Tensor:
        """Multiply by the packed weight, as long as it is that of the layer and nothing wants its gradient."""
        weight = self.weight
        is_usable = (
            self._packed_from == (weight.data_ptr(), weight._version)
            and input.dtype == weight.dtype == torch.float32
            and input.device.type == weight.device.type == "cpu"
            and not (torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad))
            and not torch.is_autocast_enabled("cpu")
        )
        return _multiply(input, self._packed, self.bias) if is_usable else super().forward(input)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[object, ...]:
        state = {name: value for name, value in self.__dict__.items() if name not in ("_packed", "_packed_from")}
        return nn.Linear.__new__, (nn.Linear,), state


def _can_be_packed(module: nn.Module) -> TypeGuard[nn.Linear]:
    # A subclass (quantised, or packed already) may compute something else.
    if type(module) is not nn.Linear:
        return False
    weight = module.weight
    return weight.dtype == torch.float32 and weight.device.type == "cpu" and not weight.is_inference()


def _pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, None)


def _multiply(input: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, packed, bias, "none", [], "")


def _can_pack() -> bool:
    """Try the private operators out."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(48, 64, generator=generator), torch.randn(48, generator=generator)
    try:
        packed = _pack(weight)
        for shape in ((1, 64), (2, 3, 64)):  # one row, and more than two dimensions
            rows = torch.randn(shape, generator=generator)
            expected = nn.functional.linear(rows, weight, bias)
            torch.testing.assert_close(_multiply(rows, packed, bias), expected, rtol=0.0, atol=_TOLERANCE)
    except (RuntimeError, AttributeError, TypeError, AssertionError):
        return False
    return True
