# SPDX-License-Identifier: Apache-2.0
"""Correct single typing errors in words of queries.

A word is known if training searched for it or an item has it. For an unknown word, all words one error away (a letter
missing, doubled, swapped with the next, or replaced) are generated and looked up, and the one searched for most is
used. Known words are never changed, so the words of training are read the same afterwards.

Known words are stored as hashes, so the table does not reveal what people typed.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from seekrec.errors import DataError
from seekrec.events.matching import item_words
from seekrec.events.query_log import find_keys, words_by_text
from seekrec.util.hashing import hash_texts
from seekrec.util.text import IS_UNSPACED, WORD, split_words

# What items are called; descriptions hold too many words that nobody looks for.
_FIELDS = ["title", "categories"]
# A letter alone is one slip from every other.
_SHORTEST = 2
# A shorter word is only read as one that was searched for.
_SHORT = 5
# Letters that may have been meant; of a script with more, the most frequent.
_MAX_LETTERS = 64
# Words looked up before.
_MAX_REMEMBERED = 50_000
# Rows that are compared at once.
_ROWS_AT_ONCE = 4_096


class Spelling:
    """The words of a log and its catalogue.

    Args:
        keys (`np.ndarray`): uint64 hashes of words, ascending, as [`~seekrec.util.text.split_words`] folds them.
        searches (`np.ndarray`): float32: how often training searched for each.
        num_having (`np.ndarray`): float32: how many items have each.
        letter_counts (`Mapping[str, int]`): Letters that words are made of, and how often each occurs.
        num_items (`int`): Items whose words are known; the first rows of a catalogue.
    """

    def __init__(
        self,
        keys: npt.NDArray[np.uint64],
        searches: npt.NDArray[np.float32],
        num_having: npt.NDArray[np.float32],
        letter_counts: Mapping[str, int],
        num_items: int,
    ) -> None:
        self.keys, self.searches, self.num_having = keys, searches, num_having
        self.letter_counts, self.num_items = letter_counts, num_items
        most = sorted(letter_counts, key=lambda letter: (-letter_counts[letter], letter))[:_MAX_LETTERS]
        self._letters = "".join(sorted(most))
        self._read: OrderedDict[str, str] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[object, ...]:
        # A lock belongs to one process, and so does what was looked up.
        return Spelling, (self.keys, self.searches, self.num_having, self.letter_counts, self.num_items)

    @classmethod
    def fit(cls, queries: Mapping[str, int], items: pa.Table) -> Spelling | None:
        """Learn the words of searches and of items; `None` without searches.

        Args:
            queries (`Mapping[str, int]`): Queries of training, and how often each was typed.
            items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.
        """
        if not queries:
            return None
        words = [split_words(query) for query in queries]
        keys, holds = words_by_text(words)
        searches = holds.T @ np.fromiter(queries.values(), np.float32, len(queries))
        letters = _count_letters(word for own in words for word in own)
        typed = cls(keys, np.asarray(searches, np.float32), np.zeros(len(keys), np.float32), letters, 0)
        return typed.grown(items, items.slice(0, 0))

    def grown(self, items: pa.Table, before: pa.Table) -> Spelling:
        """Return the words of the same searches and other items; only texts that differ are read.

        Args:
            items (`pyarrow.Table`): The items.
            before (`pyarrow.Table`): The items that these words were made of.
        """
        items, before = items.select(_FIELDS), before.select(_FIELDS)
        rows, both = _changed_rows(items, before), min(items.num_rows, before.num_rows)
        come = pa.concat_tables([items.take(rows), items.slice(both)])
        gone = pa.concat_tables([before.take(rows), before.slice(both)])
        return self._with_texts(come, 1)._with_texts(gone, -1)

    def _with_texts(self, texts: pa.Table, times: int) -> Spelling:
        """Count the words of texts that come (`times` 1) or go (-1)."""
        if not texts.num_rows:
            return self
        try:
            words = item_words(texts, _FIELDS)
        except DataError:
            words = [[]]
        letters = Counter(self.letter_counts)
        for letter, count in _count_letters(word for own in words for word in set(own)).items():
            letters[letter] += times * count
        found, holds = words_by_text(words)
        new = found[~find_keys(self.keys, found)[1]]
        at = np.searchsorted(self.keys, new)
        keys = np.insert(self.keys, at, new)
        searches, having = np.insert(self.searches, at, 0), np.insert(self.num_having, at, 0)
        having[np.searchsorted(keys, found)] += times * np.asarray(holds.sum(axis=0)).ravel()
        kept = (searches > 0) | (having > 0)
        num_items = self.num_items + times * texts.num_rows
        return Spelling(keys[kept], searches[kept], having[kept], +letters, num_items)

    def correct(self, query: str) -> str:
        """Return a query as it was meant: words that nobody knows become those one slip away, where there is one.

        Args:
            query (`str`): As it was typed.

        Returns:
            `str`: The same text where all words are known, or nothing is like the others. Single letters, and
                scripts that are written without spaces, stay; digits are never changed.
        """
        words = split_words(query)
        if not words or find_keys(self.keys, hash_texts(pa.array(words)))[1].all():
            return query
        return WORD.sub(lambda found: self._correct_word(found[0]), query)

    def _correct_word(self, typed: str) -> str:
        with self._lock:
            found = self._read.get(typed)
        if found is None:
            found = self._look_up(typed)
            with self._lock:
                self._read[typed] = found
                while len(self._read) > _MAX_REMEMBERED:
                    self._read.popitem(last=False)
        return found

    def _look_up(self, typed: str) -> str:
        words = split_words(typed)
        if len(words) != 1 or len(typed) < _SHORTEST or IS_UNSPACED.match(typed):
            return typed
        if find_keys(self.keys, hash_texts(pa.array(words)))[1][0]:
            return typed
        # Both as it was typed and without its ending: "thrillesr" is a plural, too.
        near = list(dict.fromkeys(word for own in (typed.casefold(), *words) for word in _slips(own, self._letters)))
        folded = [split_words(word) for word in near]
        kept = [(word, own[0]) for word, own in zip(near, folded, strict=True) if len(own) == 1]
        if not kept:
            return typed
        places, known = find_keys(self.keys, hash_texts(pa.array([own for _, own in kept])))
        searches = np.where(known, self.searches[places], 0)
        having = np.where(known & (len(typed) >= _SHORT), self.num_having[places], 0)
        # By searches, then by items; of equal ones the first.
        best = int(np.lexsort((-np.arange(len(kept)), having, searches))[-1])
        return kept[best][0] if searches[best] or having[best] else typed

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the words as arrays, for a file of tensors."""
        letters = sorted(self.letter_counts)
        return {
            "keys": self.keys.view(np.int64),
            "searches": self.searches,
            "num_having": self.num_having,
            "letters": np.array([ord(letter) for letter in letters], np.int32),
            "letter_counts": np.array([self.letter_counts[letter] for letter in letters], np.int64),
            "num_items": np.array([self.num_items], np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Spelling:
        """Read what `arrays` returned.

        Raises:
            DataError: If an array is missing or they do not belong together.
        """
        try:
            keys = np.ascontiguousarray(arrays["keys"], np.int64).view(np.uint64)
            counts = [np.asarray(arrays[name], np.float32) for name in ("searches", "num_having")]
            letters, (num_items,) = map(chr, arrays["letters"].tolist()), arrays["num_items"].tolist()
            # Older files contain the most frequent letters alone: they stay that.
            often = arrays.get("letter_counts", np.full(len(arrays["letters"]), 2**40))
            letter_counts = dict(zip(letters, often.tolist(), strict=True))
            if any(one.shape != keys.shape for one in counts) or (keys[1:] <= keys[:-1]).any():
                raise ValueError(f"{len(keys)} words, in no order or of other numbers")
        except (KeyError, ValueError, OverflowError) as error:
            raise DataError(f"The known words cannot be read ({error}): the file is damaged.") from error
        return cls(keys, counts[0], counts[1], letter_counts, int(num_items))


def _count_letters(words: Iterable[str]) -> Counter[str]:
    """Count the letters of words; scripts that are written without spaces have too many."""
    letters = Counter(letter for word in words for letter in word)
    return Counter({one: count for one, count in letters.items() if one.isalpha() and not IS_UNSPACED.match(one)})


def _changed_rows(items: pa.Table, before: pa.Table) -> npt.NDArray[np.int64]:
    """Return the rows that both tables have, with other values."""
    rows: list[int] = []
    for start in range(0, min(items.num_rows, before.num_rows), _ROWS_AT_ONCE):
        size = min(_ROWS_AT_ONCE, items.num_rows - start, before.num_rows - start)
        now, old = items.slice(start, size), before.slice(start, size)
        if not now.equals(old):
            pairs = zip(now.to_pylist(), old.to_pylist(), strict=True)
            rows += [start + place for place, (one, other) in enumerate(pairs) if one != other]
    return np.array(rows, np.int64)


def _slips(word: str, letters: str) -> Iterator[str]:
    """Make the words from which one slip leads to this one: letters swapped, too many, other ones, left out."""
    places = [place for place, sign in enumerate(word) if not sign.isdigit()]
    for place in places:
        if place + 1 in places:
            yield word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    for place in places:
        yield word[:place] + word[place + 1 :]
    for place in range(len(word) + 1):
        for letter in letters:
            yield word[:place] + letter + word[place:]
    for place in places:
        for letter in letters:
            yield word[:place] + letter + word[place + 1 :]


__all__ = ["Spelling"]
