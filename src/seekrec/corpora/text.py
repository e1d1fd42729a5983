# SPDX-License-Identifier: Apache-2.0
"""Encode outside text, which can never become a control token; and train tokenizers from scratch.

A tokenizer looks for its added tokens in the text before anything else, so the query `"<R_I>"` would become a control
token. [`TextEncoder`] encodes with a copy that knows no added token, and whose vocabulary holds no special token
under its own name. Everything that people wrote (queries, titles, descriptions) goes through it.

How text is folded before that (`seekrec.util.text`) is a setting of the tokenizer and saved with it, so training and
answering cannot disagree. A tokenizer that says nothing of it, as those of older models, folds width alone.
"""

from __future__ import annotations

import json
import math
import string
import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import chain

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace, PreTokenizer, WhitespaceSplit
from tokenizers.pre_tokenizers import Sequence as PreTokenizerSequence
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, T5Tokenizer

from seekrec.errors import ConfigurationError, DataError
from seekrec.util.hashing import json_digest
from seekrec.util.ragged import Ragged
from seekrec.util.text import Folding, check_folding, fold_text

WORD_START = "\u2581"  # how a T5 vocabulary writes the space before a word

# The parallel encoder takes a millisecond to start; so few texts are done sooner one by one.
_FEW_TEXTS = 32
# Words that an encoder remembers before it starts anew.
_MAX_KNOWN = 500_000
_TEXTS_AT_A_TIME = 10_000


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
        backend = _backend_of(tokenizer)
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


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Compute a SHA-256 over what decides the ids of any text: 64 hexadecimal digits.

    Raises:
        ConfigurationError: If the tokenizer is of the slow kind.
    """
    state = json.loads(_backend_of(tokenizer).to_str())
    # Truncation and padding are left over from the latest call, and change nothing here.
    state.update(truncation=None, padding=None)
    if folding := get_text_folding(tokenizer):
        state[_FOLDING] = list(folding)
    return json_digest(state)


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
        spaced = fold_text(text, ()).replace("<", " < ").replace(">", " > ")
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
            f"{len(special) + len(alphabet)}; raise it, or clean the texts."
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


def _splits_words(backend: Tokenizer) -> bool:
    """Return whether the tokenizer cuts text at white space and encodes each word as if it stood alone, as T5's."""
    steps = json.loads(backend.to_str())["pre_tokenizer"] or {}
    by_type = {step["type"]: step for step in steps.get("pretokenizers", [])}
    return "WhitespaceSplit" in by_type and by_type.get("Metaspace", {}).get("prepend_scheme") == "always"


def _by_score(pair: tuple[str, float]) -> tuple[float, str]:
    return -pair[1], pair[0]


def _t5_pre_tokenizer() -> PreTokenizer:
    # What T5Tokenizer always uses, whatever its file says; so a trained tokenizer must be trained with it.
    return PreTokenizerSequence(
        [WhitespaceSplit(), Metaspace(replacement=WORD_START, prepend_scheme="always", split=True)]
    )


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
