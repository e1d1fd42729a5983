# SPDX-License-Identifier: Apache-2.0
"""A frozen SASRec inside another model, over item embeddings that the other model stores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seekrec.embeddings.configuration_sasrec import SASRecConfig
from seekrec.embeddings.modeling_sasrec import SASRecForNextItem, SASRecModel

# What the other model's configuration keeps of SASRec's.
_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_history",
    "layer_norm_eps",
)


def recommender_sizes(recommender: SASRecForNextItem) -> dict[str, Any]:
    """Return the settings that [`FrozenSASRec`] is made of."""
    return {name: getattr(recommender.config, name) for name in _SIZES}


class FrozenSASRec(SASRecModel):
    """The layers of a SASRec, without its items.

    Args:
        sizes (`dict`): What [`recommender_sizes`] returned; saved in the configuration of the model around it.
    """

    def __init__(self, sizes: dict[str, Any]) -> None:
        # Frozen, so without dropout. The table has a row for the start of a history, and one for items not needed.
        still = {"num_items": 1, "dropout": 0.0, "embedding_dropout": 0.0, "attention_dropout": 0.0}
        super().__init__(SASRecConfig(**{**sizes, **still}))
        self.requires_grad_(False)

    @torch.no_grad()
    def take(self, recommender: SASRecForNextItem) -> None:
        """Take the layers of a trained SASRec.

        Args:
            recommender ([`SASRecForNextItem`]): Model of these sizes.

        Raises:
            ValueError: If its sizes differ.
        """
        weights = {
            name: values for name, values in recommender.model.state_dict().items() if name != "item_embedding.weight"
        }
        have = {name: values.shape for name, values in self.state_dict().items() if name != "item_embedding.weight"}
        if {name: values.shape for name, values in weights.items()} != have:
            raise ValueError(
                f"`recommender` has the sizes {recommender_sizes(recommender)}, but the model was made for "
                f"{ {name: getattr(self.config, name) for name in _SIZES} }; make it with the recommender's own."
            )
        self.load_state_dict(weights, strict=False)
        start = recommender.model.item_embedding.weight[recommender.config.start_token_id]
        self.item_embedding.weight[self.config.start_token_id].copy_(start)

    def states(self, items: Tensor, has_item: Tensor) -> Tensor:
        """Return what SASRec expects before the first item and after each.

        Args:
            items (`torch.Tensor`): Item embeddings as SASRec has them, oldest first, `(batch, length, hidden_size)`.
            has_item (`torch.BoolTensor`): Where there is one, `(batch, length)`. Of more than SASRec's `max_history`,
                with the start, the oldest are not read.

        Returns:
            `torch.Tensor`: Tensor of shape `(batch, 1 + length, hidden_size)`; zero where nothing is read.
        """
        start = self.item_embedding.weight[self.config.start_token_id].expand(len(items), 1, -1)
        tokens = F.pad(has_item, (1, 0), value=True).long()
        tokens = tokens * (tokens.flip(1).cumsum(1).flip(1) <= self.config.max_history)
        states: Tensor = self(tokens, inputs_embeds=torch.cat([start.to(items.dtype), items], dim=1)).last_hidden_state
        return states


__all__ = ["FrozenSASRec", "recommender_sizes"]
