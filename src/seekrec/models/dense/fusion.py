# SPDX-License-Identifier: Apache-2.0
"""What is added to the model's own score of a recommendation when it answers, as further numbers of one dot product.

Two signals that a model trained on ids and text still lacks, for it knows the answers of training by heart: how alike
an item's text is to those of the latest items, and what a SASRec beside it scores. Both are vectors of the question
times vectors of the item, so they stand behind the model's own and one search of one index finds the best by the sum.
Neither is trained with the model; their weights are settings, to be chosen on validation. An item of the history gets
nothing for its text: that it is like what was taken says nothing about its being taken again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seekrec.embeddings import FrozenSASRec, SASRecForNextItem
from seekrec.models.dense.item_tower import ItemTexts, ItemTower, latest_items
from seekrec.schema import BEHAVIORS, RECOMMENDATION

# An older item of the history weighs so much of the one after it.
TEXT_DECAY = 0.7


class AnswerFusion(nn.Module):
    """Vectors behind those of the model's own.

    Args:
        num_items (`int`): Items of the recommender.
        recommender (`dict`, *optional*): What `recommender_sizes` gave of the SASRec.
        recommender_weight (`float`): Of its score.
        text_weight (`float`): Of the cosine of texts.
    """

    def __init__(
        self, num_items: int, recommender: dict[str, Any] | None, recommender_weight: float, text_weight: float
    ) -> None:
        super().__init__()
        self.num_items = num_items
        self.recommender_weight, self.text_weight = recommender_weight, text_weight
        self.recommender: Any = None
        self.table: Any = None
        if recommender is not None and recommender_weight:
            self.recommender = FrozenSASRec(recommender)
            # Its items as those of a tower of ids: a new item stands at their mean.
            self.table = ItemTower(num_items, recommender["hidden_size"], 0).requires_grad_(False)

    @torch.no_grad()
    def take(self, recommender: SASRecForNextItem) -> None:
        """Take a trained SASRec over the model's items; see `DenseRetrievalMixin.set_recommender`."""
        vectors = recommender.item_embeddings()
        if len(vectors) != self.num_items:
            raise ValueError(f"`recommender` knows {len(vectors)} items, the model {self.num_items}; give its own.")
        self.recommender.take(recommender)
        self.table.start_ids(vectors)

    def items(self, texts: ItemTexts, device: torch.device) -> list[Tensor]:
        """Give the parts behind the item vectors of the whole catalogue, each `(num_rows, size)`."""
        parts = []
        if self.table is not None:
            parts.append(self.table.all(texts))
        if self.text_weight:
            parts.append(texts.centered(self.num_items, device))
        return parts

    def questions(self, texts: ItemTexts, item_rows: Tensor, allowed: Tensor, behaviors: Tensor) -> list[Tensor]:
        """Give the parts behind the vectors of questions; zero for searches.

        Args:
            texts ([`ItemTexts`]): Of the catalogue.
            item_rows (`torch.LongTensor`): Items of the tokens, oldest first, `(batch, length)`; below 0 for none.
            allowed (`torch.BoolTensor`): What questions see, `(batch, num_questions, length)`.
            behaviors (`torch.LongTensor`): Numbers into `BEHAVIORS`, `(batch, num_questions)`.

        Returns:
            `list[torch.Tensor]`: Each of shape `(batch, num_questions, size)`, in the order of [`items`].
        """
        seen = allowed & (item_rows >= 0)[:, None]
        is_fused = (behaviors == BEHAVIORS.index(RECOMMENDATION))[..., None]
        parts = []
        if self.recommender is not None:
            states = self.recommender.states(self.table(item_rows, texts), seen.any(1))
            latest = latest_items(item_rows, allowed)[..., None].expand(-1, -1, states.shape[-1])
            parts.append(self.recommender_weight * states.gather(1, latest) * is_fused)
        if self.text_weight:
            age = seen.flip(-1).cumsum(-1).flip(-1) - 1
            weights = torch.where(seen, TEXT_DECAY**age, 0.0)
            weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-9)
            seen_texts = texts.centered(self.num_items, item_rows.device)[item_rows.clamp_min(0)]
            parts.append(self.text_weight * (weights.to(seen_texts.dtype) @ seen_texts) * is_fused)
        return parts

    def own_texts(self, texts: ItemTexts, questions: Tensor, history: Tensor) -> Tensor | None:
        """Give what the items of histories got for their text, to be taken off again.

        Args:
            texts ([`ItemTexts`]): Of the catalogue.
            questions (`torch.Tensor`): With the parts of [`questions`] at their end, `(batch, num_questions, size)`.
            history (`torch.LongTensor`): Items, `(batch, length)`; below 0 for none.

        Returns:
            `torch.Tensor`, *optional*: Of shape `(batch, num_questions, length)`; `None` where texts are not fused.
        """
        if not self.text_weight:
            return None
        centered = texts.centered(self.num_items, questions.device)
        found: Tensor = questions[..., -centered.shape[1] :] @ centered[history.clamp_min(0)].transpose(-1, -2)
        return found


def without_own(
    rows: np.ndarray, scores: np.ndarray, top_k: int, history: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Take off what items of a history got for their own text, and keep the best.

    Args:
        rows (`np.ndarray`): int64 rows of the catalogue, best first.
        scores (`np.ndarray`): float32 of the same length.
        top_k (`int`): Items wanted.
        history (`np.ndarray`): int64 rows; below 0 for none.
        own (`np.ndarray`): float32 of the length of `history`; of an item that comes twice, twice the same.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: At most `top_k` rows and scores, best first.
    """
    taken = dict(zip(history.tolist(), own.tolist(), strict=True))
    scores = scores - np.array([taken.get(row, 0.0) for row in rows.tolist()], dtype=scores.dtype)
    order = np.argsort(-scores, kind="stable")[:top_k]
    return rows[order], scores[order]


def make_fusion(config: Any) -> AnswerFusion | None:
    """Make what a configuration adds to its model's answers; None for nothing."""
    if not (config.recommender_weight or config.text_weight):
        return None
    return AnswerFusion(config.num_items, config.recommender, config.recommender_weight, config.text_weight)


__all__ = ["AnswerFusion", "make_fusion", "without_own"]
