# SPDX-License-Identifier: Apache-2.0
"""GenSAR: a T5 that reads a history and writes an item identifier (arXiv 2504.05730).

From the bottom up: the catalogue's vectors of items, the encoder, and the model with its losses and answers.

Unusual here:

- With `corpus: instructions`, the paper's setting, the model is a T5. Added to it are the identifier rows of the
  vocabulary, a catalogue next to the weights, and [`GenerativeModel`] with `retrieve` and `rank`.
- With `corpus: stream` the encoder is causal and one decoder sequence contains many targets, each in a segment of its
  own that sees only what came before it. An item or a query is one position, the sum of its token embeddings. For an
  item, `item_reading` can add its catalogue vector, a learned vector and its words: similar items have similar codes,
  so a sum of code embeddings alone cannot tell them apart.
- The state of the last event before a target also scores all items at once. These scores are a second loss, a teacher
  of the decoder, and the order of the items that beam search finds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BatchFeature
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.models.t5.modeling_t5 import T5Stack

from seekrec.catalog import Catalog
from seekrec.catalog.checks import VIEWS
from seekrec.corpora import IdentifierVocabulary
from seekrec.corpora.tokens import BEHAVIOR_TOKENS
from seekrec.errors import CatalogError, RequestError
from seekrec.generation import Norm
from seekrec.generation.beam_search import per_request
from seekrec.models.answers import Found, Masks, found_of
from seekrec.models.base import LazyValues, best_first, has_same_items
from seekrec.models.dense.item_tower import ItemTexts
from seekrec.models.gensar.configuration_gensar import GenSARConfig
from seekrec.models.gensar.processing_gensar import GenSARProcessor
from seekrec.models.interface import EncodedRequests, GenerativeModel, GenerativeSnapshot
from seekrec.models.losses import level_loss, mask_other_levels, next_item_losses, token_loss
from seekrec.models.processing import CatalogInputs
from seekrec.models.shared_prompts import EncodedPrefix, additive_mask, causal_mask, encode_prefix
from seekrec.models.states import StatefulModel, check_num_requests
from seekrec.models.stream_states import QUERY_PARTS, StreamState, StreamTokens
from seekrec.models.views import AddedScores
from seekrec.models.words import Vocabulary, WordEmbedding, item_word_keys
from seekrec.schema import BEHAVIORS, Behavior, Request, View, shown
from seekrec.util.finite import weights_key
from seekrec.util.ragged import Ragged

# A small model that never read other text holds nothing likelier than a piece after itself; this ends such loops.
_REPETITION_PENALTY = 1.5
# Items that are all scored where a caller boosts some: with more, beams take less time (`boosts.py`, `next item`).
_MOST_SCORED = 100_000


class ItemTable(LazyValues):
    """What is read of a catalogue's items in addition to their codes, and which row an identifier is. Never changed.

    Args:
        catalog ([`Catalog`]): The items.
        word_keys (`Mapping[str, Ragged]`): As in [`ItemTexts`].
    """

    def __init__(self, catalog: Catalog, word_keys: Mapping[str, Ragged]) -> None:
        super().__init__()
        known = [catalog.embeddings[view] for view in VIEWS if view in catalog.embeddings]
        self.vectors = torch.from_numpy(np.concatenate(known or [np.empty((len(catalog), 0), np.float32)], axis=1))
        self.widths = [vectors.shape[1] for vectors in known]
        self.texts = ItemTexts(None, len(catalog), word_keys)
        self.keys: dict[View, Tensor] = {}
        self.rows: dict[View, Tensor] = {}
        for view in catalog.views:
            keys = _key(torch.from_numpy(catalog.codes[view].astype(np.int64)), catalog.codebook_size)
            self.keys[view], self.rows[view] = keys.sort()

    def on(self, device: torch.device) -> ItemTable:
        """Return the table on a device."""
        return self if self.vectors.device == device else self.value(("on", device), lambda: self._copy(device))

    def _copy(self, device: torch.device) -> ItemTable:
        copied = copy.deepcopy(self)
        copied.vectors = self.vectors.to(device)
        copied.keys = {view: keys.to(device) for view, keys in self.keys.items()}
        copied.rows = {view: rows.to(device) for view, rows in self.rows.items()}
        return copied


class ItemVectors(nn.Module):
    """What the encoder reads of an item in addition to its codes, at the width of the model.

    The catalogue's vectors of it are projected; added to them are a learned vector of its own and its words. In
    training an item's own vector is left out at the rate of dropout, so the rest learns what the item is like, too: by
    that items that came later are known.

    Args:
        config ([`GenSARConfig`]): `item_reading` says what is read; `item_vector_size` numbers per item are projected.
    """

    # What training and `generate` read; an answer brings its own.
    table: ItemTable | None = None
    vocabulary: IdentifierVocabulary

    def __init__(self, config: GenSARConfig) -> None:
        super().__init__()
        self.size, self.dropout_rate = config.item_vector_size, config.dropout_rate
        self.projection = nn.Linear(config.item_vector_size, config.d_model, bias=False) if self.size else None
        has = set(config.item_reading)
        self.own = nn.Embedding(config.num_items, config.d_model) if "vector" in has else None
        self.words = WordEmbedding(config.num_words, config.d_model) if "words" in has else None

    @staticmethod
    def from_config(config: GenSARConfig) -> ItemVectors | None:
        """Make what these settings ask for, if anything is read in addition to codes."""
        reads = config.item_vector_size or {"vector", "words"}.intersection(config.item_reading)
        return ItemVectors(config) if reads else None

    def make_table(self, catalog: Catalog) -> ItemTable:
        """Read the vectors of a catalogue.

        Raises:
            CatalogError: If they have another size than the model's.
        """
        size = vector_size(catalog)
        if self.size and size != self.size:
            raise CatalogError(
                f"`item_vector_size` is {self.size} in the model, but the catalogue's vectors have {size} numbers "
                "together; use the catalogue saved with the model."
            )
        return ItemTable(catalog, {} if self.words is None else {"words": item_word_keys(catalog.items)})

    @torch.no_grad()
    def start_weights(self, spread: float) -> None:
        """Begin with a random projection in which each view moves an item about as far as one code does.

        Words do so too; vectors of single items begin with nothing.

        Args:
            spread (`float`): Standard deviation of the token embeddings.
        """
        if self.words is not None:
            init.normal_(self.words.weight, std=spread)
        if self.own is not None:
            init.zeros_(self.own.weight)
        if self.projection is None:
            return
        table = self._table(None)
        # The root of the mean square over items, number by number, so that no view drowns the other.
        scale = table.vectors.square().mean(0).sqrt().clamp_min(1e-6)
        share = torch.cat([torch.full((width,), width**-0.5, device=scale.device) for width in table.widths])
        weight = self.projection.weight
        weight.normal_(std=spread).mul_((share / scale).to(weight))

    def forward(self, rows: Tensor | None = None, table: ItemTable | None = None) -> Tensor:
        """Add up what is read of items.

        Args:
            rows (`torch.LongTensor` of shape `(num_items,)`, *optional*): Rows of the catalogue; all if not given.
            table ([`ItemTable`], *optional*): What the catalogue says of its items; that set last if not given.

        Returns:
            `torch.Tensor`: `(num_items, d_model)`.
        """
        table = self._table(table)
        parts: list[Tensor] = []
        if self.projection is not None:
            chosen = table.vectors if rows is None else table.vectors[rows]
            parts.append(self.projection(chosen.to(self.projection.weight.dtype)))
        if self.words is not None:
            words = table.texts.words("words", self.words)
            parts.append(self.words.pool(words if rows is None else words.take(rows)))
        if self.own is not None:
            wanted = torch.arange(table.texts.num_rows, device=self.own.weight.device) if rows is None else rows
            has_own = (wanted < self.own.num_embeddings)[:, None].to(self.own.weight.dtype)
            kept = F.dropout(has_own, self.dropout_rate, self.training)
            parts.append(self.own(wanted.clamp_max(self.own.num_embeddings - 1)) * kept)
        return sum(parts[1:], parts[0])

    def find_rows(self, input_ids: Tensor, table: ItemTable | None = None) -> Tensor:
        """Find the item that begins at each token: rows of the catalogue, -1 where none does.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): A history.
            table ([`ItemTable`], *optional*): As in [`forward`].

        Returns:
            `torch.LongTensor` of shape `(batch, length)`: Not -1 at an item's behavior token only.
        """
        table = self._table(table)
        found = torch.full_like(input_ids, -1)
        for behavior in BEHAVIORS:
            row, position = (input_ids == self.vocabulary.item_token_ids[behavior]).nonzero(as_tuple=True)
            is_whole = position + self.vocabulary.num_levels < input_ids.shape[1]
            row, position = row[is_whole], position[is_whole]
            if not len(row):
                continue
            view = self.vocabulary.view_of_behavior[behavior]
            places = position[:, None] + torch.arange(1, self.vocabulary.num_levels + 1, device=input_ids.device)
            offsets = torch.from_numpy(self.vocabulary.level_offsets[view]).to(input_ids.device)
            codes = input_ids[row[:, None], places] - offsets
            is_code = ((codes >= 0) & (codes < self.vocabulary.codebook_size)).all(1)
            keys, rows = table.keys[view], table.rows[view]
            wanted = _key(codes, self.vocabulary.codebook_size)
            place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            is_item = is_code & (keys[place] == wanted)
            found[row, position] = torch.where(is_item, rows[place], -1)
        return found

    def _table(self, table: ItemTable | None) -> ItemTable:
        """Return the table to read, on the device of the weights."""
        table = self.table if table is None else table
        if table is None:
            raise CatalogError("The model has no catalogue; call `set_catalog` first.")
        return table.on(next(self.parameters()).device)


def _key(codes: Tensor, codebook_size: int) -> Tensor:
    key = torch.zeros_like(codes[:, 0])
    for level in range(codes.shape[1]):
        key = key * codebook_size + codes[:, level]
    return key


def vector_size(catalog: Catalog) -> int:
    """Count the numbers the catalogue keeps of an item, the views joined."""
    return sum(vectors.shape[1] for vectors in catalog.embeddings.values())


@dataclass(frozen=True)
class EncodedEvents:
    """A history encoded event by event.

    Args:
        output (`BaseModelOutput`): `last_hidden_state` of shape `(batch, num_events, d_model)`.
        event_of_token (`torch.LongTensor` of shape `(batch, length)`): The event each token belongs to.
        prefix ([`EncodedPrefix`], *optional*): What further events need, where some may follow.
    """

    output: BaseModelOutput
    event_of_token: Tensor
    prefix: EncodedPrefix | None = None


# Identical to T5Stack except: with `corpus: stream` a position sees itself and what came before it, and the stack runs
# over events. Every token gets the state of the last event, so that `generate` and the decoding engine need not know.
class GenSAREncoder(T5Stack):
    """The encoder of a GenSAR model."""

    config: GenSARConfig
    config_class = GenSARConfig
    item_vectors: ItemVectors | None
    query_projection: nn.Linear | None

    def __init__(self, config: GenSARConfig) -> None:
        super().__init__(config)
        self.item_vectors = ItemVectors.from_config(config)
        size = config.query_size
        self.query_projection = nn.Linear(size, config.d_model, bias=False) if size else None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        item_table: ItemTable | None = None,
        query_words: Tensor | None = None,
        query_vectors: Tensor | None = None,
        **kwargs: object,
    ) -> BaseModelOutput:
        """Encode token ids int64 of shape `(batch, length)`; `attention_mask` is 1 for a token, 0 for padding.

        `item_table` contains the vectors of items; left out, they are those of the catalogue set last. `query_words`
        and `query_vectors` are what the processor read of queries.
        """
        if self.config.corpus == "instructions":
            if input_ids is not None and not self.config.reads_behavior:
                input_ids = self.read_tokens(input_ids)
            return super().forward(
                input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
            )
        if input_ids is None:
            raise ValueError("`input_ids` is None; with `corpus: stream` the encoder needs the tokens themselves.")
        if not self.config.merge_events:
            mask = causal_mask(len(input_ids), input_ids.shape[1], attention_mask, self.final_layer_norm.weight)
            return super().forward(input_ids=self.read_tokens(input_ids), attention_mask=mask, **kwargs)
        events = self.encode_events(input_ids, attention_mask, item_table, query_words, query_vectors, None, **kwargs)
        states, event_of_token = events.output[0], events.event_of_token
        last = event_of_token.amax(1, keepdim=True)
        if self.config.summarize_history:
            read = last.expand_as(event_of_token)
        else:
            # Attending to every token of an event, each with its state, weighs events by their length. The tokens of
            # an answered query get the state of what followed it: only the last event can be asked now.
            starts_query = (input_ids == self.config.first_identifier_token_id + 1).long()
            if attention_mask is not None:
                starts_query = starts_query * attention_mask
            num_queries = starts_query.new_zeros(states.shape[:2]).scatter_add(1, event_of_token, starts_query)
            answered = (num_queries.gather(1, event_of_token) > 0) & (event_of_token < last)
            read = event_of_token + answered.long()
        events.output["last_hidden_state"] = states.gather(1, read[:, :, None].expand(-1, -1, states.shape[-1]))
        return events.output

    def read_tokens(self, input_ids: Tensor) -> Tensor:
        """Return token ids as they are read: with `reads_behavior` off, all three behavior tokens as `<R_I>`."""
        if self.config.reads_behavior:
            return input_ids
        first = self.config.first_identifier_token_id
        is_behavior = (input_ids >= first) & (input_ids < first + len(BEHAVIOR_TOKENS))
        return input_ids.masked_fill(is_behavior, first + list(BEHAVIOR_TOKENS).index("recommendation_item"))

    def encode_events(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        item_table: ItemTable | None = None,
        query_words: Tensor | None = None,
        query_vectors: Tensor | None = None,
        behind: EncodedPrefix | None = None,
        **kwargs: object,
    ) -> EncodedEvents:
        """Encode a history with one position for each event.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): Tokens; padding on the right.
            attention_mask (`torch.LongTensor` of shape `(batch, length)`, *optional*): 1 for a token.
            item_table ([`ItemTable`], *optional*): As in [`forward`].
            query_words (`torch.LongTensor` of shape `(batch, most_queries, most_words)`, *optional*): Hashes of words.
            query_vectors (`torch.Tensor` of shape `(batch, most_queries, size)`, *optional*): Frozen vectors.
            behind ([`EncodedPrefix`], *optional*): What was read before, and the state of its last event.
            kwargs: Further arguments of `T5Stack`.

        Returns:
            [`EncodedEvents`]: The states, and how events and tokens belong together.
        """
        first = self.config.first_identifier_token_id
        is_token = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(input_ids.dtype)
        is_behavior = ((input_ids >= first) & (input_ids < first + 3)).long()
        in_event = is_behavior.cumsum(1) > 0
        # A token before the first behavior token stands for itself; padding joins the last event, as nothing.
        begins = torch.where(in_event, is_behavior, 1) * is_token
        event_of_token = (begins.cumsum(1) - 1).clamp(min=0)
        num_events = int(event_of_token.max()) + 1
        embeds = self.embed_tokens(self.read_tokens(input_ids))
        if self.item_vectors is not None:
            rows = self.item_vectors.find_rows(input_ids, item_table)
            begins_item = (rows >= 0).nonzero(as_tuple=True)
            projected = self.item_vectors(rows[begins_item], item_table)
            embeds = embeds.index_put(begins_item, projected.to(embeds.dtype), accumulate=True)
        is_query = (input_ids == first + 1) & (is_token > 0)
        reading = self.config.query_reading
        is_read = is_token > 0
        if "codes" not in self.config.item_reading:
            is_read = is_read & (input_ids < first + 3)
        if "tokens" not in reading:
            is_read = is_read & ((input_ids >= first) | ~in_event)
        embeds = embeds * is_read[:, :, None].to(embeds.dtype)
        if {"words", "text"}.intersection(reading):
            embeds = self._add_queries(embeds, is_query, query_words, query_vectors)
        merged = embeds.new_zeros(len(input_ids), num_events, embeds.shape[-1])
        merged = merged.scatter_add(1, event_of_token[:, :, None].expand_as(embeds), embeds)
        lengths = is_token.new_zeros(len(input_ids), num_events).scatter_add(1, event_of_token, is_token)
        prefix = None
        if behind is None:
            mask = causal_mask(len(input_ids), num_events, lengths > 0, merged)
            output = super().forward(inputs_embeds=merged, attention_mask=mask, **kwargs)
        else:
            prefix = encode_prefix(self, merged, lengths > 0, behind, is_causal=True)
            output = BaseModelOutput(last_hidden_state=prefix.states)
        if "recommendation" in reading:
            states = output[0]
            asks = states.new_zeros(states.shape[:2]).scatter_add(1, event_of_token, is_query.to(states.dtype))
            # A lead-in stands before every query.
            start = states.new_zeros(len(states), 1, states.shape[2]) if behind is None else behind.states
            output["last_hidden_state"] = states + asks[:, :, None] * torch.cat([start, states[:, :-1]], dim=1)
        return EncodedEvents(output, event_of_token, prefix)

    def _add_queries(
        self, embeds: Tensor, is_query: Tensor, query_words: Tensor | None, query_vectors: Tensor | None
    ) -> Tensor:
        """Add to each query's behavior token what is read of its text; the arguments as in `encode_events`."""
        row, position = is_query.nonzero(as_tuple=True)
        number = is_query.cumsum(1)[row, position] - 1
        parts: list[Tensor] = []
        if self.query_projection is not None:
            read = _need("query_vectors", query_vectors).to(self.query_projection.weight)
            # Without a query there is no size to know; the layer has its part in the graph even so.
            none = read.new_zeros(0, self.query_projection.in_features)
            parts.append(self.query_projection(read[row, number] if len(row) else none))
        if (
            "words" in self.config.query_reading
            and self.item_vectors is not None
            and self.item_vectors.words is not None
        ):
            parts.append(self.item_vectors.words(_need("query_words", query_words)[row, number]))
        return embeds.index_put((row, position), sum(parts[1:], parts[0]).to(embeds.dtype), accumulate=True)


def _need(name: str, values: Tensor | None) -> Tensor:
    if values is None:
        raise RequestError(f"The inputs contain no `{name}`, which the model reads; make them with its own processor.")
    return values


class GenSARSnapshot(GenerativeSnapshot):
    """A catalogue, its tries, and the vectors of its items that the encoder reads.

    Args:
        catalog ([`Catalog`]): The items that can be answered.
        items ([`ItemTable`], *optional*): What the encoder reads of them in addition to codes, if anything.
    """

    def __init__(self, catalog: Catalog, items: ItemTable | None) -> None:
        super().__init__(catalog)
        self.items = items


class GenSARForConditionalGeneration(GenerativeModel[GenSARSnapshot], StatefulModel[StreamState]):
    """GenSAR: T5 with identifier tokens, and a catalogue to search and recommend from.

    ```python
    model = GenSARForConditionalGeneration.from_pretrained("me/gensar-scientific")
    processor = AutoProcessor.from_pretrained("me/gensar-scientific")
    model.retrieve(processor([Request(history=events, query="hard start kit")]), top_k=10)
    ```

    With `corpus: stream` `retrieve` returns the best of the `num_beams` items that the beams found, and it and `rank`
    score an item by its dot product with the last event's state, to be compared within a request. The order of
    what is found is exact; the beams, which follow the probability of identifiers and what is added, can miss an
    item whose score is better, unless all are scored: with `exact=True`, and with a boost up to 100 thousand
    items. Items of which training knows no event are scored by those with texts like theirs ([`TextNeighbors`]).

    Args:
        config ([`GenSARConfig`]): Sizes of T5 and of the identifiers, and the corpus.
    """

    config: GenSARConfig
    # Annotations are text here, so transformers cannot read the class from the one above.
    config_class = GenSARConfig
    encoder: GenSAREncoder

    def __init__(self, config: GenSARConfig) -> None:
        super().__init__(config)
        encoder_config = copy.deepcopy(config)
        encoder_config.is_decoder = False
        encoder_config.use_cache = False
        self.encoder = GenSAREncoder(encoder_config)
        self.post_init()

    def set_catalog(self, catalog: Catalog) -> None:
        """Answer from this catalogue from now on, and read of its items what `config.item_reading` says.

        See [`GenerativeModel`].

        Raises:
            CatalogError: If the identifiers, the items, the sizes of the vectors, or the number of items that a model
                begins with are not those of the model.
        """
        is_first = self.config.identifier_hash is None
        own = None if self.encoder.item_vectors is None else self.encoder.item_vectors.own
        if is_first and own is not None and own.num_embeddings != len(catalog):
            raise CatalogError(
                f"`num_items` is {own.num_embeddings} in the model, which has a vector for each, but the catalogue "
                f"has {len(catalog)} items; make the model with that number of items."
            )
        super().set_catalog(catalog)
        vectors = self.encoder.item_vectors
        if vectors is not None:
            vectors.vocabulary = self.vocabulary
            snapshot = self.current_snapshot()
            vectors.table = snapshot.items
            if is_first:
                vectors.start_weights(self.shared.weight.detach().std().item())
        projection = self.encoder.query_projection
        if is_first and projection is not None:
            # A vector of length one moves a query about as far as a token does.
            init.normal_(projection.weight, std=self.shared.weight.detach().std().item())

    def set_words(self, vocabulary: Vocabulary) -> None:
        """Let the model read these words of items; before it gets its first catalogue.

        Args:
            vocabulary ([`Vocabulary`]): As many words as `config.num_words`.
        """
        if self.encoder.item_vectors is not None and self.encoder.item_vectors.words is not None:
            self.encoder.item_vectors.words.set_vocabulary(vocabulary)

    def _keep(self, snapshot: GenSARSnapshot) -> None:
        if self.config.identifier_hash is None:
            self.config.num_items = len(snapshot.catalog)
        super()._keep(snapshot)

    def _make_snapshot(self, catalog: Catalog) -> GenSARSnapshot:
        vectors, old = self.encoder.item_vectors, self._snapshot
        if old is not None and has_same_items(old.catalog, catalog):
            return GenSARSnapshot(catalog, old.items)
        return GenSARSnapshot(catalog, None if vectors is None else vectors.make_table(catalog))

    @property
    def modules_outside_t5(self) -> list[str]:
        """Names of the modules that no T5 checkpoint has: trained whole alongside the adapters of the generator."""
        vectors = self.encoder.item_vectors
        names = [] if vectors is None else [f"item_vectors.{name}" for name, _ in vectors.named_children()]
        names += [] if self.encoder.query_projection is None else ["query_projection"]
        return [f"encoder.{name}" for name in names]

    def _codes(self, catalog: Catalog, view: View, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Codes of items, all or some, `(num_items, num_levels)`, and each level's first token, `(num_levels,)`."""
        chosen = catalog.codes[view] if rows is None else catalog.codes[view][rows.cpu().numpy()]
        codes = torch.as_tensor(chosen.astype(np.int64), device=self.device)
        return codes, torch.from_numpy(self.vocabulary.level_offsets[view]).to(self.device)

    def _sum_codes(self, catalog: Catalog, view: View, rows: Tensor | None = None) -> Tensor:
        codes, offsets = self._codes(catalog, view, rows)
        embedded: Tensor = self.shared(codes + offsets)
        return embedded.sum(1)

    def embed_items(self, view: View, rows: Tensor | None = None, snapshot: GenSARSnapshot | None = None) -> Tensor:
        """Return what the encoder reads of an item, without its behavior token.

        Args:
            view (`str`): Whose identifiers.
            rows (`torch.LongTensor` of shape `(num_items,)`, *optional*): Rows of the catalogue; all if not given.
            snapshot ([`GenSARSnapshot`], *optional*): The catalogue to answer from; the current one if not given.

        Returns:
            `torch.Tensor`: `(num_items, d_model)`.
        """
        snapshot = self.current_snapshot() if snapshot is None else snapshot
        vectors = self.encoder.item_vectors
        read = None if vectors is None else vectors(rows, snapshot.items)
        return self._with_codes(snapshot.catalog, view, read, rows)

    def _with_codes(self, catalog: Catalog, view: View, read: Tensor | None, rows: Tensor | None = None) -> Tensor:
        if read is not None and "codes" not in self.config.item_reading:
            return read
        summed = self._sum_codes(catalog, view, rows)
        return summed if read is None else summed + read

    def next_item_loss(
        self, states: Tensor, last: Tensor, hidden: Tensor, decoder_input_ids: Tensor, labels: Tensor
    ) -> Tensor:
        """Let the state of the last event before a target pick it among all items, and teach the decoder; summed nats.

        A target is found by the behavior token before its identifier. SASRec learns the same way, from every position
        at once: the generator alone learns a level's codes one after the other, and slower. What the encoder holds
        likely, summed over the items under a prefix, is what the decoder should hold likely as the next code.

        Args:
            states (`torch.Tensor` of shape `(batch, num_events, d_model)`): States of the encoder.
            last (`torch.LongTensor` of shape `(batch, target_length)`): The last event each target sees.
            hidden (`torch.Tensor` of shape `(batch, target_length, d_model)`): States of the decoder.
            decoder_input_ids (`torch.LongTensor` of shape `(batch, target_length)`): Packed targets.
            labels (`torch.LongTensor` of shape `(batch, target_length)`): What follows each decoder input.
        """
        total = states.new_zeros((), dtype=torch.float32)
        steps = torch.arange(self.config.num_levels, device=states.device)
        catalog = self.catalog
        known = None if self.encoder.item_vectors is None else self.encoder.item_vectors()  # the same in both views
        for behavior in BEHAVIORS:
            row, position = (decoder_input_ids == self.vocabulary.item_token_ids[behavior]).nonzero(as_tuple=True)
            if not len(row):
                continue
            view = catalog.view_of(behavior)
            codes, offsets = self._codes(catalog, view)
            vectors = self._with_codes(catalog, view, known)
            scores = nn.functional.linear(states[row, last[row, position]], vectors.to(states.dtype)).float()
            wanted = labels[row[:, None], position[:, None] + steps] - offsets
            heads = [self.lm_head.weight[offset : offset + self.config.codebook_size] for offset in offsets.tolist()]
            answers = hidden[row[:, None], position[:, None] + steps]
            first, second = next_item_losses(scores, codes, wanted, answers, heads)
            total = total + self.config.next_item_weight * first + second
        return total

    def _forward_segments(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        decoder_input_ids: Tensor | None,
        labels: Tensor | None,
        segment_ids: Tensor,
        history_lengths: Tensor | None,
        num_items_in_batch: Tensor | int | None,
        query_words: Tensor | None,
        query_vectors: Tensor | None,
    ) -> Seq2SeqLMOutput:
        if not self.config.summarize_history:
            raise ValueError(
                "`decoder_segment_ids` needs a model made with `corpus: stream`; without a causal encoder, the "
                "history of an earlier target would contain later events, and streams of older versions cannot be "
                "trained further."
            )
        if input_ids is None or decoder_input_ids is None or history_lengths is None:
            raise ValueError(
                "`decoder_segment_ids` needs `input_ids`, `decoder_input_ids` and `decoder_history_lengths`."
            )
        events = self.encoder.encode_events(input_ids, attention_mask, None, query_words, query_vectors)
        states = events.output[0]
        last = events.event_of_token.gather(1, history_lengths - 1)  # the last event each target sees
        is_last = torch.arange(states.shape[1], device=states.device) == last[:, :, None]
        steps = torch.arange(segment_ids.shape[1], device=states.device)
        same_target = (segment_ids[:, :, None] == segment_ids[:, None, :]) & (steps[:, None] >= steps)
        decoder_outputs = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=additive_mask(same_target, states),
            encoder_hidden_states=states,
            encoder_attention_mask=additive_mask(is_last, states),
            use_cache=False,
        )
        loss = None
        if labels is not None:
            # The output projection is the most expensive matmul; compute it at scored positions only.
            is_scored = labels != -100
            hidden, scored = decoder_outputs[0][is_scored], labels[is_scored]
            if self.config.scale_decoder_outputs:
                hidden = hidden * self.model_dim**-0.5
            loss = level_loss(hidden, scored, self.lm_head.weight, self.config, num_items_in_batch)
            if self.training:
                second = self.next_item_loss(states, last, decoder_outputs[0], decoder_input_ids, labels)
                loss = loss + second / (len(scored) if num_items_in_batch is None else num_items_in_batch)
        return Seq2SeqLMOutput(loss=loss, encoder_last_hidden_state=states)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        decoder_segment_ids: Tensor | None = None,
        decoder_history_lengths: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        query_words: Tensor | None = None,
        query_vectors: Tensor | None = None,
        **kwargs: object,
    ) -> Seq2SeqLMOutput:
        """Predict tokens; with `labels`, the negative log-likelihood of equation 12 in nats a token.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): What the processor wrote.
            attention_mask (`torch.LongTensor` of shape `(batch, length)`): 1 for a token, 0 for padding.
            decoder_input_ids (`torch.LongTensor` of shape `(batch, target_length)`, *optional*):
                Left out, they are `labels` shifted right.
            labels (`torch.LongTensor` of shape `(batch, target_length)`, *optional*): -100 is not scored.
            encoder_outputs (`BaseModelOutput`, *optional*): What was encoded before.
            decoder_segment_ids (`torch.LongTensor` of shape `(batch, target_length)`, *optional*):
                Several targets in one row: a position attends to earlier positions with the same number. Needs
                `decoder_input_ids`, `decoder_history_lengths` and `corpus: stream`.
            decoder_history_lengths (`torch.LongTensor` of shape `(batch, target_length)`, *optional*):
                Number of tokens, from the first, that the position may see; at least 1.
            num_items_in_batch (`int`, *optional*):
                Scored labels of all micro-batches of one step (`Trainer` counts them); the loss is the sum divided
                by it, else the mean.
            query_words (`torch.LongTensor`, *optional*): As in [`GenSAREncoder.encode_events`].
            query_vectors (`torch.Tensor`, *optional*): As in [`GenSAREncoder.encode_events`].
            kwargs: Further arguments of `T5ForConditionalGeneration`.

        Returns:
            [`~transformers.modeling_outputs.Seq2SeqLMOutput`]: With segments without `logits`.
        """
        if decoder_segment_ids is not None:
            return self._forward_segments(
                input_ids,
                attention_mask,
                decoder_input_ids,
                labels,
                decoder_segment_ids,
                decoder_history_lengths,
                num_items_in_batch,
                query_words,
                query_vectors,
            )
        if encoder_outputs is None and (query_words is not None or query_vectors is not None):
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                query_words=query_words,
                query_vectors=query_vectors,
            )
        outputs = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids
            if labels is None or decoder_input_ids is not None
            else self._shift_right(labels),
            encoder_outputs=encoder_outputs,
            **kwargs,
        )
        if labels is not None:
            logits, scored = outputs.logits.flatten(0, 1), labels.flatten()
            if self.config.loss_norm == "level":
                logits = mask_other_levels(logits, scored, self.config)
            outputs["loss"] = token_loss(logits, scored, num_items_in_batch)
        return outputs

    def decoder_prefix(self, behavior: Behavior, num_rows: int) -> Tensor:
        """Return what the decoder reads before an identifier; in a stream the behavior token is the start."""
        prefix = super().decoder_prefix(behavior, num_rows)
        return prefix[:, 1:] if self.config.corpus == "stream" else prefix

    @property
    def keeps_states(self) -> bool:
        """Whether histories are read once: only with a causal encoder of events."""
        config = self.config
        return bool(config.corpus == "stream" and config.merge_events and config.summarize_history)

    @torch.no_grad()
    def encode_history(self, inputs: BatchFeature) -> StreamState:
        """Read the histories of requests once; see [`StatefulModel`]. Only with `corpus: stream`."""
        return self._read_all(self._split(inputs)[0])

    @torch.no_grad()
    def extend(self, state: StreamState, inputs: BatchFeature) -> StreamState:
        """Read further events behind histories; see [`StatefulModel`].

        Only the new events are read, unless older ones fall out of `max_history_recommendations` or
        `max_history_searches`: those after them saw them, so all are read again.
        """
        new = self._split(inputs)[0].events(self.vocabulary)
        tokens = state.tokens.append(new)
        limits = (self.config.max_history_recommendations, self.config.max_history_searches)
        latest = tokens.latest(self.vocabulary, *limits)
        if latest is not None:
            return self._read_all(latest)
        events = self._read_behind(state.prefix, new)
        if events is None or events.prefix is None:
            return replace(state, tokens=tokens)
        return state.append(events.prefix, events.output[0], tokens)

    def save_state(self, state: StreamState, path: str | Path) -> None:
        """Write tokens, those of queries among them; see [`StatefulModel`]. Who has the tokenizer can read these."""
        state.tokens.save(path)

    @torch.no_grad()
    def load_state(self, path: str | Path) -> StreamState:
        """Read what [`save_state`] wrote; see [`StatefulModel`]."""
        self._check_keeps_states()
        tokens = StreamTokens.load(path, self.vocabulary, self.config.vocab_size)
        parts = dict(zip(QUERY_PARTS, ("words", "text"), strict=True))
        wanted = [name for name, part in parts.items() if part in self.config.query_reading]
        if list(tokens.queries) != wanted:
            read = ", ".join(tokens.queries) or "tokens alone"
            raise RequestError(
                f"{path} contains {read} of queries, the model reads {', '.join(wanted) or 'tokens alone'}: it was "
                "saved by a model with a different `query_reading`. Encode the histories again."
            )
        self.current_snapshot().check_rows("seen_rows", tokens.seen_rows)
        return self._read_all(tokens.to(self.device))

    def _check_keeps_states(self) -> None:
        if not self.keeps_states:
            raise RequestError(
                "The model reads the whole history again for each question: it was not made with `corpus: stream`, so "
                "its encoder is not causal (or it is of an older version). Leave states out, and pass the whole "
                "history."
            )

    def _split(self, inputs: BatchFeature) -> tuple[StreamTokens, StreamTokens]:
        """Take inputs apart into histories and what is asked now."""
        self._check_keeps_states()
        self.current_snapshot(inputs)
        return StreamTokens.split(inputs, self.vocabulary, self.device)

    def _read_all(self, tokens: StreamTokens) -> StreamState:
        """Read histories from their first token on."""
        config, like = self.config, self.shared.weight.new_zeros(len(tokens), 1, self.config.d_model)
        none = [like.new_zeros(len(tokens), config.num_heads, 0, config.d_kv)] * config.num_layers
        nothing = EncodedPrefix(like, like.new_zeros(len(tokens), 1, 1, 0), none, none)
        state, events = StreamState(nothing, like[:, 0], tokens), self._read_behind(nothing, tokens)
        if events is None or events.prefix is None:
            return state
        return state.append(events.prefix, events.output[0], tokens)

    def _read_behind(self, prefix: EncodedPrefix, new: StreamTokens) -> EncodedEvents | None:
        """Read tokens behind what was read; `None` if there are none."""
        if not bool(new.is_token.any()):
            return None
        table, mask = self.current_snapshot().items, new.is_token.long()
        return self.encoder.encode_events(new.input_ids, mask, table, behind=prefix, **new.queries)

    def _ask_behind(self, inputs: BatchFeature, state: StreamState) -> BatchFeature:
        """Put questions behind histories that were read; see [`GenerativeModel`]."""
        question = self._split(inputs)[1]
        check_num_requests(len(state), len(question))
        events, answers = self._read_behind(state.prefix, question), state.answer
        if events is not None and events.prefix is not None:
            answers = state.answers(events.prefix, events.output[0])
        seen = torch.cat([state.tokens.seen_rows, inputs["seen_rows"].to(self.device)], dim=1)
        made_with = inputs.catalog if isinstance(inputs, CatalogInputs) else None
        return CatalogInputs({**inputs, "seen_rows": seen, "answer_states": answers[:, None]}, made_with)

    def _encode(self, snapshot: GenSARSnapshot, inputs: BatchFeature) -> tuple[Tensor, Tensor]:
        """Encode histories; see [`GenerativeModel`]. What was asked behind a state is encoded already."""
        if "answer_states" in inputs:
            states: Tensor = inputs["answer_states"]
            return states, torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
        mask = inputs["attention_mask"].to(self.device)
        ids = inputs["input_ids"].to(self.device)
        queries = {name: inputs[name].to(self.device) for name in QUERY_PARTS if name in inputs}
        return self.encoder(ids, attention_mask=mask, item_table=snapshot.items, **queries)[0], mask

    def _products(
        self, snapshot: GenSARSnapshot, asked: EncodedRequests, rows: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Return the products of the state of each request's last event with items.

        Args:
            snapshot ([`GenSARSnapshot`]): The catalogue.
            asked ([`EncodedRequests`]): The requests.
            rows (`Sequence[np.ndarray]`): int64 rows of the catalogue, a line per request.
        """
        # Rows asked of many requests are embedded once.
        wanted: dict[View, np.ndarray] = {}
        embedded: dict[View, Tensor] = {}
        for view in dict.fromkeys(asked.views):
            lines = [line for own, line in zip(asked.views, rows, strict=True) if own == view]
            wanted[view] = np.unique(np.concatenate(list({id(line): line for line in lines}.values())))
            if 2 * len(wanted[view]) > snapshot.num_items:  # made for all, and kept
                embedded[view] = self._embed_all(view, snapshot)
                wanted[view] = np.arange(snapshot.num_items)
            else:
                embedded[view] = self.embed_items(view, torch.from_numpy(wanted[view]).to(self.device), snapshot)
        products = []
        for view, line, state in zip(asked.views, rows, self._last_states(asked), strict=True):
            vectors = embedded[view]
            if not np.array_equal(line, wanted[view]):
                vectors = vectors[torch.from_numpy(np.searchsorted(wanted[view], line)).to(self.device)]
            products.append(_product(vectors, state))
        return products

    def _last_states(self, asked: EncodedRequests) -> Tensor:
        """Return the state of each request's last event, which the last token has, `(batch, d_model)`."""
        last = asked.decoding["attention_mask"].sum(1) - 1
        states: Tensor = asked.decoding["encoder_outputs"][0][torch.arange(len(last), device=self.device), last]
        return states

    def _reading_key(self) -> tuple[tuple[object, ...], ...]:
        """Return a key of the weights that `embed_items` reads."""
        vectors = self.encoder.item_vectors
        read = [] if vectors is None else [*vectors.parameters(), *vectors.buffers()]
        return weights_key([self.shared.weight, *read])

    def _embed_all(self, view: View, snapshot: GenSARSnapshot) -> Tensor:
        """Return what is read of all items; made again with new weights."""
        key = self._reading_key()
        made: Tensor = snapshot.value(("items", view), lambda: self.embed_items(view, None, snapshot).detach(), key)
        return made

    def _embed_speaking(self, behavior: Behavior, snapshot: GenSARSnapshot) -> Tensor:
        """Return what is read of the items that speak for new ones, or of these; made again with new weights."""
        near = snapshot.text_neighbors(self.config.num_items, behavior)
        rows = snapshot.new_rows(self.config.num_items) if near is None else near.rows
        view = snapshot.catalog.view_of(behavior)

        def make() -> Tensor:
            chosen = torch.from_numpy(rows).to(self.device)
            if 2 * len(rows) > snapshot.num_items:
                return self._embed_all(view, snapshot)[chosen]
            return self.embed_items(view, chosen, snapshot).detach()

        return snapshot.value(("speaking", behavior), make, (self.config.num_items, self._reading_key()))

    def _scores_new(self, count: int) -> bool:
        """With `config.order_by="next_item"` all: to multiply vectors takes little."""
        return self.config.order_by == "next_item" or super()._scores_new(count)

    def _score_new(self, snapshot: GenSARSnapshot, asked: EncodedRequests, norm: Norm | None) -> np.ndarray:
        """With `config.order_by="next_item"` what that order says of the items with texts like theirs."""
        if self.config.order_by == "identifier":
            return super()._score_new(snapshot, asked, norm)
        if asked.new_scores is None:
            speaking = {one: self._embed_speaking(one, snapshot) for one in dict.fromkeys(asked.behaviors)}
            lines = []
            for behavior, state in zip(asked.behaviors, self._last_states(asked), strict=True):
                line = _product(speaking[behavior], state)
                near = snapshot.text_neighbors(self.config.num_items, behavior)
                lines.append(line if near is None else near.score(line[None])[0])
            asked.new_scores = np.stack(lines)
        return asked.new_scores

    def _score(
        self, snapshot: GenSARSnapshot, asked: EncodedRequests, rows: Sequence[np.ndarray], norm: Norm | None
    ) -> list[np.ndarray]:
        """With `config.order_by="next_item"` the dot product of the last event's state with each item."""
        if self.config.order_by == "identifier":
            return super()._score(snapshot, asked, rows, norm)
        new = snapshot.new_rows(self.config.num_items)
        lines = [np.asarray(line, dtype=np.int64) for line in rows]
        scores = self._products(snapshot, asked, lines)
        for number, line in enumerate(lines):
            is_new = np.isin(line, new)
            if is_new.any():
                of_new = self._score_new(snapshot, asked, norm)[number]
                scores[number][is_new] = of_new[np.searchsorted(new, line[is_new])]
        return scores

    def _scorer_of_ranges(
        self, snapshot: GenSARSnapshot, asked: EncodedRequests, norm: Norm | None
    ) -> Callable[[int, int], Tensor]:
        """Return what scores ranges of the catalogue as `_score` does; see [`AddedScores.best_sums`]."""
        new, states = snapshot.new_rows(self.config.num_items), self._last_states(asked)
        of_new = torch.from_numpy(self._score_new(snapshot, asked, norm)).to(self.device) if len(new) else None
        tables = {view: self._embed_all(view, snapshot) for view in dict.fromkeys(asked.views)}
        lines = {view: [line for line, own in enumerate(asked.views) if own == view] for view in tables}
        order = torch.tensor([line for own in lines.values() for line in own], device=self.device).argsort()

        def score(begin: int, end: int) -> Tensor:
            parts = [vectors[begin:end] @ states[lines[view]].to(vectors.dtype).T for view, vectors in tables.items()]
            scores = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1).index_select(1, order)).float()
            if of_new is not None:
                low, high = np.searchsorted(new, [begin, end])
                scores[torch.from_numpy(new[low:high] - begin).to(self.device)] = of_new[:, low:high].T
            return scores

        return score

    def _search(
        self,
        snapshot: GenSARSnapshot,
        asked: EncodedRequests,
        top_k: np.ndarray,
        allowed: Masks,
        num_beams: int | Sequence[int],
        norm: Norm | None,
        added: AddedScores | None,
        exact: bool,
    ) -> list[Found]:
        """With `config.order_by="next_item"` the beams find items and the last event's state orders them.

        With `exact`, or a caller's numbers in a catalogue that is not large, it orders all that are allowed.
        """
        if self.config.order_by == "identifier":
            return super()._search(snapshot, asked, top_k, allowed, num_beams, norm, added, exact)
        kept = np.maximum(top_k, per_request("num_beams", num_beams, len(top_k)))  # all that the beams hold
        if exact or (added is not None and added.has_numbers and snapshot.num_items <= _MOST_SCORED):
            added = AddedScores([], len(top_k), snapshot.num_items, self.device) if added is None else added
            counts, score = top_k.tolist(), self._scorer_of_ranges(snapshot, asked, norm)
            return found_of(*added.best_sums(counts, allowed, score), counts)
        beams = super()._search(snapshot, asked, kept, allowed, num_beams, norm, added, exact)
        found = [rows for rows, _ in beams]
        scores = self._score(snapshot, asked, found, norm)
        if added is not None:
            scores = [own + more for own, more in zip(scores, added.at(found), strict=True)]
        ordered = best_first(found, scores)
        return [(rows[:count], scores[:count]) for (rows, scores), count in zip(ordered, top_k, strict=True)]

    def _check_trained(self, task: str, what: str) -> None:
        trained = self.config.trained_tasks
        if task not in trained:
            raise RequestError(
                f"The model was not trained to {what}: the task {task!r} is not among those it was trained on "
                f"({', '.join(trained) or 'none is named'}). Train it with {task}=... in `task_weights`."
            )

    @torch.no_grad()
    def _write_text(self, inputs: BatchFeature, prefix: Tensor, num_answers: int, max_new_tokens: int) -> Tensor:
        """Beam search for plain text, `(batch, num_answers, length)`: no tokens of identifiers, no unused rows."""
        for name, value in (("num_queries", num_answers), ("max_new_tokens", max_new_tokens)):
            if value < 1:
                raise RequestError(f"`{name}` is {shown(value)}; give 1 or more.")
        states, mask = self._encode(self.current_snapshot(inputs), inputs)
        written: Tensor = self.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=prefix.repeat(len(states), 1),
            # Else `generate` puts the start token before the behavior token that a stream starts with.
            decoder_start_token_id=int(prefix[0]),
            num_beams=max(4, num_answers),
            num_return_sequences=num_answers,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            repetition_penalty=_REPETITION_PENALTY,
            suppress_tokens=list(range(self.config.first_identifier_token_id, self.config.vocab_size)),
        )
        return written[:, len(prefix) :].reshape(len(states), num_answers, -1)

    @overload
    def suggest_queries(
        self,
        requests: Request,
        *,
        processor: GenSARProcessor,
        num_queries: int = 5,
        max_new_tokens: int = 16,
        state: StreamState | None = None,
    ) -> list[str]: ...

    @overload
    def suggest_queries(
        self,
        requests: Sequence[Request],
        *,
        processor: GenSARProcessor,
        num_queries: int = 5,
        max_new_tokens: int = 16,
        state: StreamState | None = None,
    ) -> list[list[str]]: ...

    def suggest_queries(
        self,
        requests: Request | Sequence[Request],
        *,
        processor: GenSARProcessor,
        num_queries: int = 5,
        max_new_tokens: int = 16,
        state: StreamState | None = None,
    ) -> list[str] | list[list[str]]:
        """Write what the user may search for next (NSQP).

        Args:
            requests ([`Request`] or a list of them): Only the histories are read.
            processor ([`GenSARProcessor`]): The model's own.
            num_queries (`int`): Beams; so many different queries at most.
            max_new_tokens (`int`): Longest query, in tokens.
            state ([`StreamState`], *optional*): A cached history of each request, in place of its own.

        Returns:
            `list[str]`: Queries, best first; for a list of requests a list for each.

        Raises:
            RequestError: If the model was not trained on `nsqp`, or a number is below 1.
        """
        self._check_trained("nsqp", "suggest queries")
        row = [self.config.decoder_start_token_id, self.vocabulary.behavior_token_ids["search_query"]]
        prefix = torch.tensor(row[1:] if self.config.corpus == "stream" else row, device=self.device)
        asked = processor.ask_for_queries(requests)
        if state is not None:
            self._check_keeps_states()
            check_num_requests(len(state), len(asked["input_ids"]))
            asked["answer_states"] = state.answer[:, None]
        written = processor.decode_texts(self._write_text(asked, prefix, num_queries, max_new_tokens))
        return written[0] if isinstance(requests, Request) else written

    @overload
    def describe(
        self, item_ids: str, *, processor: GenSARProcessor, view: View = "semantic", max_new_tokens: int = 32
    ) -> str: ...

    @overload
    def describe(
        self, item_ids: list[str], *, processor: GenSARProcessor, view: View = "semantic", max_new_tokens: int = 32
    ) -> list[str]: ...

    def describe(
        self,
        item_ids: str | list[str],
        *,
        processor: GenSARProcessor,
        view: View = "semantic",
        max_new_tokens: int = 32,
    ) -> str | list[str]:
        """Write what the model holds an item to be, from its identifier alone (ID2Desc).

        Args:
            item_ids (`str` or `list[str]`): Items of the catalogue.
            processor ([`GenSARProcessor`]): The model's own.
            view (`str`): The identifier it reads: `"semantic"` or `"collaborative"`.
            max_new_tokens (`int`): Longest description, in tokens.

        Returns:
            `str`: The description; for a list of items one for each.

        Raises:
            RequestError: If the model was not trained on `id2desc_<view>`, or a number is below 1.
            UnknownItemError: If the catalogue does not contain an item.
        """
        self._check_trained(f"id2desc_{view}", "describe items")
        asked = processor.describe_items([item_ids] if isinstance(item_ids, str) else item_ids, view)
        prefix = torch.tensor([self.config.decoder_start_token_id], device=self.device)
        written = processor.decode_texts(self._write_text(asked, prefix, 1, max_new_tokens))
        texts = [answers[0] if answers else "" for answers in written]
        return texts[0] if isinstance(item_ids, str) else texts


def _product(vectors: Tensor, state: Tensor) -> np.ndarray:
    """Return the products of a state with vectors, float32 of shape `(num_vectors,)`."""
    product: np.ndarray = (vectors @ state.to(vectors.dtype)).float().cpu().numpy()
    return product


__all__ = [
    "EncodedEvents",
    "GenSAREncoder",
    "GenSARForConditionalGeneration",
    "GenSARSnapshot",
    "ItemTable",
    "ItemVectors",
    "vector_size",
]
