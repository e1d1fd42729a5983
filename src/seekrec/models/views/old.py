# SPDX-License-Identifier: Apache-2.0
"""Read the additions to recommendations that earlier versions saved among the weights of a model."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

from seekrec.embeddings import SASRecConfig, SASRecForNextItem
from seekrec.models.views.views import Views

_PREFIX = "fusion."


def read_fused(weights: Path, sizes: dict[str, object] | None, num_items: int) -> Views:
    """Read the SASRec that was kept alongside IntSR and SynerGen, whose texts were those of the catalogue.

    Args:
        weights (`Path`): The safetensors file of the model.
        sizes (`dict`, *optional*): Sizes of the SASRec; `None` where texts alone were added.
        num_items (`int`): Items of the model.

    Raises:
        RuntimeError: If the weights lack some of the SASRec.
    """
    if sizes is None:
        return Views(num_items)
    with safe_open(weights, "pt") as tensors:
        kept = {name: tensors.get_tensor(name) for name in tensors.keys() if name.startswith(_PREFIX)}  # noqa: SIM118
    if not kept:
        return Views(num_items)
    config = SASRecConfig.from_dict({**sizes, "num_items": num_items})
    recommender = SASRecForNextItem(config)
    table = torch.zeros(num_items + 2, config.hidden_size)
    table[1 : num_items + 1] = kept.pop(f"{_PREFIX}table.ids.weight")
    # Its own table had rows for the padding, one item and the start; here the start is the last, too.
    table[-1] = kept.pop(f"{_PREFIX}recommender.item_embedding.weight")[-1]
    own = {f"model.{name.removeprefix(_PREFIX + 'recommender.')}": value for name, value in kept.items()}
    recommender.load_state_dict({**own, "model.item_embedding.weight": table})
    return Views(num_items).with_recommender(recommender.eval())


__all__ = ["read_fused"]
