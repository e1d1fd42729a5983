# SPDX-License-Identifier: Apache-2.0
"""Train tokenizers from scratch, and fingerprint them."""

from __future__ import annotations

import json
import math
import string
from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace, PreTokenizer, WhitespaceSplit
from tokenizers.pre_tokenizers import Sequence as PreTokenizerSequence
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, T5Tokenizer

from seekrec.errors import ConfigurationError
from seekrec.util.hashing import json_digest
from seekrec.util.text import backend_of, fold_text, get_text_folding

WORD_START = "\u2581"  # how a T5 vocabulary writes the space before a word


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Compute a SHA-256 over what decides the ids of any text: 64 hexadecimal digits.

    Raises:
        ConfigurationError: If the tokenizer is of the slow kind.
    """
    state = json.loads(backend_of(tokenizer).to_str())
    # Truncation and padding are left over from the latest call, and change nothing here.
    state.update(truncation=None, padding=None)
    if folding := get_text_folding(tokenizer):
        state["text_folding"] = list(folding)
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
    # Sorted, so that nothing depends on the order of the texts. The words are split already: no word contains a space.
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


def _by_score(pair: tuple[str, float]) -> tuple[float, str]:
    return -pair[1], pair[0]


def _t5_pre_tokenizer() -> PreTokenizer:
    # What T5Tokenizer always uses, whatever its file says; so a trained tokenizer must be trained with it.
    return PreTokenizerSequence(
        [WhitespaceSplit(), Metaspace(replacement=WORD_START, prepend_scheme="always", split=True)]
    )
