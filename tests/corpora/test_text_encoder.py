# SPDX-License-Identifier: Apache-2.0
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import T5Tokenizer

from seekrec.corpora import TextEncoder, add_identifier_tokens, encode_text, train_tokenizer
from seekrec.corpora.text import tokenizer_digest
from seekrec.errors import ConfigurationError, DataError
from seekrec.models import GenSARConfig

CONTROL = ["<R_I>", "<S_Q>", "<S_I>", "<M1_0>", "<M2_3>", "<S1_1>", "<R1_2>", "</s>", "<pad>", "<unk>", "<extra_id_0>"]
TRICKS = [
    lambda token: token,
    lambda token: token * 3,
    lambda token: f"piano {token} stool",
    lambda token: f"piano{token}stool",
    lambda token: f"\u2581{token}",  # the mark of a space in the vocabulary itself
    lambda token: f" {token} ",
    lambda token: f"\t{token}\n",
    lambda token: f"\u00a0{token}\u3000",
    lambda token: token.lower(),
    lambda token: token.upper(),
    lambda token: "\u200d".join(token),  # zero-width joiners inside
    lambda token: "\u200b" + token + "\ufeff",
    lambda token: "\u00ad".join(token),  # soft hyphens
    lambda token: token.translate({number: number + 0xFEE0 for number in range(0x21, 0x7F)}),  # full-width
    lambda token: token.replace("<", "\ufe64").replace(">", "\ufe65"),  # small forms: NFKC makes them < and >
    lambda token: token.replace("0", "\u2080"),  # subscript digit: likewise
    lambda token: unicodedata.normalize("NFD", token) + "\u0301",
    lambda token: token.replace("<", "&lt;"),
    lambda token: token + "\x00",
    lambda token: "\ud800" + token,
]
HOSTILE = [trick(token) for token in CONTROL for trick in TRICKS]


def forbidden_ids(tokenizer):
    """All added and special ids; `<unk>` alone may stand for a strange character."""
    return (set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}


@pytest.fixture(scope="module")
def blank():
    """Trained on the very names of the tokens, and with sentinels."""
    tokenizer = train_tokenizer([*HOSTILE[:100], "piano stool 1995"] * 20, 400)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<extra_id_0>"]})
    add_identifier_tokens(tokenizer, GenSARConfig(codebook_size=4))
    return tokenizer


@pytest.fixture(params=["trained", "real T5"])
def tokenizer(request, blank):
    return blank if request.param == "trained" else request.getfixturevalue("real_t5")[0]


def test_plain_tokenizers_are_fooled(blank):
    # What the encoder is for: the tokenizer itself turns text into a control token.
    assert blank.convert_tokens_to_ids("<R_I>") in blank("piano <R_I>").input_ids
    assert blank.eos_token_id in blank("piano </s>", add_special_tokens=False).input_ids


def test_hostile_texts_stay_text(tokenizer):
    forbidden = forbidden_ids(tokenizer)
    for text, row in zip(HOSTILE, encode_text(tokenizer, HOSTILE), strict=True):
        assert not forbidden.intersection(row), text
        assert row, text


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=()), max_size=8),
            st.sampled_from([*CONTROL, *HOSTILE, "<", ">", "_"]),
        )
    ).map("".join),
    limit=st.one_of(st.none(), st.integers(0, 20)),
)
def test_any_text_stays_text(tokenizer, text, limit):
    row = encode_text(tokenizer, [text], limit)[0]
    assert not forbidden_ids(tokenizer).intersection(row)
    assert limit is None or len(row) <= limit


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCDEF0123456789.,;:!?'()-", max_size=12)))
def test_ordinary_text_is_encoded_as_by_the_tokenizer(tokenizer, words):
    text = " ".join(words)
    assert encode_text(tokenizer, [text])[0] == tokenizer(text, add_special_tokens=False).input_ids


def test_known_sentence(real_t5):
    # From the T5 documentation, without its end of sequence.
    expected = [6536, 43, 2008, 24, 293, 53, 3, 9, 1782, 19, 207, 21, 25]
    assert encode_text(real_t5[0], ["Studies have shown that owning a dog is good for you"]) == [expected]


def test_many_and_few_texts_agree(tokenizer):
    texts = [f"piano number {number} of {number % 7}" for number in range(100)]
    encoder = TextEncoder(tokenizer)
    few = [encoder.encode([text]).to_lists()[0] for text in texts[:5]]
    encoder._known = {}
    together = encoder.encode(texts).to_lists()
    assert together[:5] == few
    assert encoder.encode(texts, 3).to_lists() == [row[:3] for row in together]


def test_memory_of_words_is_bounded(blank, monkeypatch):
    monkeypatch.setattr("seekrec.util.text._MAX_KNOWN", 3)
    encoder = TextEncoder(blank)
    expected = TextEncoder(blank).encode(["piano stool", "b c d e", "piano"]).to_lists()
    assert [encoder.encode([text]).to_lists()[0] for text in ("piano stool", "b c d e", "piano")] == expected
    assert len(encoder._known) == 1


def test_strange_characters_become_unknown_and_full_width_letters_plain(blank):
    encoder = TextEncoder(blank)
    written = {
        text: encoder.encode([text]).to_lists()[0]
        for text in ("\u65e5", "", "\uff50\uff49\uff41\uff4e\uff4f", "piano", "piano \ud800", "piano ?", "  \n")
    }
    assert written["\u65e5"] == [*written[""], blank.convert_tokens_to_ids("\u2581"), 2]
    assert written["\uff50\uff49\uff41\uff4e\uff4f"] == written["piano"]
    # A lone surrogate is no character; the tokenizer would refuse it.
    assert written["piano \ud800"] == written["piano ?"]
    assert written[""] == written["  \n"] == []


def test_pieces_join_without_a_space(tokenizer):
    encoder = TextEncoder(tokenizer)
    write = tokenizer.convert_ids_to_tokens
    assert write(encoder.encode_piece("; ")) == [";"]
    assert write(encoder.encode_piece(". piano"))[0] == "."
    assert write(encoder.encode_piece(" piano"))[0].startswith("\u2581")
    assert encoder.encode_piece("piano", starts_text=True) == encoder.encode(["piano"]).to_lists()[0]
    assert encoder.encode_piece("") == []


def test_added_tokens_are_seen_by_encode_text():
    tokenizer = train_tokenizer(["piano <R_I>"], 120)
    before = encode_text(tokenizer, ["<R_I>"])
    add_identifier_tokens(tokenizer, GenSARConfig(codebook_size=2))
    assert encode_text(tokenizer, ["<R_I>"]) == before


def test_refusals(blank):
    with pytest.raises(DataError, match="Text 1 is None of type NoneType; give a string"):
        encode_text(blank, ["piano", None])
    encoder = TextEncoder(blank)
    # The last line of defence, met only if a tokenizer is built in a way we did not foresee.
    encoder._forbidden[encoder.encode(["stool"]).values] = True
    with pytest.raises(DataError, match="Text 'stools' would become a control or special token"):
        encoder.encode(["a stools"])
    with pytest.raises(ConfigurationError, match="is a object without a `backend_tokenizer`"):
        TextEncoder(object())


def test_trained_tokenizers_are_equal_in_every_run():
    texts = ["Upright piano, 1995 (second hand)", "Piano stool", "violin <R_I> bow"] * 10
    digest = tokenizer_digest(train_tokenizer(texts, 120))
    assert digest == tokenizer_digest(train_tokenizer(texts[::-1], 120))
    assert digest != tokenizer_digest(train_tokenizer(texts, 119))


def test_trained_tokenizer_covers_ascii_and_reads_back():
    tokenizer = train_tokenizer(["piano piano piano stool"], 120)
    assert isinstance(tokenizer, T5Tokenizer)
    assert len(tokenizer) <= 120
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    text = "#1: piano & stool? 42% off, [x] {y} ~ `z` \\ | @ ^ _ * + = <b>"
    row = encode_text(tokenizer, [text])[0]
    assert tokenizer.unk_token_id not in row
    assert tokenizer.decode(row) == text
    # Frequent words are one piece.
    assert len(encode_text(tokenizer, ["piano"])[0]) == 1


def test_no_piece_crosses_an_angle_bracket():
    tokenizer = train_tokenizer(["<M1_0><M1_1>"] * 1000, 200)
    pieces = [piece for piece in tokenizer.get_vocab() if piece not in ("<pad>", "</s>", "<unk>")]
    assert sorted(piece for piece in pieces if "<" in piece or ">" in piece) == ["<", ">", "\u2581<", "\u2581>"]


def test_vocabulary_must_hold_the_characters():
    # 94 printable ASCII characters, the mark of a space, three special tokens, and two Greek letters.
    with pytest.raises(
        ConfigurationError, match=r"`vocab_size` is 99, but the special tokens and 97 characters need 100"
    ):
        train_tokenizer(["\u03b1\u03b2"], 99)
    assert len(train_tokenizer(["\u03b1\u03b2"], 100)) == 100


def test_digest_ignores_what_calls_leave_behind():
    tokenizer = train_tokenizer(["piano stool"], 120)
    digest = tokenizer_digest(tokenizer)
    tokenizer(["piano", "piano stool"], truncation=True, max_length=1, padding=True)
    assert tokenizer_digest(tokenizer) == digest
    add_identifier_tokens(tokenizer, GenSARConfig(codebook_size=2))
    assert tokenizer_digest(tokenizer) != digest
