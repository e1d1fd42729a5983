# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from transformers import AutoTokenizer, T5Tokenizer

from seekrec.corpora import BEHAVIOR_TOKENS, IdentifierVocabulary, add_identifier_tokens
from seekrec.errors import ConfigurationError, DataError
from seekrec.models import GenSARConfig


def make(**changes):
    sizes = {"first_token_id": 10, "num_shared_levels": 1, "num_specific_levels": 2, "codebook_size": 5}
    return IdentifierVocabulary(**{**sizes, "views": ("semantic", "collaborative"), **changes})


def test_blocks_follow_the_behavior_tokens():
    vocabulary = make()
    # <R_I> 10, <S_Q> 11, <S_I> 12; then blocks of 5: M1 13, S1 18, S2 23, R1 28, R2 33; end 38.
    assert [vocabulary.behavior_token_ids[name] for name in BEHAVIOR_TOKENS] == [10, 11, 12]
    assert vocabulary.blocks == ["M1", "S1", "S2", "R1", "R2"]
    assert vocabulary.level_offsets["semantic"].tolist() == [13, 18, 23]
    assert vocabulary.level_offsets["collaborative"].tolist() == [13, 28, 33]
    assert vocabulary.num_tokens == 3 + 5 * 5
    assert vocabulary.end_token_id == 38
    assert vocabulary.tokens[:5] == ["<R_I>", "<S_Q>", "<S_I>", "<M1_0>", "<M1_1>"]
    assert vocabulary.tokens[-1] == "<R2_4>"


@pytest.mark.parametrize(
    ("changes", "blocks"),
    [
        ({"views": ("semantic",), "num_shared_levels": 0}, ["S1", "S2"]),  # TIGER
        ({"views": ("collaborative",), "num_shared_levels": 0}, ["R1", "R2"]),
        ({"num_shared_levels": 3, "num_specific_levels": 0}, ["M1", "M2", "M3"]),  # all shared
        ({"num_shared_levels": 0, "num_specific_levels": 1, "codebook_size": 4344}, ["S1", "R1"]),  # atomic
        ({"views": ("collaborative", "semantic")}, ["M1", "S1", "S2", "R1", "R2"]),  # ids ignore the order of views
    ],
)
def test_ablations_are_vocabularies_too(changes, blocks):
    vocabulary = make(**changes)
    assert vocabulary.blocks == blocks
    codes = np.array([[0] * vocabulary.num_levels, [vocabulary.codebook_size - 1] * vocabulary.num_levels])
    for view in vocabulary.views:
        token_ids = vocabulary.encode(codes, view)
        assert (vocabulary.decode(token_ids, view) == codes).all()
        written = [vocabulary.tokens[number - vocabulary.first_token_id] for number in token_ids[1]]
        assert vocabulary.format(codes[1], view) == " ".join(written)
        last = vocabulary.codebook_size - 1
        assert all(token.endswith(f"_{last}>") for token in written)
    for behavior in ("recommendation", "search"):
        assert vocabulary.view_of_behavior[behavior] in vocabulary.views


def test_each_behavior_has_its_view():
    assert make().view_of_behavior["recommendation"] == "collaborative"
    assert make().view_of_behavior["search"] == "semantic"
    assert make(views=("semantic",)).view_of_behavior["recommendation"] == "semantic"
    assert make().item_token_ids["recommendation"] == 10
    assert make().item_token_ids["search"] == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_token_id": -1}, r"`first_token_id` is -1; give 0 or more"),
        ({"num_specific_levels": -2}, r"`num_specific_levels` is -2; give 0 or more"),
        ({"codebook_size": 0}, r"`codebook_size` is 0; give 1 or more"),
        ({"num_shared_levels": 0, "num_specific_levels": 0}, r"both 0; an identifier needs at least one level"),
        ({"views": ()}, r"`views` is \(\); name each of semantic, collaborative"),
        ({"views": ("semantic", "semantic")}, r"`views` is \('semantic', 'semantic'\); name each"),
        ({"views": ("visual",)}, r"`views` is \('visual',\); name each"),
    ],
)
def test_impossible_sizes_are_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        make(**changes)


def test_wrong_codes_and_tokens_are_refused():
    vocabulary = make(views=("semantic",))
    with pytest.raises(DataError, match=r"`codes` has 5 in row 1 at level 2; codes are 0\.\.4"):
        vocabulary.encode(np.array([[0, 0, 0], [0, 0, 5]]), "semantic")
    with pytest.raises(DataError, match=r"`codes` has -1 in row 0 at level 0"):
        vocabulary.encode(np.array([[-1, 0, 0]]), "semantic")
    with pytest.raises(DataError, match=r"`codes` has shape \(3,\) and dtype int64; give integers of shape \(n, 3\)"):
        vocabulary.encode(np.array([0, 0, 0]), "semantic")
    with pytest.raises(DataError, match=r"`codes` has shape \(1, 3\) and dtype float64"):
        vocabulary.encode(np.zeros((1, 3)), "semantic")
    with pytest.raises(DataError, match=r"`token_ids` has 13 in row 0 at level 1, which is not a token of that level"):
        vocabulary.decode(np.array([[13, 13, 23]]), "semantic")
    with pytest.raises(ConfigurationError, match="Items have no 'collaborative' identifier in this vocabulary"):
        vocabulary.encode(np.array([[0, 0, 0]]), "collaborative")


def test_tokens_are_added_once_and_survive_saving(tmp_path):
    tokenizer = T5Tokenizer(extra_ids=0)
    size = len(tokenizer)
    vocabulary = add_identifier_tokens(tokenizer, GenSARConfig(codebook_size=8))
    assert vocabulary.first_token_id == size
    assert len(tokenizer) == vocabulary.end_token_id
    assert tokenizer.convert_ids_to_tokens(list(range(size, len(tokenizer)))) == vocabulary.tokens
    assert add_identifier_tokens(tokenizer, GenSARConfig(codebook_size=8)) == vocabulary
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert add_identifier_tokens(loaded, GenSARConfig(codebook_size=8)) == vocabulary
    assert len(loaded) == len(tokenizer)
    # Not special: they are part of an answer, and stay when special tokens are left out.
    assert "<M1_3>" in loaded.decode([vocabulary.level_offsets["semantic"][0] + 3], skip_special_tokens=True)


@pytest.mark.parametrize("other", [{"codebook_size": 4}, {"codebook_size": 16}, {"views": ("semantic",)}])
def test_tokens_of_another_shape_are_refused(other):
    tokenizer = T5Tokenizer(extra_ids=0)
    add_identifier_tokens(tokenizer, GenSARConfig(codebook_size=8))
    with pytest.raises(ConfigurationError, match="identifier tokens for other levels"):
        add_identifier_tokens(tokenizer, GenSARConfig(**{"codebook_size": 8, **other}))


def test_real_t5_keeps_its_own_ids(real_t5):
    tokenizer, vocabulary = real_t5
    # The known ids of a sentence of the T5 documentation; 32,100 pieces and sentinels, then ours.
    assert tokenizer("Studies have shown that owning a dog is good for you").input_ids == [
        *(6536, 43, 2008, 24, 293, 53, 3, 9, 1782, 19, 207, 21, 25, 1)
    ]
    assert vocabulary.first_token_id == 32100
    assert len(tokenizer) == 32100 + 3 + 6 * 256
