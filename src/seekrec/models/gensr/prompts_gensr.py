# SPDX-License-Identifier: Apache-2.0
"""The wordings of GenSR's prompts, and prompts as *layouts*: token ids and places for vectors in one row of numbers.

A number from 0 up is a token; -1 is padding; -2 - n is vector n of a bank. The bank of a prefix holds the events of
the history: place `j` of the collaborative view, then of the semantic view, each with the start at place 0. The bank
of a suffix holds four vectors: the filtered histories and the candidate, each in both views (equation 9).

A phrase stands with the vector it introduces and leaves the prompt with it. What depends on the candidate comes last:
all before it can be shared (`shared_prompt`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from seekrec.corpora import TextEncoder
from seekrec.schema import BEHAVIORS, RECOMMENDATION, SEARCH, Behavior
from seekrec.util.ragged import Ragged, join_rows

PADDING = -1
FIRST_VECTOR = -2

# Vectors of a suffix, in the order of its bank.
SUFFIX_VECTORS = ("history_collaborative", "history_semantic", "item_collaborative", "item_semantic")
_ALL_VECTORS = ("events_collaborative", "events_semantic", *SUFFIX_VECTORS)

# Each line is a phrase and what follows it: a slot, or nothing. The released code words its prompts for books.
WORDINGS: dict[str, dict[Behavior, list[tuple[str, str | None]]]] = {
    "sentence": {
        RECOMMENDATION: [
            ("Will the user like the candidate item? Answer Yes or No.", None),
            (" The user's history, by who acts on its items:", "events_collaborative"),
            (" By the texts of its items:", "events_semantic"),
            (" What matters of the history, by who acts on its items:", "history_collaborative"),
            (" By their texts:", "history_semantic"),
            (" The candidate, by who acts on it:", "item_collaborative"),
            (" By its text:", "item_semantic"),
        ],
        SEARCH: [
            ("Does the candidate item answer the user's query? Answer Yes or No. The query:", "query"),
            (" The user's history, by who acts on its items:", "events_collaborative"),
            (" By the texts of its items:", "events_semantic"),
            (" What matters of the history, by who acts on its items:", "history_collaborative"),
            (" By their texts:", "history_semantic"),
            (" The candidate, by who acts on it:", "item_collaborative"),
            (" By its text:", "item_semantic"),
        ],
    },
    "compact": {
        RECOMMENDATION: [
            ("Will the user like the item? Answer Yes or No.", None),
            (" History by users and by texts, item by users and by text:", None),
            *(("", slot) for slot in _ALL_VECTORS),
        ],
        SEARCH: [
            ("Does the item answer the query? Answer Yes or No. The query:", "query"),
            (" History by users and by texts, item by users and by text:", None),
            *(("", slot) for slot in _ALL_VECTORS),
        ],
    },
    "short": {
        RECOMMENDATION: [("recommend", None), *(("", slot) for slot in _ALL_VECTORS)],
        SEARCH: [("search", "query"), *(("", slot) for slot in _ALL_VECTORS)],
    },
}


def tokenizer_texts(texts: Sequence[str]) -> list[str]:
    """Give what a tokenizer from scratch should know: texts, every phrase, and both answers.

    The answers come once with each text, so often that each becomes a piece of its own: a model writes the first piece
    alone, and in a small vocabulary both might begin with the mark of a word's start.

    Args:
        texts (`Sequence[str]`): The texts of the items.

    Returns:
        `list[str]`: For `train_tokenizer`.
    """
    phrases = [phrase for by_behavior in WORDINGS.values() for parts in by_behavior.values() for phrase, _ in parts]
    return [*texts, *phrases, *["Yes No"] * len(texts)]


class PromptWriter:
    """Writes prompts as layouts.

    Args:
        encoder ([`TextEncoder`]): Of the tokenizer.
        settings: Has `wording`, `prompt_views` and `history_in_prompt`, as [`GenSRConfig`].
    """

    def __init__(self, encoder: TextEncoder, settings: Any) -> None:
        self._encoder = encoder
        self._wording = WORDINGS[settings.wording]
        self._views = tuple(settings.prompt_views)
        self._history = settings.history_in_prompt

    @property
    def shares_prefix(self) -> bool:
        """Whether the prompt for writing identifiers is the prefix of a candidate's prompt."""
        return bool(self._history != "filtered")

    def write_prefixes(self, behaviors: np.ndarray, queries: Ragged, lengths: np.ndarray, *, events: bool) -> Ragged:
        """Write what comes before the candidate.

        Args:
            behaviors (`np.ndarray`): int64 of shape `(n,)`: numbers into `BEHAVIORS`.
            queries (`Ragged`): Token ids of each query; empty rows where there is none.
            lengths (`np.ndarray`): int64 of shape `(n,)`: events of each history.
            events (`bool`): Whether every event is written: always for writing identifiers, for candidates as
                `history_in_prompt` says.

        Returns:
            `Ragged`: int64 layouts.
        """
        width = int(lengths.max(initial=0))
        rows, order = [], []
        for number, behavior in enumerate(BEHAVIORS):
            chosen = np.flatnonzero(behaviors == number)
            if not len(chosen):
                continue
            cells: list[Ragged] = []
            for phrase, slot in self._parts(behavior):
                is_event = slot is not None and slot.startswith("events_")
                if (slot is not None and slot in SUFFIX_VECTORS) or (is_event and not events):
                    continue
                cells.append(_repeat(self._tokens(phrase, starts_text=not cells), len(chosen)))
                if slot == "query":
                    cells.append(queries.take(chosen))
                elif is_event:
                    first = 1 if slot == "events_collaborative" else 2 + width
                    cells.append(_event_places(lengths[chosen], first))
            rows.append(join_rows([Ragged(cell.values.astype(np.int64), cell.offsets) for cell in cells]))
            order.append(chosen)
        back = np.empty(len(behaviors), dtype=np.int64)
        back[np.concatenate(order)] = np.arange(len(behaviors))
        return Ragged.stack(rows).take(back)

    def write_suffixes(self, behaviors: np.ndarray) -> Ragged:
        """Write what comes with the candidate, for each number into `BEHAVIORS`: int64 layouts."""
        table = []
        for behavior in BEHAVIORS:
            row: list[int] = []
            for phrase, slot in self._parts(behavior):
                if slot in SUFFIX_VECTORS and not (slot.startswith("history_") and self._history == "whole"):
                    row += [*self._tokens(phrase, starts_text=False), FIRST_VECTOR - SUFFIX_VECTORS.index(slot)]
            table.append(row)
        return Ragged.from_lists(table, np.int64).take(behaviors)

    def _parts(self, behavior: Behavior) -> list[tuple[str, str | None]]:
        hidden = {"collaborative", "semantic"} - set(self._views)
        return [
            (phrase, slot)
            for phrase, slot in self._wording[behavior]
            if slot is None or slot.rpartition("_")[2] not in hidden
        ]

    def _tokens(self, phrase: str, *, starts_text: bool) -> list[int]:
        return self._encoder.encode_piece(phrase, starts_text=starts_text) if phrase else []


def _repeat(tokens: list[int], count: int) -> Ragged:
    return Ragged.from_matrix(np.tile(np.array(tokens, dtype=np.int64), (count, 1)))


def _event_places(lengths: np.ndarray, first: int) -> Ragged:
    """Layout numbers of the events of each history, whose bank starts at `first`."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    return Ragged(FIRST_VECTOR - (first + places), offsets)


__all__ = ["FIRST_VECTOR", "PADDING", "SUFFIX_VECTORS", "WORDINGS", "PromptWriter"]
