# SPDX-License-Identifier: Apache-2.0
"""IntSR: a decoder over scenario, query, item and feedback tokens that retrieves and ranks (Yan et al.).

Unusual here:

- Questions are placeholders in a stream of their own (`modeling_intsr_blocks.py`): the history is read once, kept as a
  [`HistoryState`], and any number of questions or candidates is answered from it (appendix C). In training every event
  of a window asks, each seeing what came before its session.
- Item vectors are an id embedding plus a projected text vector, on both sides: as tokens, and as what the output is
  compared with.
- With `use_placeholders` off this is plain HSTU over items.

Weights start as follows: embeddings and projections of text normal with `initializer_range`; the linear layers of
blocks and DSFNet normal with `1 / sqrt(inputs)`, the last of DSFNet like the embeddings; the position bias at 1, so
that attention begins as a mean over what is seen, where SiLU of zero would begin as nothing; ALiBi's slopes at
`2 ** (-8 * (head + 1) / num_heads)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from seekrec.errors import ConfigurationError
from seekrec.models.dense.catalog_items import CatalogItems
from seekrec.models.dense.fusion import make_fusion
from seekrec.models.dense.interface_dense import DenseRetrievalMixin
from seekrec.models.dense.item_tower import ItemTower, LatestItem, TextProjection
from seekrec.models.dense.losses import candidate_loss, full_softmax, hard_negatives, info_nce
from seekrec.models.intsr.configuration_intsr import IntSRConfig
from seekrec.models.intsr.modeling_intsr_blocks import (
    Places,
    QueryDrivenBlock,
    RelativeBias,
    history_visibility,
    placeholder_visibility,
)
from seekrec.models.intsr.modeling_intsr_dsfnet import DSFNet, ResidualLinear
from seekrec.models.intsr.modeling_intsr_tokens import HistoryState, TokenEmbedder


@dataclass
class IntSROutput(ModelOutput):
    """What [`IntSRForSearchAndRecommendation`] returns.

    Args:
        loss (`torch.FloatTensor`, *optional*): In nats a question; present when labels are given.
        retrieval_loss (`torch.FloatTensor`, *optional*): Its first part (equation 14).
        ranking_loss (`torch.FloatTensor`, *optional*): Its second part, before its weight; with `ranking_weight`.
        questions (`torch.FloatTensor`): Vectors of the questions, `(batch, num_questions, hidden_size)`.
    """

    loss: Tensor | None = None
    retrieval_loss: Tensor | None = None
    ranking_loss: Tensor | None = None
    questions: Tensor | None = None


class IntSRPreTrainedModel(PreTrainedModel):
    """Loading, saving and the start values of IntSR's weights."""

    config_class = IntSRConfig
    config: IntSRConfig
    base_model_prefix = "model"
    main_input_name = "history_item_rows"
    _no_split_modules = ["QueryDrivenBlock"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Embedding, TextProjection)):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, nn.Linear):
            is_last = isinstance(module, ResidualLinear)
            spread = self.config.initializer_range if is_last else module.in_features**-0.5
            init.normal_(module.weight, mean=0.0, std=spread)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, LatestItem):
            module.start_weights()
        elif isinstance(module, RelativeBias):
            if module.position is not None:
                init.ones_(module.position)
            if module.time_buckets is not None:
                init.zeros_(module.time_buckets)
            if module.slopes is not None:
                heads = torch.arange(1, module.num_heads + 1)
                init.copy_(module.slopes, 2.0 ** (-8.0 * heads / module.num_heads))


class IntSRModel(IntSRPreTrainedModel):
    """The decoder: histories to states, questions to vectors."""

    def __init__(self, config: IntSRConfig) -> None:
        super().__init__(config)
        self.items = ItemTower(config.num_items, config.hidden_size, config.text_size, config.use_ids)
        self.tokens = TokenEmbedder(config)
        self.bias = RelativeBias(config)
        self.latest = LatestItem(config.hidden_size) if config.starts_from_latest_item else None
        self.layers = nn.ModuleList(QueryDrivenBlock(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Give the module that turns items into vectors."""
        return self.items

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the module that turns items into vectors."""
        self.items = value  # type: ignore[assignment]

    def forward(
        self, inputs: Any, item_vectors: Tensor | None = None, state: HistoryState | None = None
    ) -> HistoryState:
        """Read events.

        Args:
            inputs: Has the `history_*` tensors and `query_vectors`; see `EventSequenceProcessor`.
            item_vectors (`torch.Tensor`, *optional*): Of the whole catalogue, if they are at hand.
            state ([`HistoryState`], *optional*): What the events follow.

        Returns:
            [`HistoryState`]: Of all events so far.
        """
        vectors, places, counts = self.tokens.history(inputs, self.lookup(item_vectors), state)
        read = self.read(vectors, places, state)
        return HistoryState(read.places, read.keys, read.values, read.outputs, read.num_events + counts)

    def lookup(self, item_vectors: Tensor | None) -> Any:
        """Give the function from catalogue rows to vectors; below 0 is no item."""
        if item_vectors is None:
            return self.items
        return lambda rows: item_vectors[rows.clamp_min(0)] * (rows >= 0)[..., None]

    def read(self, vectors: Tensor, places: Places, state: HistoryState | None) -> HistoryState:
        """Send tokens of the first stream through all blocks, behind those of a state (equations 5, 6 and 8)."""
        keys_places = places if state is None else state.places.append(places)
        allowed = history_visibility(places, keys_places, use_session_mask=self.config.use_session_mask)
        bias = self.bias(places, keys_places)
        all_keys, all_values, hidden = [], [], vectors
        layers: Any = self.layers
        for number, layer in enumerate(layers):
            gates, queries, keys, values = layer.split(hidden)
            if state is not None:
                keys = torch.cat([state.keys[number], keys], dim=2)
                values = torch.cat([state.values[number], values], dim=2)
            all_keys.append(keys)
            all_values.append(values)
            # Placeholders read keys and values of the last block, not what it makes of the history.
            if number + 1 < len(layers) or not self.config.use_placeholders:
                hidden = layer.history(hidden, gates, queries, keys, values, allowed, bias)
        outputs = None
        if not self.config.use_placeholders:
            outputs = hidden if state is None else torch.cat([state.outputs, hidden], dim=1)  # type: ignore[list-item]
        before = places.is_real.new_zeros(len(vectors), dtype=torch.long) if state is None else state.num_events
        return HistoryState(keys_places, tuple(all_keys), tuple(all_values), outputs, before)

    def answer(
        self,
        state: HistoryState,
        inputs: Any,
        candidates: Tensor | None = None,
        *,
        item_vectors: Tensor | None = None,
    ) -> Tensor:
        """Send questions through all blocks (equations 5, 7 and 9).

        Args:
            state ([`HistoryState`]): What they ask about.
            inputs: Has the `question_*` tensors and `query_vectors`.
            candidates (`torch.Tensor`, *optional*): Item vectors `(batch, num_questions, num_candidates,
                hidden_size)`: a placeholder for each, which sees what its question sees, and itself.
            item_vectors (`torch.Tensor`, *optional*): Of the whole catalogue, if they are at hand.

        Returns:
            `torch.Tensor`: Of shape `(batch, num_questions, num_candidates or 1, hidden_size)`.
        """
        opening = self.tokens.scenario_token(inputs, state)
        if opening is not None:
            state = self.read(*opening, state)
        session, event, time = (inputs[f"question_{name}"] for name in ("session_ids", "events", "timestamps"))
        allowed = placeholder_visibility(session, event, state.places, use_session_mask=self.config.use_session_mask)
        if state.outputs is not None:
            return self._last_states(state.outputs, allowed)
        count = allowed.sum(-1)
        real = torch.ones_like(allowed[..., 0]) if allowed.shape[-1] else count == 0
        places = Places(count, session, event, time, is_scenario=~real, item=torch.full_like(time, -1), is_real=real)
        bias = self.bias(places, state.places)
        nothing = torch.zeros(1, 1, dtype=torch.long, device=count.device)
        own_bias = self.bias.of(nothing, nothing)
        hidden = self.tokens.question(inputs, candidates)
        if self.latest is not None and candidates is None:
            behaviors = inputs["question_behavior_ids"]
            hidden = hidden + self.latest(state.places.item, allowed, behaviors, self.lookup(item_vectors))[:, :, None]
        layers: Any = self.layers
        for layer, keys, values in zip(layers, state.keys, state.values, strict=True):
            hidden = layer.answer(hidden, keys, values, allowed, bias, own_bias)
        return hidden

    def _last_states(self, outputs: Tensor, allowed: Tensor) -> Tensor:
        """Give what plain HSTU compares with items: the state of the last token that is seen, or a start vector."""
        start: Any = self.tokens.start
        numbers = torch.arange(1, allowed.shape[-1] + 1, device=allowed.device)
        last = (allowed * numbers).amax(-1) if allowed.shape[-1] else allowed.sum(-1)
        padded = torch.cat([(start.weight * self.tokens.scale).expand(len(outputs), 1, -1), outputs], dim=1)
        return padded.gather(1, last[..., None].expand(-1, -1, padded.shape[-1]))[:, :, None]


class IntSRForSearchAndRecommendation(DenseRetrievalMixin, IntSRPreTrainedModel):
    """IntSR with DSFNet, the comparison with items and the ranking head."""

    def __init__(self, config: IntSRConfig) -> None:
        super().__init__(config)
        self.model = IntSRModel(config)
        self.dsfnet = DSFNet(config) if config.num_dsf_layers else None
        self.output_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.ranking_head = None
        if config.ranking_weight:
            size = config.hidden_size
            self.ranking_head = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, 1))
        self.fusion = make_fusion(config)
        self.post_init()

    @property
    def items(self) -> ItemTower:  # type: ignore[override]
        """Items to vectors."""
        return self.model.items

    @property
    def compares_all_items(self) -> bool:
        """Whether a step of training reads the vector of every item."""
        return self.config.negatives != "sampled"

    def read_events(self, inputs: Any, state: HistoryState | None, items: CatalogItems) -> HistoryState:
        """Read events behind a state; see `DenseRetrievalMixin`."""
        read: HistoryState = self.model(inputs, items.vectors, state)
        return read

    def encode_questions(
        self, inputs: Any, *, state: HistoryState | None = None, items: CatalogItems | None = None
    ) -> Tensor:
        """Give the vector of each question; see `DenseRetrievalMixin`."""
        items = items or self.current_items()
        inputs, state = self.with_state(inputs, state, items)
        return self._answered(state, inputs, items)

    def score_candidates(
        self, inputs: Any, *, state: HistoryState | None = None, items: CatalogItems | None = None
    ) -> Tensor:
        """Give the probability of an act on each candidate; see `DenseRetrievalMixin`.

        Without a ranking head: the score that `retrieve` gives.
        """
        items = items or self.current_items()
        inputs, state = self.with_state(inputs, state, items)
        rows = inputs["candidate_rows"]
        if self.ranking_head is not None:
            return torch.sigmoid(self._candidate_logits(state, inputs, self.model.lookup(items.vectors)(rows)).float())
        return self.answer_scores(self._answered(state, inputs, items), rows, state.places.item, items)

    def forward(
        self, labels: Tensor | None = None, num_items_in_batch: Tensor | int | None = None, **inputs: Any
    ) -> IntSROutput:
        """Read windows and answer their questions.

        Args:
            labels (`torch.LongTensor`, *optional*): Catalogue rows, `(batch, num_questions)`; -100 for no question.
            num_items_in_batch (`int`, *optional*): Divides the sum of losses; the number of labels if not given.
            inputs: What `WindowCollator` or the processor gives.

        Returns:
            [`IntSROutput`]: With losses if labels are given.
        """
        all_items = self.items.all() if self.compares_all_items or labels is None else None
        state = self.model(inputs, all_items)
        questions = self._question_vectors(state, inputs, all_items)
        if labels is None:
            return IntSROutput(questions=questions)
        is_asked = labels >= 0
        divisor = int(is_asked.sum()) if num_items_in_batch is None else num_items_in_batch
        retrieval = self._retrieval_loss(questions[is_asked], labels[is_asked], is_asked, inputs, all_items, divisor)
        loss, ranking = retrieval, None
        if self.ranking_head is not None:
            ranking = self._ranking_loss(state, inputs, labels, all_items, divisor)
            loss = loss + self.config.ranking_weight * ranking
        return IntSROutput(loss=loss, retrieval_loss=retrieval, ranking_loss=ranking, questions=questions)

    def _retrieval_loss(
        self, questions: Tensor, labels: Tensor, is_asked: Tensor, inputs: Any, all_items: Tensor | None, divisor: Any
    ) -> Tensor:
        config = self.config
        if all_items is None:
            rows = self._negative_rows(inputs)[is_asked]
            pair = torch.cat([labels[:, None], rows], dim=1)
            scores = (self.compared_vectors(self.items(pair)) * questions[:, None]).sum(-1)
            log_q: dict[str, Tensor | None] = {"positive_log_q": None, "negative_log_q": None}
            if config.correct_sampling:
                log_q["positive_log_q"] = inputs["label_log_q"][is_asked]
                log_q["negative_log_q"] = inputs["negative_log_q"][is_asked]
            return info_nce(
                scores[:, 0],
                scores[:, 1:],
                is_valid=rows >= 0,
                temperature=config.temperature,
                divisor=divisor,
                **log_q,
            )
        items = self.compared_vectors(all_items)
        times = inputs["question_timestamps"][is_asked]

        def on_offer(part: slice) -> Tensor | None:
            return self.available_items(times[part]) if config.align_candidates else None

        if config.negatives == "full":
            return full_softmax(
                questions, items, labels, candidates=on_offer, temperature=config.temperature, divisor=divisor
            )
        return hard_negatives(
            questions,
            items,
            labels,
            count=config.num_hard_negatives,
            candidates=on_offer,
            temperature=config.temperature,
            divisor=divisor,
        )

    def _ranking_loss(
        self, state: HistoryState, inputs: Any, labels: Tensor, all_items: Tensor | None, divisor: Any
    ) -> Tensor:
        """Rank each target among negatives (appendix C.1)."""
        is_asked = labels >= 0
        negatives = self._negative_rows(inputs)[..., : self.config.num_ranking_negatives]
        # A corrected draw may be the target.
        negatives = torch.where(negatives == labels[..., None], -1, negatives)
        rows = torch.cat([labels.clamp_min(-1)[..., None], negatives], dim=-1)
        logits = self._candidate_logits(state, inputs, self.model.lookup(all_items)(rows))
        return candidate_loss(logits[is_asked], rows[is_asked] >= 0, divisor=divisor)

    def _negative_rows(self, inputs: Any) -> Tensor:
        if "negative_rows" not in inputs:
            raise ConfigurationError(
                "The batch has no `negative_rows`, which `negatives='sampled'` and `ranking_weight` need; give the "
                "collator `negatives=`."
            )
        rows: Tensor = inputs["negative_rows"]
        return rows

    def _question_vectors(self, state: HistoryState, inputs: Any, item_vectors: Tensor | None = None) -> Tensor:
        """Give what is compared with items, `(batch, num_questions, hidden_size)`."""
        answers = self.model.answer(state, inputs, item_vectors=item_vectors)
        return self.compared_vectors(self._outputs(answers, inputs)[:, :, 0])

    def _answered(self, state: HistoryState, inputs: Any, items: CatalogItems) -> Tensor:
        own = self._question_vectors(state, inputs, items.vectors)
        if self.fusion is None:
            return own
        allowed = placeholder_visibility(
            inputs["question_session_ids"],
            inputs["question_events"],
            state.places,
            use_session_mask=self.config.use_session_mask,
        )
        return self.answer_questions(own, state.places.item, allowed, inputs, items)

    def _candidate_logits(self, state: HistoryState, inputs: Any, candidates: Tensor) -> Tensor:
        head: Any = self.ranking_head
        return head(self._outputs(self.model.answer(state, inputs, candidates), inputs))[..., 0]

    def _outputs(self, hidden_states: Tensor, inputs: Any) -> Tensor:
        """Apply DSFNet and the last norm: `(batch, num_questions, group_size, hidden_size)` in and out."""
        if self.dsfnet is not None:
            scenario = hidden_states.new_zeros(0)
            if self.model.tokens.tasks is not None:
                scenario = self.model.tokens.scenario(inputs)[:, :, None].expand(*hidden_states.shape[:3], -1)
            hidden_states = self.dsfnet(hidden_states, scenario)
        return self.output_norm(hidden_states)


__all__ = ["IntSRForSearchAndRecommendation", "IntSRModel", "IntSROutput", "IntSRPreTrainedModel"]
