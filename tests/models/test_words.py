# SPDX-License-Identifier: Apache-2.0
"""Learned words, against sums by hand and another implementation of the hash."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
import xxhash

from seekrec.models.words import NO_WORD, TextWords, Vocabulary, WordEmbedding, item_word_keys, text_word_keys
from seekrec.schema import ITEM_FEATURES
from seekrec.util.ragged import Ragged


def key(word: str) -> int:
    return int(np.uint64(xxhash.xxh64_intdigest(word.encode())).astype(np.int64))


def items(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"item_id": str(number), **row} for number, row in enumerate(rows)], ITEM_FEATURES.arrow_schema
    )


def test_texts_and_items_have_the_same_words_in_all_scripts():
    rows = text_word_keys(["Pianos, piano & HUBS", "東京タワー", "🎹", ""])
    assert [sorted(row.tolist()) for row in rows] == [
        sorted(map(key, ("piano", "hub"))),
        sorted(map(key, ("東京", "京タ", "タワ", "ワー"))),
        [key("🎹")],
        [],
    ]
    film = {"title": "Hub", "categories": [["Films", "Sci-Fi"]]}
    # A category in one piece too, as queries made from categories write it.
    assert sorted(item_word_keys(items(film))[0].tolist()) == sorted(map(key, ("hub", "film", "sci", "fi", "scifi")))
    assert item_word_keys(items(film), ["categories"]).lengths.tolist() == [4]
    assert item_word_keys(items({}, {})).lengths.tolist() == [0, 0]


def test_a_vocabulary_has_the_words_of_several_texts_and_their_idf():
    of_items, of_queries = text_word_keys(["red hat", "red shoe"]), text_word_keys(["hat", "red", "tie"])
    vocabulary = Vocabulary.choose([of_items, of_queries])
    assert vocabulary.keys.tolist() == sorted([key("red"), key("hat")])
    idf = dict(zip(vocabulary.keys.tolist(), vocabulary.idf.tolist(), strict=True))
    assert idf == {key("red"): pytest.approx(np.log(1 + 5 / 3)), key("hat"): pytest.approx(np.log(1 + 5 / 2))}
    assert Vocabulary.choose([of_items, of_queries], max_words=1).keys.tolist() == [key("red")]
    assert len(Vocabulary.choose([])) == 0


def test_a_text_is_the_sum_of_its_known_words_at_the_length_of_one():
    vocabulary = Vocabulary.choose([text_word_keys(["red hat", "red hat", "red shoe", "blue shoe", "blue"])])
    embedding = WordEmbedding(len(vocabulary), 4)
    embedding.set_vocabulary(vocabulary)
    vectors = {number: embedding.weight[row] for row, number in enumerate(vocabulary.keys.tolist())}
    idf = dict(zip(vocabulary.keys.tolist(), vocabulary.idf.tolist(), strict=True))
    texts = ["red hats", "unheard of", "", "blue shoe sold"]
    keys = text_word_keys(texts)
    red, hat, blue, shoe = map(key, ("red", "hat", "blue", "shoe"))

    def pair(one: int, other: int) -> torch.Tensor:
        return (idf[one] * vectors[one] + idf[other] * vectors[other]) / np.hypot(idf[one], idf[other])

    expected = torch.stack([pair(red, hat), torch.zeros(4), torch.zeros(4), pair(blue, shoe)])
    found = embedding(torch.from_numpy(keys.pad(NO_WORD)))
    torch.testing.assert_close(found, expected)
    words = embedding.find(keys)
    torch.testing.assert_close(embedding.pool(words), expected)
    torch.testing.assert_close(embedding.pool(words.take(torch.tensor([3, 1, 3]))), expected[[3, 1, 3]])
    found.sum().backward()
    assert (embedding.weight.grad.abs().sum(1) > 0).all()


def test_words_are_saved_with_the_weights_and_none_is_fine():
    vocabulary = Vocabulary.choose([text_word_keys(["red hat", "red hat"])])
    embedding, again = WordEmbedding(2, 3), WordEmbedding(2, 3)
    embedding.set_vocabulary(vocabulary)
    again.load_state_dict(embedding.state_dict())
    keys = torch.from_numpy(text_word_keys(["hat", "red"]).pad(NO_WORD))
    assert torch.equal(again(keys), embedding(keys)) and again(keys).abs().sum() > 0
    assert WordEmbedding(0, 3)(keys).tolist() == [[0.0] * 3] * 2
    nothing = WordEmbedding(0, 3).find(Ragged.from_lists([], np.int64))
    assert isinstance(nothing, TextWords) and len(nothing) == 0
