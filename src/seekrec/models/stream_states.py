# SPDX-License-Identifier: Apache-2.0
"""Encoded histories of a causal encoder, to which events can be added and questions asked.

A position attends to itself and to earlier ones, and T5's bias depends on distances only, so keys and values of a
history do not change when events follow. They are padded on the left, so that what follows has the same distance to a
history position in all rows. When an event falls out of the model's window, later events have already attended to it,
so all are read again; for that a state keeps the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from seekrec.corpora import IdentifierVocabulary
from seekrec.errors import DataError, RequestError
from seekrec.models.shared_prompts import EncodedPrefix
from seekrec.models.states import check_num_histories, fill_below, load_tensors, refuse_earlier, save_tensors
from seekrec.models.words import NO_WORD
from seekrec.schema import BEHAVIORS, SEARCH
from seekrec.util.finite import check_finite

_KIND = "seekrec-stream-state"
# What stands where there is nothing.
_FILL = {"seen_rows": -1, "query_words": NO_WORD}
# What a processor reads of queries in addition to their tokens, in the order of each row; see
# `GenSARProcessor.read_queries`.
QUERY_PARTS = ("query_words", "query_vectors")
_PLAIN = ("input_ids", "is_token", "num_queries", "seen_rows", "times")


@dataclass(frozen=True, eq=False)
class StreamTokens:
    """Histories as a processor writes them for a stream, padded on the right; never changed.

    Args:
        input_ids (`torch.Tensor`): int64 tokens, `(batch, length)`.
        is_token (`torch.Tensor`): bool, False for padding, `(batch, length)`.
        num_queries (`torch.Tensor`): int64 queries of each row, `(batch,)`.
        queries (`dict[str, torch.Tensor]`): What is read of queries in addition to tokens, `(batch, most_queries,
            any)`.
        seen_rows (`torch.Tensor`): int64 items that each user acted on, oldest first, be it before these events,
            `(batch, most_seen)`; -1 for none.
        times (`torch.Tensor`): int64 timestamps of the first and the last event, `(batch, 2)`; -1 for none.
    """

    input_ids: Tensor
    is_token: Tensor
    num_queries: Tensor
    queries: Mapping[str, Tensor]
    seen_rows: Tensor
    times: Tensor

    @classmethod
    def split(
        cls, inputs: Mapping[str, Tensor], vocabulary: IdentifierVocabulary, device: torch.device
    ) -> tuple[StreamTokens, StreamTokens]:
        """Take what a processor wrote apart into the histories and, of searches, the queries asked now.

        Args:
            inputs: What the processor made of requests.
            vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
            device (`torch.device`): Where they are read.

        Raises:
            RequestError: If the inputs do not say what a state keeps.
        """
        missing = [name for name in ("seen_rows", "history_times", "behavior_ids") if name not in inputs]
        if missing:
            raise RequestError(f"The inputs contain no `{missing[0]}`; make them with the model's own processor.")
        ids = inputs["input_ids"].to(device)
        is_token = inputs["attention_mask"].to(device).bool()
        is_query = is_token & (ids == vocabulary.behavior_token_ids["search_query"])
        number, counts = is_query.cumsum(1), is_query.sum(1)
        queries = {name: inputs[name].to(device) for name in QUERY_PARTS if name in inputs}
        whole = cls(ids, is_token, counts, queries, inputs["seen_rows"].to(device), inputs["history_times"].to(device))
        # The last query of a search, and all behind it, is asked now.
        answered = counts - (inputs["behavior_ids"].to(device) == BEHAVIORS.index(SEARCH)).long()
        is_asked = number > answered[:, None]
        places = whole._query_places()
        return (
            whole.keep(~is_asked, places < answered[:, None]),
            whole.keep(is_asked, places >= answered[:, None]),
        )

    def save(self, path: str | Path) -> None:
        """Write them as one safetensors file."""
        save_tensors(path, _KIND, {**self._plain, **self.queries})

    @classmethod
    def load(cls, path: str | Path, vocabulary: IdentifierVocabulary, vocab_size: int) -> StreamTokens:
        """Read what [`save`] wrote, for a model of so many tokens.

        Raises:
            DataError: If the file is something else, or contradicts itself.
            NotFiniteError: If a vector contains a number that is not finite.
        """
        try:
            arrays = load_tensors(path, _KIND)
            queries = {name: arrays.pop(name) for name in QUERY_PARTS if name in arrays}
            read = cls(**{name: arrays.pop(name) for name in _PLAIN}, queries=queries)
            read._check(vocabulary, vocab_size, arrays)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise DataError(
                f"{path} contains no state of streams ({error}); write it with `model.save_state` of a GenSAR."
            ) from error
        if "query_vectors" in queries:
            check_finite(f"The query vectors of {path}", queries["query_vectors"], "row", "read the histories again")
        return read.compact()

    def _check(self, vocabulary: IdentifierVocabulary, vocab_size: int, others: Mapping[str, Tensor]) -> None:
        """Raise a `ValueError` if these are no tokens of histories."""
        ids, types = self.input_ids, {"is_token": torch.bool, "query_vectors": torch.float32}
        kinds = {name: (part.dtype, part.ndim) for name, part in {**self._plain, **self.queries}.items()}
        dims = dict.fromkeys(_PLAIN, 2) | {"num_queries": 1} | dict.fromkeys(self.queries, 3)
        if others or kinds != {name: (types.get(name, torch.int64), dims[name]) for name in kinds}:
            raise ValueError(f"it contains other tensors than a state: {sorted({*kinds, *others})}")
        num_users, widths = len(ids), {part.shape[1] for part in self.queries.values()}
        of_others = any(len(part) != num_users for part in self.tensors)
        if of_others or self.is_token.shape != ids.shape or self.times.shape[1] != 2 or len(widths) > 1:
            raise ValueError("the shapes of its tensors contradict each other")
        is_query = self.is_token & (ids == vocabulary.behavior_token_ids["search_query"])
        most = int(self.num_queries.max()) if num_users else 0
        if not torch.equal(is_query.sum(1), self.num_queries) or any(width < most for width in widths):
            raise ValueError("its queries are not those of its tokens")
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
            raise ValueError(f"it contains tokens that the model, of {vocab_size}, lacks")

    @property
    def _plain(self) -> dict[str, Tensor]:
        """All but what is read of queries, by name."""
        return {name: getattr(self, name) for name in _PLAIN}

    def to(self, device: torch.device) -> StreamTokens:
        """Return the tokens on a device."""
        return self._each(lambda part: part.to(device))

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def tensors(self) -> list[Tensor]:
        """All that it holds."""
        return [self.input_ids, self.is_token, self.num_queries, *self.queries.values(), self.seen_rows, self.times]

    def keep(self, is_kept: Tensor, is_kept_query: Tensor) -> StreamTokens:
        """Keep some tokens, and what is read of some queries: bool `(batch, length)` and `(batch, most_queries)`."""
        is_kept = is_kept & self.is_token
        is_kept_query = is_kept_query & (self._query_places() < self.num_queries[:, None])
        return replace(
            self,
            input_ids=_pack(self.input_ids, is_kept, 0),
            is_token=_pack(self.is_token, is_kept, 0),
            num_queries=is_kept_query.sum(1),
            queries={name: _pack(part, is_kept_query, _FILL.get(name, 0)) for name, part in self.queries.items()},
        )

    def events(self, vocabulary: IdentifierVocabulary) -> StreamTokens:
        """Leave out what stands before the first event."""
        begins, ends = vocabulary.first_token_id, vocabulary.first_token_id + len(vocabulary.behavior_token_ids)
        is_behavior = (self.input_ids >= begins) & (self.input_ids < ends)
        return self.keep(is_behavior.cumsum(1) > 0, self._query_places() >= 0)

    def append(self, other: StreamTokens) -> StreamTokens:
        """Put later events behind these, user by user.

        Raises:
            RequestError: If there are not as many users, or an event is older than the last before it.
        """
        check_num_histories(len(self), len(other))
        last, first = self.times[:, 1], other.times[:, 0]
        falls = (first >= 0) & (first < last)
        if bool(falls.any()):
            row = int(falls.nonzero()[0])
            refuse_earlier(row, int(last[row]), int(first[row]))
        has_more = other.times >= 0
        times = torch.stack(
            [
                torch.where(self.times[:, 0] >= 0, self.times[:, 0], other.times[:, 0]),
                torch.where(has_more[:, 1], other.times[:, 1], last),
            ],
            dim=1,
        )
        is_token = torch.cat([self.is_token, other.is_token], dim=1)
        is_query = torch.cat([one._query_places() < one.num_queries[:, None] for one in (self, other)], dim=1)
        seen = torch.cat([self.seen_rows, other.seen_rows], dim=1)
        queries = {}
        for name, part in self.queries.items():
            both, fill = [part, other.queries[name]], _FILL.get(name, 0)
            widest = max(one.shape[2] for one in both)
            both = [F.pad(one, (0, widest - one.shape[2]), value=fill) for one in both]
            queries[name] = _pack(torch.cat(both, dim=1), is_query, fill)
        return StreamTokens(
            input_ids=_pack(torch.cat([self.input_ids, other.input_ids], dim=1), is_token, 0),
            is_token=_pack(is_token, is_token, 0),
            num_queries=self.num_queries + other.num_queries,
            queries=queries,
            seen_rows=_pack(seen, seen >= 0, -1),
            times=times,
        )

    def latest(
        self, vocabulary: IdentifierVocabulary, max_recommendations: int, max_searches: int
    ) -> StreamTokens | None:
        """Keep the latest so many recommendations and searches, as a processor does; `None` where these are all."""
        kinds = (
            (vocabulary.item_token_ids["recommendation"], max_recommendations),
            (vocabulary.behavior_token_ids["search_query"], max_searches),
        )
        begins, is_kept = torch.zeros_like(self.is_token), torch.zeros_like(self.is_token)
        for token, longest in kinds:
            is_kind = self.is_token & (self.input_ids == token)
            left = is_kind.sum(1, keepdim=True) - is_kind.cumsum(1)
            begins, is_kept = begins | is_kind, is_kept | (is_kind & (left < longest))
        if bool((begins == is_kept).all()):
            return None
        event = begins.cumsum(1)  # 0 is what stands before the first
        of_event = torch.zeros(len(event), event.shape[1] + 1, dtype=torch.long, device=event.device)
        of_event[:, 0] = 1
        of_event = of_event.scatter_add(1, event * is_kept, is_kept.long()) > 0
        is_late = self._query_places() >= (self.num_queries - max_searches)[:, None]
        return self.keep(of_event.gather(1, event), is_late)

    def select(self, rows: Tensor) -> StreamTokens:
        """Return some rows, in the order asked."""
        return self._each(lambda part: part[rows])

    def compact(self) -> StreamTokens:
        """Cut padding off."""
        kept = self.keep(self.is_token, self._query_places() >= 0)
        return replace(kept, seen_rows=_pack(self.seen_rows, self.seen_rows >= 0, -1))

    @staticmethod
    def join(parts: Sequence[StreamTokens]) -> StreamTokens:
        """Put the rows of several batches below each other."""
        return StreamTokens(
            input_ids=fill_below([one.input_ids for one in parts], 0),
            is_token=fill_below([one.is_token for one in parts], 0),
            num_queries=torch.cat([one.num_queries for one in parts]),
            queries={
                name: fill_below([one.queries[name] for one in parts], _FILL.get(name, 0)) for name in parts[0].queries
            },
            seen_rows=fill_below([one.seen_rows for one in parts], -1),
            times=torch.cat([one.times for one in parts]),
        )

    def _query_places(self) -> Tensor:
        """Return the place of each query in its row, `(1, most_queries)`."""
        widths = [part.shape[1] for part in self.queries.values()]
        most = widths[0] if widths else int(self.num_queries.max()) if len(self.num_queries) else 0
        return torch.arange(most, device=self.input_ids.device)[None]

    def _each(self, change: Callable[[Tensor], Tensor]) -> StreamTokens:
        return StreamTokens(
            input_ids=change(self.input_ids),
            is_token=change(self.is_token),
            num_queries=change(self.num_queries),
            queries={name: change(part) for name, part in self.queries.items()},
            seen_rows=change(self.seen_rows),
            times=change(self.times),
        )


@dataclass(frozen=True, eq=False)
class StreamState:
    """Histories that were read. Each row is one user.

    Args:
        prefix ([`EncodedPrefix`]): Keys and values of each layer, padded on the left, and of the encoder's output the
            last position alone, `(batch, 1, d_model)`.
        answer (`torch.Tensor` of shape `(batch, d_model)`): What a question without a query is answered from.
        tokens ([`StreamTokens`]): What was read.
    """

    prefix: EncodedPrefix
    answer: Tensor
    tokens: StreamTokens

    def __len__(self) -> int:
        return len(self.answer)

    @property
    def num_positions(self) -> Tensor:
        """Positions that were read of each user, int64 `(batch,)`: an item and a query are one each."""
        return self._is_real.sum(1)

    @property
    def nbytes(self) -> int:
        """Bytes of all that it holds."""
        prefix = self.prefix
        parts = [*prefix.keys, *prefix.values, prefix.bias, prefix.states, self.answer, *self.tokens.tensors]
        return sum(part.nbytes for part in parts)

    @property
    def _is_real(self) -> Tensor:
        return self.prefix.bias[:, 0, 0] == 0

    def answers(self, encoded: EncodedPrefix, states: Tensor) -> Tensor:
        """Return the state of each user's last position, `(batch, d_model)`, after some were read behind these.

        Args:
            encoded ([`EncodedPrefix`]): What was read now.
            states (`torch.Tensor` of shape `(batch, num_read, d_model)`): States of its positions.
        """
        return _last(encoded, states, self.answer)

    def append(self, encoded: EncodedPrefix, states: Tensor, tokens: StreamTokens) -> StreamState:
        """Return the state after more was read.

        Args:
            encoded ([`EncodedPrefix`]): What was read now; its keys and values are of all.
            states (`torch.Tensor` of shape `(batch, num_read, d_model)`): What its positions are answered from.
            tokens ([`StreamTokens`]): All that was read.
        """
        last = _last(encoded, encoded.states, self.prefix.states[:, 0])
        return StreamState(replace(encoded, states=last[:, None]), self.answers(encoded, states), tokens)._align()

    def select(self, rows: Tensor) -> StreamState:
        """Return the states of some rows, in the order asked."""
        prefix = self.prefix
        picked = EncodedPrefix(
            prefix.states[rows],
            prefix.bias[rows],
            [part[rows] for part in prefix.keys],
            [part[rows] for part in prefix.values],
        )
        return StreamState(picked, self.answer[rows], self.tokens.select(rows))

    def compact(self) -> StreamState:
        """Cut padding off: a row that was picked keeps no other's length."""
        return replace(self._align(), tokens=self.tokens.compact())

    def join(self, others: Sequence[StreamState]) -> StreamState:
        """Put the states of other users below these; nothing is read again."""
        states = [self, *others]
        prefixes = [one.prefix for one in states]
        masked = torch.finfo(self.prefix.bias.dtype).min
        prefix = EncodedPrefix(
            torch.cat([one.states for one in prefixes]),
            fill_below([one.bias for one in prefixes], masked, at_front=True),
            [fill_below(parts, 0, at_front=True) for parts in zip(*(one.keys for one in prefixes), strict=True)],
            [fill_below(parts, 0, at_front=True) for parts in zip(*(one.values for one in prefixes), strict=True)],
        )
        return StreamState(
            prefix, torch.cat([one.answer for one in states]), StreamTokens.join([one.tokens for one in states])
        )

    def _align(self) -> StreamState:
        """Move padding to the front of each row and cut it off where no row has any."""
        is_real = self._is_real
        if bool(is_real.all()):
            return self
        longest = int(is_real.sum(1).max()) if is_real.numel() else 0
        order = is_real.byte().argsort(dim=1, stable=True)[:, is_real.shape[1] - longest :]
        prefix = self.prefix

        def taken(part: Tensor) -> Tensor:
            return part.gather(2, order[:, None, :, None].expand(-1, part.shape[1], -1, part.shape[3]))

        aligned = EncodedPrefix(
            prefix.states,
            prefix.bias.gather(3, order[:, None, None]),
            [taken(part) for part in prefix.keys],
            [taken(part) for part in prefix.values],
        )
        return replace(self, prefix=aligned)


def _last(encoded: EncodedPrefix, states: Tensor, before: Tensor) -> Tensor:
    """Return the last state of each row of what was read now, `before` where nothing was: `(batch, d_model)`."""
    is_real = encoded.bias[:, 0, 0, encoded.bias.shape[-1] - states.shape[1] :] == 0
    count = is_real.sum(1)
    found = states[torch.arange(len(states), device=states.device), (count - 1).clamp_min(0)]
    return torch.where(count[:, None] > 0, found, before)


def _pack(values: Tensor, is_kept: Tensor, fill: int) -> Tensor:
    """Move what is kept of each row to its front and cut the rest off: `(batch, length, ...)`."""
    if bool(is_kept.all()):
        return values
    longest = int(is_kept.sum(1).max()) if is_kept.numel() else 0
    order = (~is_kept).byte().argsort(dim=1, stable=True)[:, :longest]
    kept = is_kept.gather(1, order)
    for _ in range(values.ndim - 2):
        order, kept = order[..., None], kept[..., None]
    taken = values.gather(1, order.expand(*order.shape[:2], *values.shape[2:]))
    return torch.where(kept, taken, torch.full_like(taken, fill))


__all__ = ["QUERY_PARTS", "StreamState", "StreamTokens"]
