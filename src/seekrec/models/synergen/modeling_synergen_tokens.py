# SPDX-License-Identifier: Apache-2.0
"""The tokens of SynerGen: up to four parts fused by one MLP (sections 3.2 and 3.3).

| token | query | item: text | item: id | action |
|---|---|---|---|---|
| context | - (with `queries_in_context`, the event's) | the event's item | the event's item | the event's |
| retrieval | the question's, if it has one | masked | masked | the one asked for |
| ranking | the question's, if it has one | the candidate | the candidate | the one asked for |

The first layer of an MLP over parts side by side is a sum of one product for each part; it is written so here, which
projects each query once however many tokens read it, and nothing for a part that is not there. Parts that are learned
vectors (actions, the masked item, the kind of token) need no product: they are learned as what it would give.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from seekrec.models.dense.catalog_items import CatalogItems
from seekrec.models.dense.item_tower import ItemTower
from seekrec.models.synergen.configuration_synergen import SynerGenConfig
from seekrec.models.synergen.modeling_synergen_blocks import RANKING, RETRIEVAL


class TokenFusion(nn.Module):
    """MLP_fusion, and the vectors it reads besides items."""

    def __init__(self, config: SynerGenConfig) -> None:
        super().__init__()
        self.config = config
        size, width = config.hidden_size, config.fusion_size
        # As in SASRec, rows start small for the sake of the output and are scaled up at the input.
        self.scale = size**0.5
        self.ids = nn.Linear(size, width, bias=False) if config.use_ids else None
        self.text = nn.Linear(config.text_size, width, bias=False) if config.text_size else None
        self.queries = nn.Linear(config.query_size, width, bias=False)
        self.actions = nn.Embedding(config.num_actions + 1, width)
        self.mask = nn.Embedding(1, width)
        self.kinds = nn.Embedding(3, width)
        self.output = nn.Sequential(nn.GELU(), nn.Linear(width, size), nn.LayerNorm(size, eps=config.layer_norm_eps))
        self.dropout = nn.Dropout(config.embedding_dropout)

    def context(self, inputs: Any, items: ItemTower | CatalogItems) -> Tensor:
        """Fuse events, `(batch, length)`, to context tokens, `(batch, length, hidden_size)`."""
        parts = self._items(inputs["history_item_rows"], items) + self.kinds.weight[0]
        parts = parts + self.actions(inputs["history_action_ids"])
        if self.config.queries_in_context:
            parts = parts + self._queries(inputs["history_query_rows"], inputs["query_vectors"])
        return self._fuse(parts)

    def retrieval(self, inputs: Any, actions: Tensor) -> Tensor:
        """Fuse questions, `(batch, num_questions)`, to retrieval tokens of shape `(..., 1, hidden_size)`."""
        return self._fuse(self._question(inputs, actions) + self.mask.weight[0] + self.kinds.weight[RETRIEVAL])[
            :, :, None
        ]

    def ranking(self, inputs: Any, actions: Tensor, rows: Tensor, items: ItemTower | CatalogItems) -> Tensor:
        """Fuse questions with candidates, `(batch, num_questions, num_candidates)`, to ranking tokens."""
        question = self._question(inputs, actions) + self.kinds.weight[RANKING]
        return self._fuse(self._items(rows, items) + question[:, :, None])

    def _question(self, inputs: Any, actions: Tensor) -> Tensor:
        parts = self._queries(inputs["question_query_rows"], inputs["query_vectors"])
        return parts + self.actions(actions) if self.config.use_question_action else parts

    def _items(self, rows: Tensor, items: ItemTower | CatalogItems) -> Tensor:
        ids, texts = items.parts(rows)
        parts: Tensor | int = 0
        if self.ids is not None:
            parts = self.ids(ids * self.scale)
        if self.text is not None:
            parts = parts + self.text(texts)
        return parts * (rows >= 0)[..., None]

    def _queries(self, rows: Tensor, vectors: Tensor) -> Tensor:
        weight = self.queries.weight
        if not vectors.numel():
            # Keeps the weight in the graph: several processes must agree on which weights get a gradient.
            return weight.new_zeros(*rows.shape, weight.shape[0]) + weight.sum() * 0
        projected = self.queries(vectors.to(weight.dtype))
        return projected[rows.clamp_min(0)] * (rows >= 0)[..., None]

    def _fuse(self, parts: Tensor) -> Tensor:
        fused: Tensor = self.dropout(self.output(parts))
        return fused


__all__ = ["TokenFusion"]
