# SPDX-License-Identifier: Apache-2.0
"""Text from outside, as tokens that cannot pretend to be something else; and tokenizers trained from scratch.

A tokenizer looks for its added tokens in the text before anything else, so the query `"<R_I>"` would become a control
token. [`TextEncoder`] encodes with a copy that knows no added token, and whose vocabulary holds no special token
under its own name. Everything that people wrote (queries, titles, descriptions) goes through it.
"""

from __future__ import annotations

import hashlib
import json
import math
import string
import unicodedata
import weakref
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace, PreTokenizer, WhitespaceSplit
from tokenizers.pre_tokenizers import Sequence as PreTokenizerSequence
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, T5Tokenizer

from seekrec.errors import ConfigurationError, DataError

WORD_START = "\u2581"  # how a T5 vocabulary writes the space before a word


class TextEncoder:
    """Encodes outside text: no text can produce a control, identifier or special token.

    The one exception is `<unk>`, which stands for characters that the vocabulary lacks. Text is put into Unicode form
    NFKC first (full-width letters become plain ones); no token for end of sequence is added.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): A tokenizer of the fast kind. Later changes to it are not seen.

    Raises:
        ConfigurationError: If the tokenizer is of the slow kind.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = _backend_of(tokenizer)
        added = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
        added.update((number, str(tokenizer.convert_ids_to_tokens(number))) for number in tokenizer.all_special_ids)
        unknown_id = tokenizer.unk_token_id
        self._forbidden = np.array(sorted(set(added) - {unknown_id}), dtype=np.int64)
        self._backend = _without_added_tokens(backend, added)

    def encode(self, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
        """Encode texts; equal texts are encoded once.

        Args:
            texts (`Sequence[str]`): Any text at all.
            max_length (`int`, *optional*): Keep so many tokens at most, from the start.

        Returns:
            `list[list[int]]`: Token ids of each text; empty where nothing visible is left.

        Raises:
            DataError: If a text is not text, or would yield a forbidden token.
        """
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"Text {row} is {text!r} of type {type(text).__name__}; give text.")
        unique = list(dict.fromkeys(texts))
        encodings = self._backend.encode_batch_fast([_clean(text) for text in unique], add_special_tokens=False)
        rows = [encoding.ids[:max_length] for encoding in encodings]
        self._check(unique, rows)
        if len(unique) == len(texts):
            return rows
        by_text = dict(zip(unique, rows, strict=True))
        return [list(by_text[text]) for text in texts]

    def encode_piece(self, text: str) -> list[int]:
        """Encode a piece of a template that may continue the token before it.

        A T5 tokenizer starts any text with a space. Here the space stays only if the text has one, so that `";"`
        after a query reads `piano;` and not `piano ;`.
        """
        token_ids = self.encode([text])[0]
        if not token_ids or not text or text[0].isspace():
            return token_ids
        first = self._backend.id_to_token(token_ids[0]) or ""
        if first == WORD_START:
            return token_ids[1:]
        bare = self._backend.token_to_id(first.removeprefix(WORD_START))
        return token_ids if bare is None else [bare, *token_ids[1:]]

    def _check(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        flat = np.fromiter((number for row in rows for number in row), np.int64)
        if not np.isin(flat, self._forbidden).any():
            return
        forbidden = set(self._forbidden.tolist())
        text = next(text for text, row in zip(texts, rows, strict=True) if forbidden.intersection(row))
        raise DataError(
            f"Text {text[:80]!r} would become a control or special token of this tokenizer; leave the text out, and "
            "report the tokenizer."
        )


# A copy of a tokenizer costs half a second.
_ENCODERS: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, TextEncoder]] = weakref.WeakKeyDictionary()


def encode_text(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int | None = None
) -> list[list[int]]:
    """Encode outside text with the [`TextEncoder`] of a tokenizer; see there.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): A tokenizer of the fast kind.
        texts (`Sequence[str]`): Any text at all.
        max_length (`int`, *optional*): Keep so many tokens at most.

    Returns:
        `list[list[int]]`: Token ids of each text, without end of sequence.
    """
    return shared_encoder(tokenizer).encode(texts, max_length)


def shared_encoder(tokenizer: PreTrainedTokenizerBase) -> TextEncoder:
    """Give the [`TextEncoder`] of a tokenizer, made on first use and again after tokens were added."""
    length, encoder = _ENCODERS.get(tokenizer, (-1, None))
    if encoder is None or length != len(tokenizer):
        encoder = TextEncoder(tokenizer)
        _ENCODERS[tokenizer] = (len(tokenizer), encoder)
    return encoder


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Give a SHA-256 over what decides the ids of any text: 64 hexadecimal digits.

    Raises:
        ConfigurationError: If the tokenizer is of the slow kind.
    """
    state = json.loads(_backend_of(tokenizer).to_str())
    # Truncation and padding are left over from the latest call, and change nothing here.
    state.update(truncation=None, padding=None)
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> T5Tokenizer:
    """Train a T5 tokenizer from scratch.

    Identical to training transformers' blank `T5Tokenizer` except: pieces come from pair merges and are weighted by
    their frequency, because the Unigram trainer gives slightly different weights in every run; printable ASCII is
    always covered, so any digit or punctuation mark can be written; no piece crosses an angle bracket.
    Characters that are neither ASCII nor in `texts` become `<unk>`.

    Args:
        texts (`Iterable[str]`): Titles, descriptions, queries and the wordings of the templates.
        vocab_size (`int`): Tokens at most, with `<pad>`, `</s>` and `<unk>` (ids 0, 1, 2).

    Returns:
        `T5Tokenizer`: Without sentinel (`<extra_id_0>`) tokens.

    Raises:
        ConfigurationError: If the characters alone need a larger vocabulary.
    """
    words: Counter[str] = Counter()
    split = _t5_pre_tokenizer()
    for text in texts:
        spaced = _clean(text).replace("<", " < ").replace(">", " > ")
        words.update(word for word, _ in split.pre_tokenize_str(spaced))
    special = ["<pad>", "</s>", "<unk>"]
    characters = Counter(
        {WORD_START: 1, **dict.fromkeys(string.ascii_letters + string.digits + string.punctuation, 1)}
    )
    for word, count in words.items():
        for character in word:
            characters[character] += count
    alphabet = sorted(characters)
    if vocab_size < len(special) + len(alphabet):
        raise ConfigurationError(
            f"`vocab_size` is {vocab_size}, but the special tokens and {len(alphabet)} characters need "
            f"{len(special) + len(alphabet)}; give more, or clean the texts."
        )
    model = Tokenizer(BPE())
    model.pre_tokenizer = split
    trainer = BpeTrainer(
        vocab_size=vocab_size - len(special),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    # Sorted, so that nothing depends on the order of the texts. The words are split already: no word holds a space.
    ordered = sorted(words)
    model.train_from_iterator((" ".join([word] * words[word]) for word in ordered), trainer=trainer)
    counts = Counter({piece: 0 for piece in model.get_vocab()})
    for word in ordered:
        for piece in model.encode(word).tokens:
            counts[piece] += words[word]
    total = sum(counts.values()) + len(counts) / 2
    # Half a count for all: a piece that only served to build longer ones stays possible, and unlikely.
    scores = sorted(((piece, math.log((count + 0.5) / total)) for piece, count in counts.items()), key=_by_score)
    return T5Tokenizer(vocab=[(token, 0.0) for token in special] + scores, extra_ids=0)


def _backend_of(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ConfigurationError(
            f"The tokenizer is a {type(tokenizer).__name__} without a `backend_tokenizer`; use one of the fast kind."
        )
    return backend


def _by_score(pair: tuple[str, float]) -> tuple[float, str]:
    return -pair[1], pair[0]


def _t5_pre_tokenizer() -> PreTokenizer:
    # What T5Tokenizer always uses, whatever its file says; so a trained tokenizer must be trained with it.
    return PreTokenizerSequence(
        [WhitespaceSplit(), Metaspace(replacement=WORD_START, prepend_scheme="always", split=True)]
    )


def _clean(text: str) -> str:
    """Unicode form NFKC, with lone surrogates (which the tokenizer refuses) as question marks."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode("utf-8"))


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
