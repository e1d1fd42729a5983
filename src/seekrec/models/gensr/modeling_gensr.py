# SPDX-License-Identifier: Apache-2.0
"""GenSR: a T5 that reads two views of a history and says Yes or No to a candidate (arXiv 2504.06714, section 5).

Unusual here:

- Prompts are embeddings, not tokens: text, and vectors that the views make (see `prompts_gensr.py`).
- Candidates are scored together: histories are encoded once a request, items once a batch, and with
  `config.shared_prompt` all that stands before the candidate once a request.
- The same model writes identifiers where no candidate is given (section 6.3): then the prompt holds the whole history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from seekrec.catalog import Catalog
from seekrec.catalog_growth import predict_by_ridge
from seekrec.corpora import IdentifierVocabulary
from seekrec.models.gensr.configuration_gensr import GenSRConfig
from seekrec.models.gensr.modeling_gensr_answers import GenSRAnswersMixin
from seekrec.models.gensr.modeling_gensr_shared import decode_first_token, encode_prefix, encode_suffixes
from seekrec.models.gensr.modeling_gensr_views import (
    CollaborativeTable,
    HistoryEncoder,
    SoftFilter,
    View,
    mean_of,
    pool_tokens,
)
from seekrec.models.identifier_rows import add_identifier_rows, config_from_t5
from seekrec.models.losses import level_loss, token_loss, view_contrast


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


@dataclass(frozen=True)
class Histories:
    """The views of a batch: items once, histories encoded.

    Args:
        items (`dict[str, torch.Tensor]`): By view, vectors of the batch's items, `(U + 1, size)`; the last is zero.
        states (`dict[str, torch.Tensor]`): By view, encoded histories, `(batch, 1 + length, size)`.
        mask (`torch.BoolTensor` of shape `(batch, length)`): True for an event.
    """

    items: dict[str, Tensor]
    states: dict[str, Tensor]
    mask: Tensor

    def take(self, rows: Tensor) -> Histories:
        """Give some rows of the batch; the items stay."""
        return Histories(self.items, {name: states[rows] for name, states in self.states.items()}, self.mask[rows])


class GenSRForConditionalGeneration(GenSRAnswersMixin, T5ForConditionalGeneration):
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
    # Trained whole, beside the adapters of the generator.
    modules_outside_t5 = ("history_views",)

    def __init__(self, config: GenSRConfig) -> None:
        super().__init__(config)
        sizes = {"collaborative": config.collaborative_size, "semantic": config.d_model}
        self.history_views = nn.ModuleDict(
            {view: View(config, sizes[view], normalizes_items=view == "semantic") for view in config.prompt_views}
        )
        self.collaborative_table = CollaborativeTable(
            config.num_items, config.collaborative_size, is_trained=config.train_collaborative_table
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, HistoryEncoder):
            for linear in (module.attention_input, module.expand):
                init.normal_(linear.weight, mean=0.0, std=linear.in_features**-0.5)
                init.zeros_(linear.bias)
            for linear in (module.attention_output, module.contract):
                # Small, so that an encoded event starts as the event itself.
                init.normal_(linear.weight, mean=0.0, std=0.1 * linear.in_features**-0.5)
                init.zeros_(linear.bias)
        elif isinstance(module, SoftFilter):
            init.orthogonal_(module.query_projection.weight)
            init.copy_(module.key_projection.weight, module.query_projection.weight)
            init.orthogonal_(module.value_projection.weight)
            init.orthogonal_(module.output_projection.weight)
        elif isinstance(module, View):
            for table in (module.start, module.behavior_embedding, module.position_embedding):
                init.normal_(table.weight, mean=0.0, std=0.1)
            for linear in (module.history_to_prompt, module.item_to_prompt):
                init.normal_(linear.weight, mean=0.0, std=linear.in_features**-0.5)
                init.zeros_(linear.bias)
            # The standard deviation that T5 gives to token embeddings.
            init.constant_(module.scale.weight, self.config.initializer_factor)
        elif isinstance(module, CollaborativeTable):
            init.normal_(module.weight, mean=0.0, std=1.0)

    @property
    def vocabulary(self) -> IdentifierVocabulary:
        """Where behavior tokens and codes stand in the token vocabulary."""
        return IdentifierVocabulary(
            first_token_id=self.config.first_identifier_token_id,
            num_shared_levels=self.config.num_shared_levels,
            num_specific_levels=self.config.num_specific_levels,
            codebook_size=self.config.codebook_size,
            views=tuple(self.config.views),  # type: ignore[arg-type]
        )

    def forward(
        self,
        item_rows: Tensor | None = None,
        item_text_ids: Tensor | None = None,
        query_text_ids: Tensor | None = None,
        history_items: Tensor | None = None,
        history_queries: Tensor | None = None,
        history_behaviors: Tensor | None = None,
        history_mask: Tensor | None = None,
        prompt_layout: Tensor | None = None,
        suffix_layout: Tensor | None = None,
        retrieval_layout: Tensor | None = None,
        candidate_items: Tensor | None = None,
        candidate_labels: Tensor | None = None,
        identifier_inputs: Tensor | None = None,
        identifier_labels: Tensor | None = None,
        user_ids: Tensor | None = None,
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
            kwargs: Of T5's own `forward`.

        Returns:
            [`GenSROutput`]: The scores and losses that can be had.
        """
        if item_rows is None:
            return super().forward(**kwargs)
        histories = self.encode_histories(
            item_rows, item_text_ids, query_text_ids, history_items, history_queries, history_behaviors, history_mask
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

    def encode_histories(
        self,
        item_rows: Tensor,
        item_text_ids: Tensor | None,
        query_text_ids: Tensor | None,
        history_items: Tensor | None,
        history_queries: Tensor | None,
        history_behaviors: Tensor | None,
        history_mask: Tensor | None,
    ) -> Histories:
        """Embed the batch's items and encode its histories in both views (equations 5 and 6); as in `forward`."""
        if (
            item_text_ids is None
            or query_text_ids is None
            or history_items is None
            or history_queries is None
            or history_behaviors is None
            or history_mask is None
        ):
            raise ValueError("The features of a batch are incomplete; let the processor make them.")
        items: dict[str, Tensor] = {}
        states: dict[str, Tensor] = {}
        for name, view in self.history_views.items():
            if name == "semantic":
                items[name] = _with_zero(view.item_norm(self._pool(item_text_ids)))
                events = items[name][history_items]
                # What was searched for is part of what the event says.
                events = events + _with_zero(view.item_norm(self._pool(query_text_ids)))[history_queries]
            else:
                items[name] = _with_zero(view.item_norm(self.collaborative_table(item_rows)))
                events = items[name][history_items]
            states[name] = view.encode(events, history_mask, history_behaviors)
        return Histories(items, states, history_mask)

    def candidate_logits(
        self, histories: Histories, prompt_layout: Tensor | None, suffix_layout: Tensor | None, candidates: Tensor
    ) -> Tensor:
        """Ask for each candidate whether the user will act on it.

        Args:
            histories ([`Histories`]): The encoded batch.
            prompt_layout (`torch.LongTensor`): As in `forward`.
            suffix_layout (`torch.LongTensor`): As in `forward`.
            candidates (`torch.LongTensor` of shape `(batch, num_candidates)`): Places among the batch's items.

        Returns:
            `torch.Tensor`: Logits of the first token, `(batch, num_candidates, vocab_size)`; with `loss_norm="level"`
            those of No and Yes alone, `(batch, num_candidates, 2)`.
        """
        if prompt_layout is None or suffix_layout is None:
            raise ValueError("Candidates need `prompt_layout` and `suffix_layout`; let the processor make them.")
        prefix, prefix_mask = self._fill(prompt_layout, self._event_bank(histories)), prompt_layout != -1
        suffix, suffix_mask = self._fill_suffixes(suffix_layout, histories, candidates), suffix_layout != -1
        batch, num_candidates, length, width = suffix.shape
        if self.config.shared_prompt:
            encoded = encode_prefix(self.encoder, prefix, prefix_mask)
            states = encode_suffixes(self.encoder, encoded, suffix, suffix_mask)
            start = self.shared(torch.tensor(self.config.decoder_start_token_id, device=states.device))
            decoded = decode_first_token(self.decoder, encoded, states, suffix_mask, start)
        else:
            repeated = prefix[:, None].expand(-1, num_candidates, -1, -1)
            embeds = torch.cat([repeated, suffix], dim=2).flatten(0, 1)
            mask = torch.cat([prefix_mask, suffix_mask], dim=1).long().repeat_interleave(num_candidates, dim=0)
            states = self.encoder(inputs_embeds=embeds, attention_mask=mask)[0]
            start = torch.full((len(states), 1), self.config.decoder_start_token_id, device=states.device)
            decoded = self.decoder(
                input_ids=start, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
            )[0].view(batch, num_candidates, width)
        decoded = self._scaled(decoded)
        if self.config.loss_norm == "level":
            answers = self.lm_head.weight[[self.config.no_token_id, self.config.yes_token_id]]
            return F.linear(decoded, answers).float()
        logits: Tensor = self.lm_head(decoded).float()
        return logits

    def encode_retrieval_prompts(self, histories: Histories, layout: Tensor | None) -> tuple[Tensor, Tensor]:
        """Encode the prompts that ask for an identifier.

        Args:
            histories ([`Histories`]): The encoded batch.
            layout (`torch.LongTensor` of shape `(batch, length)`): Padded on the left.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Encoder states `(batch, length, d_model)`, and a mask `(batch,
            length)`, int64, 1 where there is something.
        """
        if layout is None:
            raise ValueError("Writing identifiers needs `retrieval_layout`; let the processor make it.")
        mask = (layout != -1).long()
        embeds = self._fill(layout, self._event_bank(histories))
        states: Tensor = self.encoder(inputs_embeds=embeds, attention_mask=mask)[0]
        return states, mask

    def _pool(self, token_ids: Tensor) -> Tensor:
        return pool_tokens(self.shared(token_ids.clamp(min=0)), token_ids >= 0)

    def _event_bank(self, histories: Histories) -> Tensor:
        """Every event of every view as a vector of a prompt: (batch, 2 * (1 + length), d_model)."""
        length = 1 + histories.mask.shape[1]
        batch = len(histories.mask)
        parts = []
        for name in ("collaborative", "semantic"):
            if name in histories.states:
                parts.append(self.history_views[name].history_vectors(histories.states[name]))
            else:
                parts.append(self.shared.weight.new_zeros(batch, length, self.config.d_model))
        return torch.cat(parts, dim=1)

    def _fill(self, layout: Tensor, bank: Tensor) -> Tensor:
        """Turn layouts into embeddings: (batch, length) to (batch, length, d_model)."""
        embeds: Tensor = self.shared(layout.clamp(min=0))
        is_vector = layout < -1
        places = (-2 - layout).clamp(min=0)
        vectors = bank.gather(1, places[:, :, None].expand(-1, -1, bank.shape[-1]))
        return torch.where(is_vector[:, :, None], vectors.to(embeds.dtype), embeds)

    def _fill_suffixes(self, layout: Tensor, histories: Histories, candidates: Tensor) -> Tensor:
        """Turn suffix layouts into embeddings: (batch, length) to (batch, num_candidates, length, d_model)."""
        bank = self._candidate_bank(histories, candidates)
        tokens = self.shared(layout.clamp(min=0))[:, None]  # (batch, 1, length, d_model)
        is_vector = (layout < -1)[:, None, :, None]
        places = (-2 - layout).clamp(min=0)[:, None, :, None].expand(-1, bank.shape[1], -1, bank.shape[-1])
        return torch.where(is_vector, bank.gather(2, places).to(tokens.dtype), tokens)

    def _candidate_bank(self, histories: Histories, candidates: Tensor) -> Tensor:
        """The four vectors of each candidate in the order of `SUFFIX_VECTORS`: (batch, candidates, 4, d_model)."""
        filtered, items = [], []
        for name in ("collaborative", "semantic"):
            if name not in histories.states:
                zeros = self.shared.weight.new_zeros(*candidates.shape, self.config.d_model)
                filtered.append(zeros)
                items.append(zeros)
                continue
            view, vectors = self.history_views[name], histories.items[name]
            picked = view.pick(vectors[candidates], histories.states[name], histories.mask)
            filtered.append(view.history_vectors(picked))
            # Carried over once for each item of the batch, not once for each candidate.
            items.append(view.item_vectors(vectors)[candidates])
        return torch.stack([*filtered, *items], dim=2)

    def _scaled(self, decoded: Tensor) -> Tensor:
        return decoded * self.model_dim**-0.5 if self.config.scale_decoder_outputs else decoded

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
            for name, view in self.history_views.items()
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
        self._replace_table(values / values.square().mean().sqrt().clamp_min(1e-12))

    def set_catalog(self, catalog: Catalog) -> None:
        """Answer from this catalogue from now on; items that it has more get a collaborative vector by their text.

        Raises:
            CatalogError: If the identifiers are not those of the model, or a new item's vector cannot be predicted.
        """
        super().set_catalog(catalog)
        known = self.config.num_items
        if 0 < known < len(catalog) and "collaborative" in self.config.prompt_views:
            table = self.collaborative_table.weight.detach().float()
            semantic = catalog.embeddings.get("semantic")
            pairs: dict[Any, Any] = {"collaborative": table.cpu().numpy()}
            if semantic is not None:
                pairs["semantic"] = semantic[:known]
            predicted = predict_by_ridge(pairs, catalog.live[:known], None if semantic is None else semantic[known:])
            self._replace_table(torch.cat([table, torch.as_tensor(predicted, dtype=torch.float32).to(table.device)]))

    def _replace_table(self, values: Tensor) -> None:
        config = self.config
        table = CollaborativeTable(len(values), values.shape[1], is_trained=config.train_collaborative_table)
        table.weight.data.copy_(values)
        self.collaborative_table = table.to(device=self.device, dtype=self.dtype)
        config.num_items = len(values)

    def add_identifier_rows(
        self, vocabulary: IdentifierVocabulary, *, codebooks: dict[str, Any] | None = None, seed: int = 0
    ) -> None:
        """Make room for identifier tokens and give their rows a start; see [`identifier_rows.add_identifier_rows`]."""
        add_identifier_rows(self, vocabulary, codebooks=codebooks, seed=seed)

    @classmethod
    def from_t5(cls, name_or_path: str, **settings: Any) -> GenSRForConditionalGeneration:
        """Load the weights of a T5 or Flan-T5 checkpoint; the views are new.

        Args:
            name_or_path (`str`): For example `google/flan-t5-base`.
            settings: Fields of [`GenSRConfig`] that are not T5's.

        Returns:
            [`GenSRForConditionalGeneration`]: The model, without a catalogue and a collaborative table.
        """
        config = config_from_t5(GenSRConfig, name_or_path, settings)
        model = super().from_pretrained(name_or_path, config=config)
        spread = float(model.shared.weight.float().std())
        for view in model.history_views.values():
            nn.init.constant_(view.scale.weight, spread)
        return model


def _with_zero(vectors: Tensor) -> Tensor:
    """Add a row of zeros behind: what place -1 finds."""
    return torch.cat([vectors, vectors.new_zeros(1, vectors.shape[1])])


__all__ = ["GenSRForConditionalGeneration", "GenSROutput", "Histories"]
