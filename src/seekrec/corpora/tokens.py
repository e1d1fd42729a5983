# SPDX-License-Identifier: Apache-2.0
"""The identifier and behavior tokens of a vocabulary, which text can never produce.

Three behavior tokens and then one block of `codebook_size` tokens per level are appended to the tokenizer's
vocabulary, so converting a code to a token id is an addition:

```
<R_I> <S_Q> <S_I> | <M1_0> ... <M1_255> | <M2_0> ... | <S1_0> ... | <S2_0> ... | <R1_0> ... | <R2_0> ...
                    shared levels                      semantic levels           collaborative levels
```

Text from outside never becomes one of these tokens: see [`seekrec.util.text`].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from seekrec.errors import ConfigurationError, DataError
from seekrec.schema import RECOMMENDATION, SEARCH, VIEW_OF_BEHAVIOR, Behavior, View

BehaviorToken = Literal["recommendation_item", "search_query", "search_item"]

# In the order of their ids. The names are GenSAR's (equation 11).
BEHAVIOR_TOKENS: dict[BehaviorToken, str] = {
    "recommendation_item": "<R_I>",
    "search_query": "<S_Q>",
    "search_item": "<S_I>",
}
LETTER_OF_VIEW: dict[View, str] = {"semantic": "S", "collaborative": "R"}
SHARED_LETTER = "M"


class IdentifierLayout(Protocol):
    """Length and levels of identifiers, as a catalogue, a configuration or an [`IdentifierVocabulary`] has them."""

    @property
    def num_shared_levels(self) -> int:
        """Levels that all views share."""

    @property
    def num_specific_levels(self) -> int:
        """Levels that each view has for itself."""

    @property
    def codebook_size(self) -> int:
        """Codes of a level."""

    @property
    def views(self) -> Sequence[View]:
        """The views that items have an identifier in."""


@dataclass(frozen=True)
class IdentifierVocabulary:
    """Map between codes and tokens.

    Args:
        first_token_id (`int`): Id of `<R_I>`; the other tokens follow without a gap.
        num_shared_levels (`int`): Levels that both views share; 0 or more.
        num_specific_levels (`int`): Levels of each view's own; 0 or more.
        codebook_size (`int`): Codes per level.
        views (`tuple[str, ...]`): The views that items have an identifier in, one or two.

    Raises:
        ConfigurationError: If a number is negative, there is no level or no view, or a view is unknown or named twice.

    Example:
        >>> views = ("semantic", "collaborative")
        >>> vocabulary = IdentifierVocabulary(100, 1, 1, codebook_size=4, views=views)
        >>> vocabulary.level_offsets["collaborative"].tolist()  # 3 behavior tokens, M1 (4), S1 (4), R1
        [103, 111]
        >>> vocabulary.format([2, 3], "collaborative")
        '<M1_2> <R1_3>'
    """

    first_token_id: int
    num_shared_levels: int
    num_specific_levels: int
    codebook_size: int
    views: tuple[View, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", tuple(self.views))
        for name in ("first_token_id", "num_shared_levels", "num_specific_levels"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"`{name}` is {getattr(self, name)}; give 0 or more.")
        if self.codebook_size < 1:
            raise ConfigurationError(f"`codebook_size` is {self.codebook_size}; give 1 or more.")
        if self.num_levels == 0:
            raise ConfigurationError(
                "`num_shared_levels` and `num_specific_levels` are both 0; an identifier needs at least one level."
            )
        unknown = [view for view in self.views if view not in LETTER_OF_VIEW]
        if unknown or not self.views or len(set(self.views)) != len(self.views):
            raise ConfigurationError(
                f"`views` is {self.views!r}; name each of {', '.join(LETTER_OF_VIEW)} at most once, and at least one."
            )

    @cached_property
    def num_levels(self) -> int:
        """Codes in an identifier."""
        return self.num_shared_levels + self.num_specific_levels

    @cached_property
    def blocks(self) -> list[str]:
        """Names of the levels in the order of their ids: `M1`, `M2`, `S1`, ..."""
        names = [f"{SHARED_LETTER}{level + 1}" for level in range(self.num_shared_levels)]
        # The order of ids must not depend on the order in which a caller names the views.
        for view, letter in LETTER_OF_VIEW.items():
            if view in self.views:
                names += [f"{letter}{level + 1}" for level in range(self.num_specific_levels)]
        return names

    @property
    def num_tokens(self) -> int:
        """Number of tokens added to a tokenizer."""
        return len(BEHAVIOR_TOKENS) + len(self.blocks) * self.codebook_size

    @property
    def end_token_id(self) -> int:
        """One more than the last id of this vocabulary."""
        return self.first_token_id + self.num_tokens

    @property
    def tokens(self) -> list[str]:
        """All tokens as text, in the order of their ids, behavior tokens first."""
        codes = [f"<{block}_{code}>" for block in self.blocks for code in range(self.codebook_size)]
        return [*BEHAVIOR_TOKENS.values(), *codes]

    @cached_property
    def behavior_token_ids(self) -> dict[BehaviorToken, int]:
        """Ids of the behavior tokens, by their names in `BEHAVIOR_TOKENS`."""
        return {token: self.first_token_id + number for number, token in enumerate(BEHAVIOR_TOKENS)}

    @cached_property
    def item_token_ids(self) -> dict[Behavior, int]:
        """Ids of the tokens before an item: `<R_I>` of a recommendation, `<S_I>` of a search."""
        ids = self.behavior_token_ids
        return {RECOMMENDATION: ids["recommendation_item"], SEARCH: ids["search_item"]}

    @cached_property
    def view_of_behavior(self) -> dict[Behavior, View]:
        """The view an item is written in; the only one where there is only one (TIGER writes both behaviors so)."""
        return {behavior: view if view in self.views else self.views[0] for behavior, view in VIEW_OF_BEHAVIOR.items()}

    @cached_property
    def level_offsets(self) -> dict[View, np.ndarray]:
        """Token ids at which the levels of each view start.

        int64 of shape `(num_levels,)`: code `c` at level `l` of a view is token `level_offsets[view][l] + c`.
        """
        first_code = self.first_token_id + len(BEHAVIOR_TOKENS)
        shared = [f"{SHARED_LETTER}{level + 1}" for level in range(self.num_shared_levels)]
        offsets = {}
        for view in self.views:
            own = [f"{LETTER_OF_VIEW[view]}{level + 1}" for level in range(self.num_specific_levels)]
            positions = [self.blocks.index(block) for block in (*shared, *own)]
            offsets[view] = first_code + np.array(positions, dtype=np.int64) * self.codebook_size
        return offsets

    def encode(self, codes: np.ndarray, view: View) -> np.ndarray:
        """Turn codes into token ids.

        Args:
            codes (`np.ndarray`): Integers of shape `(n, num_levels)`, each in `0..codebook_size - 1`.
            view (`str`): The view they belong to.

        Returns:
            `np.ndarray`: int64 token ids of shape `(n, num_levels)`.

        Raises:
            ConfigurationError: If items have no identifier in this view.
            DataError: If the shape or a code is out of range.
        """
        array = np.asarray(codes)
        self._check(array, "codes", view)
        wrong = (array < 0) | (array >= self.codebook_size)
        if wrong.any():
            row, level = np.argwhere(wrong)[0].tolist()
            raise DataError(
                f"`codes` has {array[row, level]} in row {row} at level {level}; codes are "
                f"0..{self.codebook_size - 1}."
            )
        return array.astype(np.int64) + self.level_offsets[view]

    def decode(self, token_ids: np.ndarray, view: View) -> np.ndarray:
        """Turn token ids into codes.

        Args:
            token_ids (`np.ndarray`): Integers of shape `(n, num_levels)`.
            view (`str`): The view they belong to.

        Returns:
            `np.ndarray`: int64 codes of shape `(n, num_levels)`.

        Raises:
            ConfigurationError: If items have no identifier in this view.
            DataError: If a token is not one of its level.
        """
        array = np.asarray(token_ids)
        self._check(array, "token_ids", view)
        codes = array.astype(np.int64) - self.level_offsets[view]
        wrong = (codes < 0) | (codes >= self.codebook_size)
        if wrong.any():
            row, level = np.argwhere(wrong)[0].tolist()
            raise DataError(
                f"`token_ids` has {array[row, level]} in row {row} at level {level}, which is not a token of that "
                f"level of the {view} identifier; decode with the trie, or check the view."
            )
        return codes

    def format(self, codes: Sequence[int] | np.ndarray, view: View) -> str:
        """Write one identifier for a person: `<M1_0> <M2_3> <S1_7> <S2_1>`."""
        token_ids = self.encode(np.asarray(codes)[None, :], view)[0] - self.first_token_id
        tokens = self.tokens
        return " ".join(tokens[number] for number in token_ids.tolist())

    def _check(self, array: np.ndarray, name: str, view: View) -> None:
        if view not in self.views:
            raise ConfigurationError(
                f"Items have no {view!r} identifier in this vocabulary, only {', '.join(self.views)}."
            )
        if array.ndim != 2 or array.shape[1] != self.num_levels or array.dtype.kind not in "iu":
            raise DataError(
                f"`{name}` has shape {array.shape} and dtype {array.dtype}; give integers of shape "
                f"(n, {self.num_levels}), one column for each level."
            )


def add_identifier_tokens(tokenizer: PreTrainedTokenizerBase, layout: IdentifierLayout) -> IdentifierVocabulary:
    """Add the behavior and identifier tokens to a tokenizer, in place.

    A tokenizer that has exactly these tokens already (one loaded from a checkpoint) is left as it is. The tokens are
    not "special" in the sense of transformers: `skip_special_tokens=True` keeps them.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): A tokenizer of the fast kind, such as `T5Tokenizer`.
        layout ([`IdentifierLayout`]): Levels and views of the identifiers, those of a [`Catalog`] for example.

    Returns:
        `IdentifierVocabulary`: Where the tokens are.

    Raises:
        ConfigurationError: If the tokenizer has some of these tokens, but not all of them in a row.
    """
    known = tokenizer.get_vocab()
    first_token = next(iter(BEHAVIOR_TOKENS.values()))
    vocabulary = IdentifierVocabulary(
        first_token_id=known.get(first_token, len(tokenizer)),
        num_shared_levels=layout.num_shared_levels,
        num_specific_levels=layout.num_specific_levels,
        codebook_size=layout.codebook_size,
        views=tuple(layout.views),
    )
    tokens = vocabulary.tokens
    present = [token for token in tokens if token in known]
    if not present:
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens])
        known = tokenizer.get_vocab()
    expected = range(vocabulary.first_token_id, vocabulary.end_token_id)
    misplaced = [token for token, number in zip(tokens, expected, strict=True) if known.get(token) != number]
    # An identifier of another shape leaves tokens of ours behind the last one we know.
    if misplaced or len(tokenizer) != vocabulary.end_token_id:
        where = f"{misplaced[0]!r} has id {known.get(misplaced[0])}" if misplaced else "more tokens follow"
        raise ConfigurationError(
            f"The tokenizer has identifier tokens for other levels ({where}); {vocabulary.num_tokens} tokens were "
            f"expected from id {vocabulary.first_token_id} up to its end. Start from a tokenizer without them, or use "
            "the level sizes it was made with."
        )
    return vocabulary
