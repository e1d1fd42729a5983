# SPDX-License-Identifier: Apache-2.0
"""GenSR: a T5 that reads two views of a history and says Yes or No to a candidate (Zhao et al. 2025, section 5).

Unusual here:

- Prompts are embeddings, not tokens: text, and vectors that the views make (see `prompts_gensr.py`).
- Candidates are scored together: histories are encoded once a request, items once a batch, and with
  `config.shared_prompt` all that stands before the candidate once a request.
- The same model writes identifiers where no candidate is given (section 6.3): then the prompt holds the whole history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from seekrec.catalog import Catalog
from seekrec.embeddings import FrozenSASRec, SASRecForNextItem
from seekrec.errors import CatalogError
from seekrec.models.dense.interface_dense import items_hash
from seekrec.models.gensr.configuration_gensr import GenSRConfig
from seekrec.models.gensr.modeling_gensr_answers import GenSRAnswersMixin, GenSRSnapshot
from seekrec.models.gensr.modeling_gensr_prompts import GenSRPromptsMixin, Histories
from seekrec.models.gensr.modeling_gensr_views import (
    CollaborativeTable,
    Scale,
    View,
    ViewEmbedding,
    ViewLinear,
    mean_of,
)
from seekrec.models.losses import level_loss, token_loss, view_contrast
from seekrec.models.t5_backbone import T5Backbone


@dataclass
class GenSROutput(ModelOutput):
    """What [`GenSRForConditionalGeneration`] says of a batch.

    Args:
        loss (`torch.FloatTensor`, *optional*): Equation 11 over the modes that have labels; present with labels.
        candidate_logits (`torch.FloatTensor`, *optional*):
            logit(Yes) - logit(No), of shape `(batch, num_candidates)`; present with candidates.
        yes_no_loss (`torch.FloatTensor`, *optional*): Equation 12, in nats, without its weight.
        identifier_loss (`torch.FloatTensor`, *optional*): The same for identifiers, in nats a code.
        contrast_loss (`torch.FloatTensor`, *optional*): Equation 10, in nats, without its weight.
    """

    loss: Tensor | None = None
    candidate_logits: Tensor | None = None
    yes_no_loss: Tensor | None = None
    identifier_loss: Tensor | None = None
    contrast_loss: Tensor | None = None


class GenSRForConditionalGeneration(GenSRAnswersMixin, GenSRPromptsMixin, T5Backbone):
    """GenSR: T5 with two views of the history in its prompt, and a catalogue to search and recommend from.

    ```python
    model = GenSRForConditionalGeneration.from_pretrained("me/gensr-scientific")
    processor = AutoProcessor.from_pretrained("me/gensr-scientific")
    model.rank(processor([Request(history=events)], candidates=[["B00A", "B00B"]]))
    ```

    Args:
        config ([`GenSRConfig`]): Sizes of T5, of the views and of the identifiers.
    """

    config: GenSRConfig
    # Annotations are text here, so transformers cannot read the class from the one above.
    config_class = GenSRConfig
    # The loss is a mean over rows, whatever their labels: Trainer shall divide by the micro-batches itself.
    accepts_loss_kwargs = False

    def __init__(self, config: GenSRConfig) -> None:
        super().__init__(config)
        sizes = {"collaborative": config.collaborative_size, "semantic": config.d_model}
        self.history_views = nn.ModuleDict(
            {view: View(config, sizes[view], reads_text=view == "semantic") for view in config.prompt_views}
        )
        self.collaborative_table = CollaborativeTable(
            config.num_items, config.collaborative_size, is_trained=config.train_collaborative_table
        )
        self.recommender = None
        if config.recommender is not None:
            # The table stands for its items.
            self.recommender = FrozenSASRec(config.recommender)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # Only modules that hold weights themselves come here: see `ViewLinear`.
        if isinstance(module, (ViewLinear, ViewEmbedding, Scale, CollaborativeTable)):
            module.start_weights()

    @property
    def modules_outside_t5(self) -> list[str]:
        """Names of the modules that no T5 checkpoint has: trained whole beside the adapters of the generator."""
        return [f"history_views.{name}" for name in self.views_by_name]

    def forward(
        self,
        item_rows: Tensor | None = None,
        item_text_ids: Tensor | None = None,
        query_text_ids: Tensor | None = None,
        history_items: Tensor | None = None,
        history_queries: Tensor | None = None,
        history_behaviors: Tensor | None = None,
        history_mask: Tensor | None = None,
        asked_queries: Tensor | None = None,
        prompt_layout: Tensor | None = None,
        suffix_layout: Tensor | None = None,
        retrieval_layout: Tensor | None = None,
        candidate_items: Tensor | None = None,
        candidate_labels: Tensor | None = None,
        identifier_inputs: Tensor | None = None,
        identifier_labels: Tensor | None = None,
        user_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Score candidates and say how well; without `item_rows` this is T5's own `forward`.

        Args:
            item_rows (`torch.LongTensor` of shape `(U,)`, *optional*): The batch's items, rows of the catalogue.
            item_text_ids (`torch.LongTensor` of shape `(U, item_length)`): Their texts, -1 for padding.
            query_text_ids (`torch.LongTensor` of shape `(Q, query_length)`): The batch's queries, -1 for padding.
            history_items (`torch.LongTensor` of shape `(batch, length)`): Places among the `U`, -1 for none.
            history_queries (`torch.LongTensor` of shape `(batch, length)`): Places among the `Q`, -1 for none.
            history_behaviors (`torch.LongTensor` of shape `(batch, length)`): Numbers into `BEHAVIORS`.
            history_mask (`torch.BoolTensor` of shape `(batch, length)`): True for an event.
            asked_queries (`torch.LongTensor` of shape `(batch,)`): What is searched for now, places among the `Q`, -1
                for nothing.
            prompt_layout (`torch.LongTensor`): See `prompts_gensr.py`; padded on the left.
            suffix_layout (`torch.LongTensor`): Likewise; padded on the right.
            retrieval_layout (`torch.LongTensor`): Likewise; padded on the left. Left out where it is `prompt_layout`.
            candidate_items (`torch.LongTensor` of shape `(batch, num_candidates)`, *optional*): Places among the `U`.
            candidate_labels (`torch.LongTensor` of shape `(batch, num_candidates)`, *optional*):
                1 for Yes, 0 for No, -100 is not scored.
            identifier_inputs (`torch.LongTensor` of shape `(batch, num_levels)`, *optional*): The behavior token, then
                all codes but the last, as tokens.
            identifier_labels (`torch.LongTensor` of shape `(batch, num_levels)`, *optional*): The codes, as tokens.
            user_ids (`torch.LongTensor` of shape `(batch,)`, *optional*): Tells users apart in the contrastive loss.
            attention_mask (`torch.LongTensor`, *optional*): Of T5's own `forward`, as are the next and all others.
            decoder_input_ids (`torch.LongTensor`, *optional*): What is written so far.
            encoder_outputs (`BaseModelOutput`, *optional*): Prompts that `encode_retrieval_prompts` encoded.
            kwargs: Of T5's own `forward`.

        Returns:
            [`GenSROutput`]: The scores and losses that can be had.
        """
        if item_rows is None:
            return super().forward(
                attention_mask=attention_mask,
                decoder_input_ids=decoder_input_ids,
                encoder_outputs=encoder_outputs,
                **kwargs,
            )
        histories = self.encode_histories(
            item_rows,
            item_text_ids,
            query_text_ids,
            history_items,
            history_queries,
            history_behaviors,
            history_mask,
            asked_queries,
        )
        output = GenSROutput()
        total: Tensor | None = None
        if candidate_items is not None and self.config.yes_no_weight:
            logits = self.candidate_logits(histories, prompt_layout, suffix_layout, candidate_items)
            output["candidate_logits"] = self.yes_minus_no(logits)
            if candidate_labels is not None:
                output["yes_no_loss"] = self._yes_no_loss(logits, candidate_labels)
                total = self.config.yes_no_weight * output["yes_no_loss"]
        if identifier_labels is not None and self.config.identifier_weight:
            layout = prompt_layout if retrieval_layout is None else retrieval_layout
            states, mask = self.encode_retrieval_prompts(histories, layout)
            output["identifier_loss"] = self._identifier_loss(states, mask, identifier_inputs, identifier_labels)
            weighted = self.config.identifier_weight * output["identifier_loss"]
            total = weighted if total is None else total + weighted
        if total is not None and self.config.contrast_weight:
            output["contrast_loss"] = self._contrast_loss(histories, user_ids)
            total = total + self.config.contrast_weight * output["contrast_loss"]
        if total is not None:
            output["loss"] = total
        return output

    def yes_minus_no(self, logits: Tensor) -> Tensor:
        """The score of candidates from what `candidate_logits` gives: logit(Yes) - logit(No)."""
        if self.config.loss_norm == "level":
            return logits[..., 1] - logits[..., 0]
        return logits[..., self.config.yes_token_id] - logits[..., self.config.no_token_id]

    def _yes_no_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.config.yes_no_loss == "listwise":
            scores = self.yes_minus_no(logits).masked_fill(labels == -100, float("-inf"))
            return -scores.log_softmax(-1)[labels == 1].mean()
        numbers = (0, 1) if self.config.loss_norm == "level" else (self.config.no_token_id, self.config.yes_token_id)
        answers = torch.where(labels == 1, numbers[1], numbers[0]).masked_fill(labels == -100, -100)
        return token_loss(logits.flatten(0, 1), answers.flatten(), None)

    def _identifier_loss(self, states: Tensor, mask: Tensor, inputs: Tensor | None, labels: Tensor) -> Tensor:
        hidden = self.decoder(
            input_ids=inputs, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
        )[0]
        hidden = self._scaled(hidden)
        if self.config.loss_norm == "level":
            return level_loss(hidden.flatten(0, 1), labels.flatten(), self.lm_head.weight, self.config, None)
        return token_loss(self.lm_head(hidden).flatten(0, 1), labels.flatten(), None)

    def _contrast_loss(self, histories: Histories, users: Tensor | None) -> Tensor:
        has_history = histories.mask.any(1)
        vectors = [
            view.history_to_prompt(mean_of(histories.states[name][has_history, 1:], histories.mask[has_history]))
            for name, view in self.views_by_name.items()
        ]
        known = None if users is None else users[has_history]
        return view_contrast(vectors[0], vectors[1], self.config.contrast_temperature, known)

    @torch.no_grad()
    def set_collaborative_table(self, vectors: Any) -> None:
        """Take the item embeddings of a recommender; they are scaled to entries of mean square 1.

        Args:
            vectors (`np.ndarray` or `torch.Tensor`): float of shape `(num_items, collaborative_size)`, by row of the
                catalogue.

        Raises:
            ValueError: If the shape does not fit.
        """
        values = torch.as_tensor(vectors, dtype=torch.float32)
        if values.ndim != 2 or values.shape[1] != self.config.collaborative_size or not len(values):
            raise ValueError(
                f"`vectors` has shape {tuple(values.shape)}; give one row an item and `collaborative_size` "
                f"{self.config.collaborative_size} columns."
            )
        scale = values.square().mean().sqrt().clamp_min(1e-12)
        self.config.table_scale = float(scale)
        self._replace_table(values / scale)

    @torch.no_grad()
    def set_recommender(self, recommender: SASRecForNextItem) -> None:
        """Take a SASRec: its item embeddings as the collaborative table, its layers for the state after a history.

        Args:
            recommender ([`SASRecForNextItem`]): Of the sizes of `config.recommender`, over the catalogue's items.

        Raises:
            ValueError: If the model has no place for it, or its sizes are others.
        """
        if self.recommender is None:
            raise ValueError("`config.recommender` is None; make the model with the settings of the recommender.")
        self.recommender.take(recommender)
        self.set_collaborative_table(recommender.item_embeddings())

    def set_catalog(self, catalog: Catalog) -> None:
        """Answer from this catalogue from now on; items that it has more get a collaborative vector by their text.

        See [`GenerativeRetrievalMixin`].

        Raises:
            CatalogError: If the identifiers or the items are not those of the model, or a new item's vector cannot be
                predicted.
        """
        super().set_catalog(catalog)
        self.collaborative_table.later = self.current_snapshot().later_items(self)
        if self.config.num_items:
            self.config.table_hash = items_hash(catalog, self.config.num_items)

    def _check_catalog(self, catalog: Catalog) -> None:
        super()._check_catalog(catalog)
        known = self.config.num_items
        if len(catalog) < known or (
            self.config.table_hash is not None and items_hash(catalog, known) != self.config.table_hash
        ):
            raise CatalogError(
                f"The catalogue begins with other items than the {known} of the model's collaborative table; use the "
                "catalogue saved with the model, or one grown from it by `add_items`."
            )

    def _make_snapshot(self, catalog: Catalog) -> GenSRSnapshot:
        snapshot = GenSRSnapshot(catalog)
        # Before it is set: what cannot be predicted leaves the model as it was.
        snapshot.later_items(self)
        return snapshot

    def _replace_table(self, values: Tensor) -> None:
        config = self.config
        table = CollaborativeTable(len(values), values.shape[1], is_trained=config.train_collaborative_table)
        table.weight.data.copy_(values)
        self.collaborative_table = table.to(device=self.device, dtype=self.dtype)
        config.num_items = len(values)

    @classmethod
    def from_t5(cls, name_or_path: str, **settings: Any) -> Self:
        """Load the weights of a checkpoint, as [`T5Backbone`] does; the views are new.

        Args:
            name_or_path (`str`): For example `google/flan-t5-base`.
            settings: Fields of [`GenSRConfig`] that are not T5's.

        Returns:
            The model, without a catalogue and a collaborative table.
        """
        model = super().from_t5(name_or_path, **settings)
        spread = float(model.shared.weight.detach().float().std())
        for view in model.views_by_name.values():
            nn.init.constant_(view.scale.weight, spread)
        return model


__all__ = ["GenSRForConditionalGeneration", "GenSROutput"]
