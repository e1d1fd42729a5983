# SPDX-License-Identifier: Apache-2.0
"""Text processing: folding (case, punctuation and plurals), splitting into words, and encoding for a generator.

Letters of all scripts are kept; nothing is converted to ASCII.

A tokenizer looks for its added tokens in the text before anything else, so the query `"<R_I>"` would become a control
token. [`TextEncoder`] encodes with a copy that knows no added token, and whose vocabulary contains no special token
under its own name. Everything that people wrote (queries, titles, descriptions) goes through it.

How text is folded before that is a setting of the tokenizer and saved with it, so training and inference cannot
differ. A tokenizer without this setting, as of older models, only folds character width.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
import weakref
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import chain
from typing import Literal, get_args

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from seekrec.errors import ConfigurationError, DataError
from seekrec.util.ragged import Ragged

Folding = Literal["case", "punctuation", "plurals", "accents"]

# For an encoder or a generator that was trained on text elsewhere: it knows words with their endings.
TEXT_FOLDING: tuple[Folding, ...] = ("case", "punctuation")
# For one that learns its words from the log alone, where "comedies" may never occur.
WORD_FOLDING: tuple[Folding, ...] = ("case", "punctuation", "plurals")

_LAST_SIGN = min(sys.maxunicode, 0xFFFF)
# Punctuation but what changes the meaning of what it stands with: C#, 50%, R&B.
_PUNCTUATION = re.escape(
    "".join(
        sign
        for sign in map(chr, range(_LAST_SIGN + 1))
        if unicodedata.category(sign).startswith("P") and sign not in "#%&@"
    )
)
_DASHES = re.compile("[\u2010-\u2015\u2212]")
# Between digits it is part of a number: 3.5, 1/4, 24-70.
_SEPARATORS = re.compile(rf"(?<!\d)[{_PUNCTUATION}]+|[{_PUNCTUATION}]+(?!\d)")
_POSSESSIVE = re.compile(r"(?<=\w)['\u2019]s?(?!\w)", re.IGNORECASE)
# Signs that NFKC would write as letters behind the word.
_MARKS_OF_OWNERS = re.compile("[\u2122\u2120\u00ae\u00a9]")
# Accents of Latin, Greek and Cyrillic letters; the breve of the Cyrillic short i makes a letter of its own. Dots and
# vowels of other scripts are not accents.
_ACCENTS = re.compile("[\u0300-\u0305\u0307-\u036f]|(?<![\u0438\u0418])\u0306")

# Scripts written without spaces: Chinese, Japanese, Korean; Thai, Lao, Burmese, Khmer.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
# Vowels and other signs above, below or alongside a letter, which Python does not count as part of a word.
_COMBINING = re.escape(
    "".join(sign for sign in map(chr, range(_LAST_SIGN + 1)) if unicodedata.category(sign) in ("Mn", "Mc"))
)
# Their punctuation parts words, as folding does: a katakana middle dot is no letter.
WORD = re.compile(rf"(?:(?![{_PUNCTUATION}])[{_UNSPACED}])+|(?:[^\W_{_UNSPACED}]|(?![{_UNSPACED}])[{_COMBINING}])+")
IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
_PLURALS_IN_ES = ("xes", "ches", "shes", "sses")

# The parallel encoder takes a millisecond to start; so few texts are done sooner one by one.
_FEW_TEXTS = 32
# Words that an encoder remembers before it starts again.
_MAX_KNOWN = 500_000
_TEXTS_AT_A_TIME = 10_000


def fold_text(text: str, folding: Collection[str] = TEXT_FOLDING) -> str:
    """Fold what people type in different ways.

    Width is always folded (Unicode form NFKC: full-width letters become plain ones), and a lone surrogate becomes a
    question mark.

    Args:
        text (`str`): The text.
        folding (`Collection[str]`): `"case"`; `"punctuation"`, which becomes spaces unless it stands between digits,
            so that "sci-fi?" reads "sci fi"; `"plurals"`, as in [`split_words`], and possessive endings;
            `"accents"` of Latin, Greek and Cyrillic letters.

    Returns:
        `str`: The folded text; never empty where the text held something visible.

    Example:
        >>> fold_text("Romantic COMEDY?"), fold_text("1/4 inch T-Shirts", WORD_FOLDING)
        ('romantic comedy', '1/4 inch t shirt')
    """
    if not text.isascii():
        if "punctuation" in folding:
            bare = _MARKS_OF_OWNERS.sub(" ", text)
            text = _DASHES.sub("-", bare if bare.strip() else text)
        text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode("utf-8"))
        if "accents" in folding:
            bare = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", text)))
            text = bare if bare.strip() else text
    if "case" in folding:
        # The capital of Turkish i has a dot that stays behind as a sign of its own.
        text = text.casefold().replace("i\u0307", "i")
    if "plurals" in folding:
        text = _POSSESSIVE.sub("", text)
    if "punctuation" in folding:
        words = _SEPARATORS.sub(" ", text).split()
        text = " ".join(words) if words else text
    if "plurals" in folding:
        text = " ".join(map(_singular, text.split(" ")))
    return text


def split_words(text: str) -> list[str]:
    """Split text into words for matching: case and plural endings folded, unspaced runs cut into pairs of characters.

    Plurals of four letters or more lose their ending: -ies becomes -y; after x, ch, sh and ss -es goes; else -s goes,
    but not of -ss and -us. Category names are plural, titles often are not. It is crude ("lens" becomes "len"), but
    the same for items and queries.

    Args:
        text (`str`): The text.

    Returns:
        `list[str]`: Words in order, repeated as often as they occur.

    Example:
        >>> split_words("Staples, batteries & glass USB-hubs")
        ['staple', 'battery', 'glass', 'usb', 'hub']
    """
    bare = _MARKS_OF_OWNERS.sub(" ", text)
    return list(chain.from_iterable(map(_cut, WORD.findall(fold_text(bare if bare.strip() else text, ("case",))))))


def check_folding(folding: Collection[str]) -> tuple[Folding, ...]:
    """Return the names in one order.

    Raises:
        ConfigurationError: If a name is unknown.
    """
    known = get_args(Folding)
    unknown = [name for name in folding if name not in known]
    if unknown or isinstance(folding, str):
        raise ConfigurationError(f"`text_folding` is {folding!r}; use some of {', '.join(known)}, or none.")
    return tuple(name for name in known if name in folding)


def _cut(word: str) -> tuple[str, ...]:
    if IS_UNSPACED.match(word):
        return tuple(word[place : place + 2] for place in range(max(1, len(word) - 1)))
    return (_singular(word),)


@lru_cache(maxsize=50_000)
def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word[-2] in "su":
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(_PLURALS_IN_ES) else word[:-1]


class TextEncoder:
    """Encode outside text such that no text can produce a control, identifier or special token.

    The one exception is `<unk>`, which stands for characters that the vocabulary lacks. Text is folded first, as
    [`set_text_folding`] set; no token for end of sequence is added.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): A tokenizer of the fast kind. Later changes to it are not seen.

    Raises:
        ConfigurationError: If the tokenizer is of the slow kind.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = backend_of(tokenizer)
        self.folding = get_text_folding(tokenizer)
        added = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
        added.update((number, str(tokenizer.convert_ids_to_tokens(number))) for number in tokenizer.all_special_ids)
        unknown_id = tokenizer.unk_token_id
        self._forbidden = np.zeros(max(tokenizer.get_vocab().values()) + 1, dtype=bool)
        self._forbidden[[number for number in added if number != unknown_id]] = True
        self._pieces: dict[tuple[str, bool], list[int]] = {}
        # T5 encodes word by word, so each word is encoded once. Words end at what Python takes for white space; the
        # tokenizers library takes a few control characters for letters instead.
        self._splits_words = _splits_words(backend)
        self._known: dict[str, list[int]] = {}
        self._backend = _without_added_tokens(backend, added)

    def encode(self, texts: Sequence[str], max_length: int | None = None, *, as_written: bool = False) -> Ragged:
        """Encode texts; a word (or, with a tokenizer that does not split at spaces, a text) is encoded once.

        Args:
            texts (`Sequence[str]`): Texts, whatever they hold.
            max_length (`int`, *optional*): Keep so many tokens at most, from the start.
            as_written (`bool`): Fold width alone: for what a model writes, and for wordings of ours.

        Returns:
            `Ragged`: int32 token ids of each text; empty where nothing visible is left.

        Raises:
            DataError: If a text is not text, or would yield a forbidden token.
        """
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"Text {row} is {text!r} of type {type(text).__name__}; give a string.")
        folding = () if as_written else self.folding
        blocks = []
        for start in range(0, len(texts), _TEXTS_AT_A_TIME):  # so that many texts take little memory
            folded = [fold_text(text, folding) for text in texts[start : start + _TEXTS_AT_A_TIME]]
            parts = [text.split() if self._splits_words else [text] for text in folded]
            if len(self._known) > _MAX_KNOWN:
                self._known = {}
            known = self._known
            if new := [part for part in dict.fromkeys(chain.from_iterable(parts)) if part not in known]:
                known.update(zip(new, self._encode_new(new), strict=True))
            rows = [list(chain.from_iterable(map(known.__getitem__, part)))[:max_length] for part in parts]
            blocks.append(Ragged.from_lists(rows))
        return blocks[0] if len(blocks) == 1 else Ragged.stack([Ragged.from_lists([]), *blocks])

    def _encode_new(self, parts: list[str]) -> list[list[int]]:
        if len(parts) < _FEW_TEXTS:
            encodings = [self._backend.encode(part, add_special_tokens=False) for part in parts]
        else:
            encodings = self._backend.encode_batch_fast(parts, add_special_tokens=False)
        rows = [encoding.ids for encoding in encodings]
        forbidden = self._forbidden[np.fromiter(chain.from_iterable(rows), np.int64)]
        if forbidden.any():
            row = np.repeat(np.arange(len(rows)), [len(row) for row in rows])[forbidden][0]
            raise DataError(
                f"Text {parts[row][:80]!r} would become a control or special token of this tokenizer; leave the text "
                "out, and report the tokenizer."
            )
        return rows

    def encode_piece(self, text: str, *, starts_text: bool = False) -> list[int]:
        """Encode a piece of a wording of ours; the result is remembered.

        A T5 tokenizer starts any text with a space. Here a piece that follows something keeps the space only if it
        has one, so that `";"` after a query reads `piano;` and not `piano ;`.

        Args:
            text (`str`): The piece.
            starts_text (`bool`): Whether nothing comes before it.

        Returns:
            `list[int]`: Token ids.
        """
        key = (text, starts_text)
        if key not in self._pieces:
            # The model alone, without the steps before it, adds no space in front.
            head = "" if starts_text or text[:1].isspace() else text.split(" ")[0]
            joined = [token.id for token in self._backend.model.tokenize(head)] if head else []
            self._pieces[key] = joined + self.encode([text[len(head) :]], as_written=True).to_lists()[0]
        return list(self._pieces[key])


# A copy of a tokenizer costs half a second.
_ENCODERS: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, tuple[tuple[int, list[str]], TextEncoder]]
_ENCODERS = weakref.WeakKeyDictionary()
# Where a tokenizer keeps it: `save_pretrained` writes these settings, `from_pretrained` reads them.
_FOLDING = "text_folding"


def get_text_folding(tokenizer: PreTrainedTokenizerBase) -> tuple[Folding, ...]:
    """Return how outside text is folded before this tokenizer reads it.

    Raises:
        ConfigurationError: If the tokenizer names what [`fold_text`] does not know.
    """
    return check_folding(tokenizer.init_kwargs.get(_FOLDING, ()))


def set_text_folding(tokenizer: PreTrainedTokenizerBase, folding: Collection[str]) -> None:
    """Set how outside text is folded before this tokenizer reads it; it is saved with it.

    A model must be asked as it was trained. One whose tokenizer says nothing but was trained on queries in lower case
    alone may be set to `["case"]` before its catalogue is set.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Is changed.
        folding (`Collection[str]`): As for [`~seekrec.util.text.fold_text`].

    Raises:
        ConfigurationError: If a name is unknown.
    """
    tokenizer.init_kwargs[_FOLDING] = list(check_folding(folding))


def encode_text(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int | None = None,
    *,
    as_written: bool = False,
) -> list[list[int]]:
    """Encode outside text with the [`TextEncoder`] of a tokenizer; see there.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): A tokenizer of the fast kind.
        texts (`Sequence[str]`): Texts, whatever they hold.
        max_length (`int`, *optional*): Keep so many tokens at most.
        as_written (`bool`): Fold width alone.

    Returns:
        `list[list[int]]`: Token ids of each text, without end of sequence.
    """
    return shared_encoder(tokenizer).encode(texts, max_length, as_written=as_written).to_lists()


def shared_encoder(tokenizer: PreTrainedTokenizerBase) -> TextEncoder:
    """Return the [`TextEncoder`] of a tokenizer, made on first use and after tokens were added or folding set."""
    state = len(tokenizer), list(tokenizer.init_kwargs.get(_FOLDING, ()))
    made_of, encoder = _ENCODERS.get(tokenizer, (None, None))
    if encoder is None or made_of != state:
        encoder = TextEncoder(tokenizer)
        _ENCODERS[tokenizer] = (state, encoder)
    return encoder


def backend_of(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Return the tokenizer of the tokenizers library behind one of transformers.

    Raises:
        ConfigurationError: If there is none: it is of the slow kind.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ConfigurationError(
            f"The tokenizer is a {type(tokenizer).__name__} without a `backend_tokenizer`; use a fast tokenizer."
        )
    return backend


def _splits_words(backend: Tokenizer) -> bool:
    """Return whether the tokenizer cuts text at white space and encodes each word as if it stood alone, as T5's."""
    steps = json.loads(backend.to_str())["pre_tokenizer"] or {}
    by_type = {step["type"]: step for step in steps.get("pretokenizers", [])}
    return "WhitespaceSplit" in by_type and by_type.get("Metaspace", {}).get("prepend_scheme") == "always"


def _without_added_tokens(backend: Tokenizer, added: dict[int, str]) -> Tokenizer:
    """Copy a backend such that no text matches the tokens `added` (id to name)."""
    state = json.loads(backend.to_str())
    state.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    model = state["model"]
    names = {name: f" {number}" for number, name in added.items()}
    # A name that starts with a space cannot be met: spaces are split off or replaced before the model sees the text.
    # Ids stay as they are.
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    return Tokenizer.from_str(json.dumps(state))


__all__ = [
    "IS_UNSPACED",
    "TEXT_FOLDING",
    "WORD",
    "WORD_FOLDING",
    "Folding",
    "TextEncoder",
    "backend_of",
    "check_folding",
    "encode_text",
    "fold_text",
    "get_text_folding",
    "set_text_folding",
    "shared_encoder",
    "split_words",
]
