# SPDX-License-Identifier: Apache-2.0
"""`retrieve` (by beam search) and `rank` (by probability) for families that write identifiers."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.modeling_outputs import BaseModelOutput

from seekrec.catalog import Catalog
from seekrec.corpora import IdentifierVocabulary
from seekrec.errors import CatalogError, RequestError
from seekrec.generation import IdentifierTrie, Norm, beam_search, score_candidates
from seekrec.models.answers import ExcludeSeen, Found, Masks, Where, join_new
from seekrec.models.base import CatalogModel, CatalogSnapshot
from seekrec.models.configuration_t5 import IdentifierT5Config
from seekrec.models.dense.query_vectors import QueryVectors
from seekrec.models.stream_states import StreamState
from seekrec.models.t5_backbone import T5Backbone
from seekrec.models.views import AddedScores, Boost
from seekrec.schema import BEHAVIORS, Behavior, ScoredItem, View
from seekrec.util.finite import check_finite

# To decode so many identifiers takes a quarter of a second.
_MOST_NEW = 10_000


class GenerativeSnapshot(CatalogSnapshot):
    """A catalogue and the tries of its identifiers."""

    def _difference(self, catalog: Catalog) -> str | None:
        """Say what keeps inputs from being read; see the base. Histories name items by their identifiers."""
        own, other = self.catalog.identifier_hash, catalog.identifier_hash
        has = None if own == other else f"its identifiers have hash {other[:12]}, the model's {own[:12]}"
        return super()._difference(catalog) or has

    def trie(self, view: View) -> IdentifierTrie:
        """Return the prefix trie over all identifiers of a view; built at first use."""
        codes, size = self.catalog.codes[view], self.catalog.codebook_size
        return self.value(("trie", view), lambda: IdentifierTrie.from_codes(codes, size))


class DecodingInputs(TypedDict):
    """What the generation engine reads of a batch; see [`beam_search`]."""

    attention_mask: Tensor
    decoder_prefix: Tensor
    level_offsets: list[np.ndarray]
    encoder_outputs: BaseModelOutput


@dataclass
class EncodedRequests:
    """Requests that were encoded, ready to be answered.

    Args:
        decoding ([`DecodingInputs`]): What the generation engine reads.
        views (`list[str]`): For each request the view that it is answered in.
        behaviors (`list[str]`): What each asks for.
        new_scores (`np.ndarray`, *optional*): Scores of the catalogue's new items, where a family keeps them.
    """

    decoding: DecodingInputs
    views: list[View]
    behaviors: list[Behavior]
    new_scores: np.ndarray | None = None


SnapshotT = TypeVar("SnapshotT", bound=GenerativeSnapshot)


class GenerativeModel(CatalogModel[SnapshotT], T5Backbone):
    """A T5 that writes identifiers: `retrieve` and `rank`.

    A family defines `_make_snapshot` and `_encode`, and names the class of its configuration, which transformers
    cannot read from an annotation that is text.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if cls.config_class is IdentifierT5Config:
            raise TypeError(f"{cls.__name__} has no `config_class` of its own; name a subclass of IdentifierT5Config.")

    @property
    def vocabulary(self) -> IdentifierVocabulary:
        """Where behavior tokens and codes stand in the token vocabulary."""
        config = self.config
        return IdentifierVocabulary(
            first_token_id=config.first_identifier_token_id,
            num_shared_levels=config.num_shared_levels,
            num_specific_levels=config.num_specific_levels,
            codebook_size=config.codebook_size,
            views=tuple(config.views),
        )

    def _check_catalog(self, catalog: Catalog) -> None:
        config = self.config
        sizes = {
            "num_shared_levels": (config.num_shared_levels, catalog.num_shared_levels),
            "num_specific_levels": (config.num_specific_levels, catalog.num_specific_levels),
            "codebook_size": (config.codebook_size, catalog.codebook_size),
            "views": (sorted(config.views), sorted(catalog.views)),
        }
        for name, (own, other) in sizes.items():
            if own != other:
                raise CatalogError(
                    f"`{name}` is {own} in the model and {other} in the catalogue; use the catalogue saved with the "
                    "model."
                )
        known = config.num_items
        if len(catalog) < known or config.table_hash not in (None, catalog.items_hash(known)):
            raise CatalogError(
                f"The catalogue begins with other items than the {known} that the model was trained with; use the "
                "catalogue saved with the model, or one grown from it by `add_items`."
            )
        if config.identifier_hash not in (None, catalog.identifier_hash):
            raise CatalogError(
                f"The catalogue's identifiers have hash {catalog.identifier_hash[:12]}, the model was trained for "
                f"{config.identifier_hash[:12]}; use the catalogue saved with the model, or one grown from it by "
                "`add_items`."
            )

    def _keep(self, snapshot: SnapshotT) -> None:
        old, catalog = self._snapshot, snapshot.catalog
        if old is not None:
            # After `remove_items` the identifiers are the same arrays: the trie and its masks stay.
            kept = [view for view in catalog.views if old.catalog.codes.get(view) is catalog.codes[view]]
            # So does the encoder of queries, which takes longer to load than to ask.
            snapshot.take_values(old, [*(("trie", view) for view in kept), "query vectors"])
        self.config.identifier_hash = catalog.identifier_hash
        if self.config.num_items and self.config.table_hash is None:
            self.config.table_hash = catalog.items_hash(self.config.num_items)

    def trie(self, view: View) -> IdentifierTrie:
        """The prefix trie over all identifiers of a view; built at first use."""
        return self.current_snapshot().trie(view)

    def decoder_prefix(self, behavior: Behavior, num_rows: int) -> Tensor:
        """What the decoder reads before it writes an identifier: its start token and the behavior token.

        Returns:
            `torch.LongTensor` of shape `(num_rows, 2)`.
        """
        row = [self.config.decoder_start_token_id, self.vocabulary.item_token_ids[behavior]]
        return torch.tensor(row, device=self.device).repeat(num_rows, 1)

    @torch.no_grad()
    def retrieve(
        self,
        inputs: BatchFeature,
        *,
        top_k: int | Sequence[int] = 10,
        where: Where = None,
        num_beams: int | Sequence[int] | None = None,
        norm: Norm | None = None,
        exclude_seen: ExcludeSeen = None,
        boost: Boost = None,
        exact: bool = False,
        state: StreamState | None = None,
    ) -> list[list[ScoredItem]]:
        """Find the best items of the whole catalogue, by beam search over their identifiers.

        Items that training knows no event of (those added later, and those whose collaborative vector is predicted)
        are seldom reached by beam search: the decoder was not trained on them. They are scored in addition, unless an
        identifier would have to be decoded for each of more than 10 thousand.

        Searches and recommendations may be mixed in one batch; each gets the same answer as alone. Several threads may
        call this while another sets a catalogue: see [`set_catalog`]. Weights may change between calls, not during
        one.

        Args:
            inputs ([`~transformers.BatchFeature`]): What the processor made of the requests.
            top_k (`int` or `Sequence[int]`): Items wanted, for all requests or for each.
            where (`np.ndarray`, `torch.Tensor` or `list`, *optional*):
                Items allowed: a boolean mask over the catalogue's rows or a list of ids, for all requests, or a list
                with one of these (or None) for each request. Removed items are never allowed.
            num_beams (`int` or `Sequence[int]`, *optional*):
                Width of the beam, for all requests or for each, `max(20, top_k)` if not given; raised to `top_k` if
                less.
            norm (`str`, *optional*):
                `"level"` normalises log-probabilities over the codes of a level, `"vocab"` over the whole vocabulary
                (equal to `generate` with [`TrieLogitsProcessor`]); as in training if not given.
            exclude_seen (`bool` or `Sequence`, *optional*):
                Leave out what users acted on, be it further back than the model reads, for all requests or for each;
                if not given in recommendations and not in searches.
            boost (`np.ndarray` or `dict`, *optional*):
                Numbers of the caller's that are added to scores: of all items, for all requests or for each, or of
                some items by id. Items are compared by the sum, and beams hold the prefixes with the highest
                log-probability plus the most that an item below gets.
            exact (`bool`): Whether beams are looked behind until none of the items whose log-probability, or sum of
                it and what is added, is best can be missing; see [`beam_search`]. A GenSAR that orders items by its
                encoder scores all, as with a boost up to 100 thousand items; else those that beams find are ordered.
            state ([`StreamState`], *optional*): A cached history of each request, in place of the one in `inputs`.
                Only a GenSAR with `corpus: stream` keeps them.

        Returns:
            `list[list[ScoredItem]]`: For each request at most `top_k` distinct items, best first, with the
            log-probability of the identifier in nats, and what views and boost add to it. Fewer where fewer are
            allowed.

        Raises:
            RequestError: If `top_k` or `num_beams` is below 1, one of the arguments does not fit the requests, or the
                model was not trained to write identifiers.
            NotFiniteError: If the model computes something that is not a finite number.
            SearchLimitError: If an exact answer would take more work than it may; see [`beam_search`].
        """
        if state is not None:
            inputs = self._ask_behind(inputs, state)
        return self._retrieve(
            inputs,
            inputs["behavior_ids"].tolist(),
            top_k,
            where,
            exclude_seen,
            boost,
            lambda snapshot, wanted, allowed, added: self._find(
                snapshot, inputs, wanted, allowed, 20 if num_beams is None else num_beams, norm, added, exact
            ),
        )

    @torch.no_grad()
    def rank(
        self, inputs: BatchFeature, *, norm: Norm | None = None, state: StreamState | None = None
    ) -> list[list[ScoredItem]]:
        """Order the candidates given to the processor by the exact log-probability of their identifiers.

        Args:
            inputs ([`~transformers.BatchFeature`]): Made by `processor(requests, candidates=...)`.
            norm (`str`, *optional*): As in [`retrieve`].
            state ([`StreamState`], *optional*): As in [`retrieve`].

        Returns:
            `list[list[ScoredItem]]`: For each request its candidates, best first.

        Raises:
            RequestError: If the inputs contain no candidates.
            NotFiniteError: If the model computes something that is not a finite number.
        """
        if state is not None:
            inputs = self._ask_behind(inputs, state)
        behaviors = inputs["behavior_ids"].tolist()
        return self._rank(inputs, behaviors, lambda one, rows: self._score(one, self._prompt(one, inputs), rows, norm))

    @torch.no_grad()
    def score_items(self, inputs: BatchFeature, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Score items as [`retrieve`] does, with nothing added; see the base."""
        snapshot = self.current_snapshot()
        return self._score(snapshot, self._prompt(snapshot, inputs), rows, None)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save weights, settings (of `generate`, too: without sampling) and the catalogue; see the base."""
        # Trainer switches the cache off for training and leaves it so; a saved model is for answering.
        self.config.use_cache = True
        if self.generation_config is not None:
            self.generation_config.do_sample = False
            self.generation_config.use_cache = True
        super().save_pretrained(save_directory, *args, **kwargs)

    def _query_vectors(self, inputs: BatchFeature, queries: Sequence[str]) -> Tensor:
        """Embed queries as the items' texts were; see the base. An encoder is loaded at the first."""
        snapshot = self.current_snapshot()
        name, is_trusted = snapshot.catalog.semantic_encoder_name, snapshot.catalog.encoder_is_trusted

        def make() -> QueryVectors:
            vectors = QueryVectors(name)
            vectors.encoder_is_trusted = is_trusted
            return vectors

        asked = [number for number, query in enumerate(queries) if query]
        found = snapshot.value("query vectors", make, (name, is_trusted)).encode([queries[one] for one in asked])
        embedded = np.zeros((len(queries), found.shape[1]), np.float32)
        embedded[asked] = found
        return torch.from_numpy(embedded)

    @property
    def keeps_states(self) -> bool:
        """Whether histories can be read once, and states of them grow."""
        return False

    def _ask_behind(self, inputs: BatchFeature, state: StreamState) -> BatchFeature:
        """Return the inputs with questions put behind histories that were read.

        Raises:
            RequestError: If the family cannot, or the state is of another number of users than the requests.
        """
        reads = f"{type(self).__name__} reads the whole history again for each question"
        raise RequestError(f"{reads}; leave `state` out, and pass the whole history.")

    @abstractmethod
    def _encode(self, snapshot: SnapshotT, inputs: BatchFeature) -> tuple[Tensor, Tensor]:
        """Encode what the processor made of requests.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Encoder states `(batch, length, d_model)`, and a mask `(batch,
            length)`, 0 for padding.
        """

    def _prompt(self, snapshot: SnapshotT, inputs: BatchFeature) -> EncodedRequests:
        """Encode requests, once for beams, order and new items."""

        def make() -> tuple[Tensor, list[View], list[np.ndarray]]:
            views = [snapshot.catalog.view_of(behavior) for behavior in BEHAVIORS]
            offsets = [self.vocabulary.level_offsets[view] for view in views]
            return torch.cat([self.decoder_prefix(behavior, 1) for behavior in BEHAVIORS]), views, offsets

        key = (self.config.first_identifier_token_id, self.device)
        prefixes, views, offsets = snapshot.value("prefixes and offsets", make, key)
        states, mask = self._encode(snapshot, inputs)
        behavior_ids = inputs["behavior_ids"]
        numbers = behavior_ids.tolist()
        decoding: DecodingInputs = {
            "attention_mask": mask,
            "decoder_prefix": prefixes[behavior_ids.to(self.device)],
            "level_offsets": [offsets[number] for number in numbers],
            "encoder_outputs": BaseModelOutput(last_hidden_state=states),
        }
        return EncodedRequests(decoding, [views[one] for one in numbers], [BEHAVIORS[one] for one in numbers])

    def _find(
        self,
        snapshot: SnapshotT,
        inputs: BatchFeature,
        top_k: np.ndarray,
        allowed: Masks,
        num_beams: int | Sequence[int],
        norm: Norm | None,
        added: AddedScores | None,
        exact: bool,
    ) -> list[Found]:
        """Return for each request rows of the catalogue and their scores, best first: by beams, and what is new."""
        asked = self._prompt(snapshot, inputs)
        found = self._search(snapshot, asked, top_k, allowed, num_beams, norm, added, exact)
        new = snapshot.new_rows(self.config.num_items)
        if not (len(new) and self._scores_new(len(new))):
            return found
        scores = self._score_new(snapshot, asked, norm)
        if added is not None:
            scores = scores + added.of_items(new)
        check_finite("The scores of new items", scores, "request", "check the weights of the model and its data type")
        lines = zip(found, scores, allowed, top_k, strict=True)
        return [join_new(own, new, line, mask, count) for own, line, mask, count in lines]

    def _search(
        self,
        snapshot: SnapshotT,
        asked: EncodedRequests,
        top_k: np.ndarray,
        allowed: Masks,
        num_beams: int | Sequence[int],
        norm: Norm | None,
        added: AddedScores | None,
        exact: bool,
    ) -> list[Found]:
        """Search with beams: for each request rows of the catalogue and their scores, best first."""
        output = beam_search(
            self,
            None,
            **asked.decoding,
            trie=[snapshot.trie(view) for view in asked.views],
            num_beams=num_beams,
            top_k=top_k.tolist(),
            masks=allowed,
            norm=norm or self.config.loss_norm,
            added=None if added is None else added.for_beams(),
            exact=exact,
        )
        return list(zip(output.rows, output.scores, strict=True))

    def _scores_new(self, count: int) -> bool:
        """Return whether so many new items are scored beside what beams find: each is decoded."""
        return count <= _MOST_NEW

    def _score_new(self, snapshot: SnapshotT, asked: EncodedRequests, norm: Norm | None) -> np.ndarray:
        """Score the catalogue's new items for each request: of shape `(batch, num_new)`."""
        new = snapshot.new_rows(self.config.num_items)
        return np.stack(self._score(snapshot, asked, [new] * len(asked.views), norm))

    def _score(
        self, snapshot: SnapshotT, asked: EncodedRequests, rows: Sequence[np.ndarray], norm: Norm | None
    ) -> list[np.ndarray]:
        """Score rows of the catalogue, a line for each request."""
        return score_candidates(
            self,
            None,
            **asked.decoding,
            codes=[snapshot.catalog.codes[view][line] for view, line in zip(asked.views, rows, strict=True)],
            norm=norm or self.config.loss_norm,
        )


__all__ = ["DecodingInputs", "EncodedRequests", "GenerativeModel", "GenerativeSnapshot"]
