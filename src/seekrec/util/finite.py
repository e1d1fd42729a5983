# SPDX-License-Identifier: Apache-2.0
"""Refuse weights, vectors and scores that are NaN or infinite, and detect changed weights."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from seekrec.errors import NotFiniteError

# Of a larger weight evenly spaced rows are looked at: to read two million numbers takes half a millisecond.
_MAX_NUMBERS = 2**21


def check_finite(name: str, values: Tensor | np.ndarray, entry: str, remedy: str) -> None:
    """Refuse values that are not all finite.

    Args:
        name (`str`): Name of the values, to begin a sentence: "The item vectors".
        values (`torch.Tensor` or `np.ndarray`): Floats of any shape.
        entry (`str`): Name of an entry of the first dimension: "row", "request".
        remedy (`str`): Advice that ends that sentence.

    Raises:
        NotFiniteError: If a value is not finite; the message names the first entry.
    """
    tensor = torch.as_tensor(values)
    # A sum shows it at the cost of one reading; one that is too large for its type is looked at again.
    if bool(torch.isfinite(tensor.sum())):
        return
    is_bad = ~torch.isfinite(tensor)
    if bool(is_bad.any()):
        first = int(is_bad.reshape(len(tensor), -1).any(1).nonzero()[0]) if tensor.ndim else 0
        raise NotFiniteError(
            f"{name} hold {int(is_bad.sum())} of {tensor.numel()} numbers that are not finite (NaN or infinite), "
            f"first in {entry} {first}; {remedy}."
        )


def check_weights(model: nn.Module, source: str) -> None:
    """Refuse a model with a weight that is not finite.

    Args:
        model (`torch.nn.Module`): The model.
        source (`str`): Origin of the weights, for the message.

    Raises:
        NotFiniteError: If a weight is not finite; the message names it.
    """
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and weight.itemsize > 1 and weight.device.type != "meta":
            check_finite(
                f"The weights {name!r} of {source}",
                weight.detach(),
                "row",
                "its training diverged or the file is damaged: take an earlier checkpoint, or train again with a "
                "lower learning rate",
            )


@torch.no_grad()
def weights_key(weights: Iterable[Tensor]) -> tuple[tuple[object, ...], ...]:
    """Return a key that differs once weights were changed, in whatever way.

    What torch counts (optimizers, `load_state_dict`, any operation in place) and what makes other tensors (`.to`,
    `.half`, `vector_to_parameters`) always is noticed. What is written past torch (`weight.data.copy_`, as averaging
    of weights does) shows in the numbers: all of a weight up to two million, evenly spaced rows of a larger one.
    """
    key: list[tuple[object, ...]] = []
    for weight in weights:
        if weight.device.type == "meta":
            continue
        step = -(-weight.numel() // _MAX_NUMBERS)
        numbers = weight.detach()[::step] if step > 1 else weight.detach()
        # Bytes, because numpy knows neither bfloat16 nor the types of eight bits.
        digest = xxhash.xxh3_64_intdigest(numbers.flatten().cpu().contiguous().view(torch.uint8).numpy().data)
        version = -1 if weight.is_inference() else weight._version
        key.append((weight.data_ptr(), version, weight.dtype, weight.device, weight.shape, digest))
    return tuple(key)


__all__ = ["check_finite", "check_weights", "weights_key"]
