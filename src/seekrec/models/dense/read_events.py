# SPDX-License-Identifier: Apache-2.0
"""The events that a state was computed from, with which it is checked, joined, truncated and saved.

A model's keys and values cannot be truncated or regrouped into sessions afterwards, because each token depends on what
it attended to. So a state also keeps its events, and reads them again if a token would have seen something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from seekrec.errors import DataError
from seekrec.events.columns import number_sessions
from seekrec.models.states import check_num_histories, load_tensors, refuse_earlier, save_tensors
from seekrec.models.words import NO_WORD
from seekrec.util.finite import check_finite
from seekrec.util.ragged import Ragged

_KIND = "seekrec-history-state"
# What stands where there is no event; 0 in the other columns.
_FILL = {"history_item_rows": -1, "history_query_rows": -1, "history_session_keys": -1}
_COLUMNS = (
    "history_mask",
    "history_item_rows",
    "history_behavior_ids",
    "history_action_ids",
    "history_timestamps",
    "history_session_ids",
    "history_geohash_ids",
    "history_query_rows",
    "history_session_keys",
)


@dataclass(frozen=True, eq=False)
class ReadEvents:
    """Events of users as a processor lays them out; never changed.

    Args:
        columns (`dict[str, torch.Tensor]`): The `history_*` tensors, `(batch, length)`, padded on the right.
        query_vectors (`torch.Tensor`): Vectors of their queries, `(num_queries, dimension)`.
        query_words (`torch.Tensor`): int64 hashes of the words of their queries, `(num_queries, most_words)`; without
            columns where they are not read.
        seen_rows (`torch.Tensor`): int64 items that each user acted on, be it before these events, `(batch,
            most_seen)`; -1 for padding.
    """

    columns: Mapping[str, Tensor]
    query_vectors: Tensor
    query_words: Tensor
    seen_rows: Tensor

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Tensor]) -> ReadEvents:
        """Take them from what a processor made; sessions are numbered by the events alone."""
        columns = {name: inputs[name] for name in _COLUMNS if name in inputs}
        columns.setdefault("history_session_keys", torch.full_like(inputs["history_item_rows"], -1))
        seen = inputs["seen_rows" if "seen_rows" in inputs else "history_item_rows"]
        vectors = inputs["query_vectors"]
        words = inputs["query_words"] if "query_words" in inputs else _no_words(vectors)
        return cls(columns, vectors, words, _distinct(seen)).number()

    def __len__(self) -> int:
        return len(self.columns["history_mask"])

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What a model reads."""
        return {**self.columns, "query_vectors": self.query_vectors, "query_words": self.query_words}

    @property
    def lengths(self) -> Tensor:
        """Events of each user, int64 `(batch,)`."""
        return self.columns["history_mask"].sum(1)

    def to(self, device: torch.device) -> ReadEvents:
        """Return the events on a device."""
        columns = {name: column.to(device) for name, column in self.columns.items()}
        vectors, words = self.query_vectors.to(device), self.query_words.to(device)
        return ReadEvents(columns, vectors, words, self.seen_rows.to(device))

    def last(self, name: str, nothing: int) -> Tensor:
        """Return the last entry of a column of each user, `(batch,)`."""
        column, lengths = self.columns[name], self.lengths
        padded = F.pad(column, (1, 0), value=nothing)
        return padded.gather(1, lengths[:, None])[:, 0]

    def append(self, other: ReadEvents) -> ReadEvents:
        """Put later events behind these, user by user.

        Raises:
            RequestError: If there are not as many users, or an event is older than the last before it.
        """
        check_num_histories(len(self), len(other))
        joined = _side_by_side([self, other], 1).compact()
        mask, times = joined.columns["history_mask"], joined.columns["history_timestamps"]
        falls = mask[:, 1:] & (times[:, 1:] < times[:, :-1])
        if bool(falls.any()):
            row, column = falls.nonzero()[0].tolist()
            refuse_earlier(row, int(times[row, column]), int(times[row, column + 1]))
        return joined.number()

    def latest(self, count: int) -> ReadEvents:
        """Keep the latest so many events of each user."""
        mask = self.columns["history_mask"]
        is_late = torch.arange(mask.shape[1], device=mask.device) >= (self.lengths - count)[:, None]
        return replace(self, columns={**self.columns, "history_mask": mask & is_late}).compact().number()

    def select(self, rows: Tensor) -> ReadEvents:
        """Return the events of some users, in the order asked."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return replace(self, columns=columns, seen_rows=self.seen_rows[rows])

    @staticmethod
    def join(parts: Sequence[ReadEvents]) -> ReadEvents:
        """Put the users of several into one batch."""
        longest = max(part.columns["history_mask"].shape[1] for part in parts)
        most_seen = max(part.seen_rows.shape[1] for part in parts)
        padded = []
        for part in parts:
            missing = longest - part.columns["history_mask"].shape[1]
            columns = {
                name: F.pad(column, (0, missing), value=_FILL.get(name, 0)) for name, column in part.columns.items()
            }
            seen = F.pad(part.seen_rows, (0, most_seen - part.seen_rows.shape[1]), value=-1)
            padded.append(replace(part, columns=columns, seen_rows=seen))
        return _side_by_side(padded, 0)

    def number(self) -> ReadEvents:
        """Number sessions again, from times and page views, as a processor does."""
        mask = self.columns["history_mask"].cpu().numpy()
        times, keys = (
            self.columns[name].cpu().numpy()[mask] for name in ("history_timestamps", "history_session_keys")
        )
        named = np.where(keys >= 0, np.unique(keys, return_inverse=True)[1].reshape(-1), -1)
        numbers = np.zeros(mask.shape, dtype=np.int64)
        numbers[mask] = number_sessions(times, named, Ragged.from_lengths(np.arange(len(times)), mask.sum(1)))
        found = torch.from_numpy(numbers).to(self.columns["history_mask"].device)
        return replace(self, columns={**self.columns, "history_session_ids": found})

    def ask_within(self, keys: Tensor) -> tuple[ReadEvents, Tensor]:
        """Let questions belong to page views that these events hold.

        Args:
            keys (`torch.LongTensor`): Page view of each user's question, `(batch,)`; -1 for none.

        Returns:
            `tuple`: The events, of which those from the first of the page view on are one session, and the session of
            each question, int64 `(batch,)`.
        """
        mask, numbers = self.columns["history_mask"], self.columns["history_session_ids"]
        sessions = self.last("history_session_ids", -1) + 1
        is_own = mask & (self.columns["history_session_keys"] == keys[:, None]) & (keys >= 0)[:, None]
        if not bool(is_own.any()):
            return self, sessions
        own = torch.where(is_own, numbers, torch.iinfo(torch.int64).max).amin(1)
        merged = torch.minimum(numbers, own[:, None])
        columns = {**self.columns, "history_session_ids": torch.where(mask, merged, numbers)}
        return replace(self, columns=columns), torch.minimum(sessions, own)

    def compact(self) -> ReadEvents:
        """Move padding to the end of each row and cut it off; leave out vectors of queries that nobody asks."""
        mask, columns = self.columns["history_mask"], {**self.columns}
        if not bool(mask.all()):
            order = (~mask).byte().argsort(dim=1, stable=True)[:, : int(self.lengths.max())]
            columns = {name: column.gather(1, order) for name, column in columns.items()}
            kept = columns["history_mask"]
            for name, column in columns.items():
                columns[name] = torch.where(kept, column, torch.full_like(column, _FILL.get(name, 0)))
        rows = columns["history_query_rows"]
        used, numbers = rows.unique(return_inverse=True)
        num_none = int((used < 0).sum())
        columns["history_query_rows"] = (numbers - num_none).clamp_min(-1)
        asked = used[num_none:]
        return ReadEvents(columns, self.query_vectors[asked], self.query_words[asked], _distinct(self.seen_rows))

    def save(self, path: str | Path) -> None:
        """Write them as one safetensors file: numbers and vectors, no id and no text."""
        save_tensors(path, _KIND, {**self.inputs, "seen_rows": self.seen_rows})

    @classmethod
    def load(cls, path: str | Path) -> ReadEvents:
        """Read what [`save`] wrote.

        Raises:
            DataError: If the file is something else, or contradicts itself.
            NotFiniteError: If a vector contains a number that is not finite.
        """
        try:
            arrays = load_tensors(path, _KIND)
            vectors, seen = arrays.pop("query_vectors"), arrays.pop("seen_rows")
            words = arrays.pop("query_words", _no_words(vectors))  # not in files of earlier versions
            shapes = {tuple(arrays[name].shape) for name in _COLUMNS}
            kinds = {name: arrays[name].dtype for name in _COLUMNS}
            if len(shapes) != 1 or any(len(shape) != 2 for shape in shapes) or vectors.ndim != 2:
                raise ValueError(f"its tensors have shapes {sorted(shapes)}")
            if seen.ndim != 2 or len(seen) != next(iter(shapes))[0]:
                raise ValueError(f"its seen rows have shape {tuple(seen.shape)}")
            if words.ndim != 2 or len(words) != len(vectors):
                raise ValueError(f"its words of queries have shape {tuple(words.shape)}")
            is_mask = kinds.pop("history_mask") == torch.bool
            if not is_mask or {*kinds.values(), seen.dtype, words.dtype} != {torch.int64}:
                raise ValueError("its tensors have other types")
            queries = arrays["history_query_rows"]
            if queries.numel() and int(queries.max()) >= len(vectors):
                raise ValueError(f"query row {int(queries.max())} of {len(vectors)} vectors")
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise DataError(
                f"{path} contains no state of histories ({error}); write it with `model.save_state`."
            ) from error
        check_finite(f"The query vectors of {path}", vectors, "row", "read the histories again")
        return cls({name: arrays[name] for name in _COLUMNS}, vectors, words, seen).compact().number()


def _side_by_side(parts: Sequence[ReadEvents], dim: int) -> ReadEvents:
    """Concatenate columns; rows of queries point into the vectors of all."""
    vectors = [part.query_vectors for part in parts if len(part.query_vectors)]
    most = max(part.query_words.shape[1] for part in parts)
    words = [F.pad(part.query_words, (0, most - part.query_words.shape[1]), value=NO_WORD) for part in parts]
    before, columns = 0, []
    for part in parts:
        rows = part.columns["history_query_rows"]
        columns.append({**part.columns, "history_query_rows": torch.where(rows >= 0, rows + before, rows)})
        before += len(part.query_vectors)
    return ReadEvents(
        {name: torch.cat([one[name] for one in columns], dim=dim) for name in columns[0]},
        torch.cat(vectors) if vectors else parts[0].query_vectors,
        torch.cat(words),
        _distinct(torch.cat([part.seen_rows for part in parts], dim=dim)),
    )


def _no_words(vectors: Tensor) -> Tensor:
    """Return the words of queries that are not read by words: no columns."""
    return torch.empty((len(vectors), 0), dtype=torch.int64, device=vectors.device)


def _distinct(rows: Tensor) -> Tensor:
    """Keep each number of a row once and cut off padding: int64 `(batch, n)`, below 0 for none, to fewer columns."""
    rows = F.pad(rows.clamp_min(-1), (0, 1), value=-1).sort(1, descending=True).values
    again = F.pad(rows[:, 1:] == rows[:, :-1], (1, 0))
    rows = rows.masked_fill(again, -1).sort(1, descending=True).values
    return rows[:, : max(1, int((rows >= 0).sum(1).max()))] if len(rows) else rows


__all__ = ["ReadEvents"]
