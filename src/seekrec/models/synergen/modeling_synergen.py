# SPDX-License-Identifier: Apache-2.0
"""SynerGen: a decoder over events that retrieves and ranks, with a query and without.

Unusual here:

- A question is a retrieval token and, for each candidate, a ranking token. The history is read once, kept as a
  [`HistoryState`], and any number of questions is answered from it; the task mask (`modeling_synergen_blocks.py`)
  makes that exact. In training every event of a window asks, each seeing what came before its session.
- Attention turns by the time that passed between events (`modeling_synergen_rotary.py`), and questions stand at the
  time they are asked.
- Item vectors for comparison are an id embedding plus a projected text vector; as tokens, id and text are fused by the
  MLP, so a new item works by its text on both sides.
- The paper tells kinds of token apart by what is masked. A context token and a ranking token without a query would be
  alike, so a learned vector of the kind is a part of each token here.

Weights start as follows: id embeddings, the projection of text for comparison and the vectors of actions, kinds and
the masked item normal with `initializer_range`; linear layers normal with `1 / sqrt(inputs)`, those that close a
residual divided by `sqrt(2 * num_hidden_layers)`; biases and learned time scales (as logarithms of a factor) at 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from seekrec.errors import ConfigurationError
from seekrec.models.dense.catalog_items import CatalogItems
from seekrec.models.dense.fusion import make_fusion
from seekrec.models.dense.gathering import gather_columns
from seekrec.models.dense.interface_dense import DenseRetrievalMixin
from seekrec.models.dense.item_tower import ItemTower
from seekrec.models.dense.losses import full_softmax, info_nce
from seekrec.models.synergen.configuration_synergen import SynerGenConfig
from seekrec.models.synergen.modeling_synergen_decoder import (
    HistoryState,
    Questions,
    SynerGenModel,
    SynerGenPreTrainedModel,
)
from seekrec.models.synergen.modeling_synergen_losses import in_batch_loss, ranking_losses


@dataclass
class SynerGenOutput(ModelOutput):
    """What [`SynerGenForSearchAndRecommendation`] returns. Losses are in nats a question.

    Args:
        loss (`torch.FloatTensor`, *optional*): Present when labels are given.
        easy_loss (`torch.FloatTensor`, *optional*): Retrieval against other targets or all items, before alpha.
        hard_loss (`torch.FloatTensor`, *optional*): Retrieval against what was shown, or drawn, beside the target.
        pointwise_loss (`torch.FloatTensor`, *optional*): Log-loss of clicks; with a ranking head.
        pairwise_loss (`torch.FloatTensor`, *optional*): Of the order of pairs, before lambda; with a ranking head.
        questions (`torch.FloatTensor`): Vectors of the questions, `(batch, num_questions, hidden_size)`.
    """

    loss: Tensor | None = None
    easy_loss: Tensor | None = None
    hard_loss: Tensor | None = None
    pointwise_loss: Tensor | None = None
    pairwise_loss: Tensor | None = None
    questions: Tensor | None = None


class SynerGenForSearchAndRecommendation(DenseRetrievalMixin, SynerGenPreTrainedModel):
    """SynerGen with the comparison with items and the ranking head."""

    def __init__(self, config: SynerGenConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.model = SynerGenModel(config)
        self.retrieval_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.ranking_head = None
        if config.ranking_weight:
            self.ranking_head = nn.Sequential(
                nn.LayerNorm(size, eps=config.layer_norm_eps), nn.Linear(size, size), nn.GELU(), nn.Linear(size, 1)
            )
        self.fusion = make_fusion(config)
        self.post_init()

    @property
    def items(self) -> ItemTower:  # type: ignore[override]
        """Items to vectors."""
        return self.model.items

    @property
    def compares_all_items(self) -> bool:
        """Whether a step of training reads the vector of every item."""
        return self.config.easy_negatives == "full" and self.config.easy_weight > 0

    def read_events(self, inputs: Any, state: HistoryState | None, items: CatalogItems) -> HistoryState:
        """Read events behind a state; see `DenseRetrievalMixin`."""
        read: HistoryState = self.model(inputs, state, items)
        return read

    def encode_questions(
        self, inputs: Any, *, state: HistoryState | None = None, items: CatalogItems | None = None
    ) -> Tensor:
        """Give the vector of each question; see `DenseRetrievalMixin`."""
        items = items or self.current_items()
        inputs, state = self.with_state(inputs, state, items)
        return self._answered(self.model.ask(state, inputs, items), state, inputs, items)

    def score_candidates(
        self, inputs: Any, *, state: HistoryState | None = None, items: CatalogItems | None = None
    ) -> Tensor:
        """Give the click probability of each candidate; see `DenseRetrievalMixin`.

        Without a ranking head, or with `rank_by` retrieval: the score that `retrieve` gives.
        """
        items = items or self.current_items()
        inputs, state = self.with_state(inputs, state, items)
        rows = inputs["candidate_rows"]
        questions = self.model.ask(state, inputs, items)
        if self.ranking_head is not None and self.config.rank_by == "ranking":
            return torch.sigmoid(self._click_logits(state, questions, inputs, rows, items).float())
        answered = self._answered(questions, state, inputs, items)
        return self.answer_scores(answered, rows, state.places.item, items)

    def forward(
        self, labels: Tensor | None = None, num_items_in_batch: Tensor | int | None = None, **inputs: Any
    ) -> SynerGenOutput:
        """Read windows and answer their questions.

        Args:
            labels (`torch.LongTensor`, *optional*): Catalogue rows, `(batch, num_questions)`; -100 for no question.
            num_items_in_batch (`int`, *optional*): Divides the sum of losses; the number of labels if not given.
            inputs: What `WindowCollator` or the processor gives.

        Returns:
            [`SynerGenOutput`]: With losses if labels are given.
        """
        state = self.model(inputs)
        asked = self.model.ask(state, inputs)
        questions = self._compared(asked)
        if labels is None:
            return SynerGenOutput(questions=questions)
        is_asked = labels >= 0
        divisor = int(is_asked.sum()) if num_items_in_batch is None else num_items_in_batch
        config, beside = self.config, self._beside(inputs)
        easy = self._easy_loss(questions[is_asked], labels[is_asked], is_asked, inputs, divisor)
        hard = self._hard_loss(questions[is_asked], labels[is_asked], beside[is_asked], is_asked, inputs, divisor)
        loss = config.easy_weight * easy + (1 - config.easy_weight) * hard
        parts: dict[str, Tensor] = {"easy_loss": easy, "hard_loss": hard}
        if self.ranking_head is not None:
            # A corrected draw may be the target, which was clicked.
            others = torch.where(beside == labels[..., None], -1, beside)
            rows = torch.cat([labels.clamp_min(-1)[..., None], others], dim=-1)
            logits = self._click_logits(state, asked, inputs, rows)[is_asked]
            ranking = ranking_losses(logits, rows[is_asked] >= 0, divisor=divisor)
            parts |= {"pointwise_loss": ranking.pointwise, "pairwise_loss": ranking.pairwise}
            loss = loss + config.ranking_weight * (ranking.pointwise + config.pairwise_weight * ranking.pairwise)
        return SynerGenOutput(loss=loss, questions=questions, **parts)

    def _easy_loss(self, questions: Tensor, labels: Tensor, is_asked: Tensor, inputs: Any, divisor: Any) -> Tensor:
        config = self.config
        if not config.easy_weight:
            return questions.sum() * 0.0
        if config.easy_negatives == "full":
            items = self.compared_vectors(self.items.all())
            return full_softmax(questions, items, labels, temperature=config.temperature, divisor=divisor)
        log_q = self._log_q(inputs, "label")[is_asked] if config.correct_popularity else None
        first, columns = 0, [labels] if log_q is None else [labels, log_q]
        # The batch is that of all processes. In training alone: any other loss may be one process's own affair.
        if self.training:
            columns, first = gather_columns(*columns)
        return in_batch_loss(
            questions,
            self.compared_vectors(self.items(columns[0])),
            columns[0],
            first=first,
            log_q=None if log_q is None else columns[1],
            temperature=config.temperature,
            divisor=divisor,
        )

    def _log_q(self, inputs: Any, name: str) -> Tensor:
        if f"{name}_log_q" not in inputs:
            raise ConfigurationError(
                f"The batch has no `{name}_log_q`, which `correct_popularity` needs; give the collator `negatives=` "
                "of kind 'popularity', or switch the correction off."
            )
        log_q: Tensor = inputs[f"{name}_log_q"]
        return log_q

    def _hard_loss(
        self, questions: Tensor, labels: Tensor, beside: Tensor, is_asked: Tensor, inputs: Any, divisor: Any
    ) -> Tensor:
        """Compare targets with what was shown or drawn beside them.

        How the shop chose what it showed is not known; with `correct_popularity` it counts as chosen by popularity, so
        that shown and drawn items are on one scale.
        """
        if self.config.easy_weight == 1 or not beside.shape[-1]:
            return questions.sum() * 0.0
        vectors = self.compared_vectors(self.items(torch.cat([labels[:, None], beside], dim=1)))
        scores = (vectors * questions[:, None]).sum(-1)
        own_log_q = log_q = None
        if self.config.correct_popularity:
            own_log_q = self._log_q(inputs, "label")[is_asked]
            names = ["shown", "negative"] if "negative_rows" in inputs else ["shown"]
            log_q = torch.cat([self._log_q(inputs, name)[is_asked] for name in names], dim=-1)
        return info_nce(
            scores[:, 0],
            scores[:, 1:],
            is_valid=beside >= 0,
            positive_log_q=own_log_q,
            negative_log_q=log_q,
            temperature=self.config.temperature,
            divisor=divisor,
        )

    def _beside(self, inputs: Any) -> Tensor:
        """Give what stood beside each target and was not clicked: shown, or drawn in its place; -1 for padding."""
        shown: Tensor = inputs["shown_item_rows"]
        return torch.cat([shown, inputs["negative_rows"]], dim=-1) if "negative_rows" in inputs else shown

    def _click_logits(
        self, state: HistoryState, questions: Questions, inputs: Any, rows: Tensor, items: CatalogItems | None = None
    ) -> Tensor:
        head: Any = self.ranking_head
        logits: Tensor = head(self.model.judge(state, questions, inputs, rows, items))[..., 0]
        return logits

    def _answered(self, questions: Questions, state: HistoryState, inputs: Any, items: CatalogItems) -> Tensor:
        return self.answer_questions(self._compared(questions), state.places.item, questions.allowed, inputs, items)

    def _compared(self, questions: Questions) -> Tensor:
        return self.compared_vectors(self.retrieval_norm(questions.hidden_states))


__all__ = ["SynerGenForSearchAndRecommendation", "SynerGenModel", "SynerGenOutput", "SynerGenPreTrainedModel"]
