# SPDX-License-Identifier: Apache-2.0
"""Scores of candidates against teacher forcing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.modeling_outputs import BaseModelOutput

from seekrec.errors import ConfigurationError, RequestError
from seekrec.generation import IdentifierTrie, beam_search, score_candidates

SIZES = (5, 4, 6)
OFFSETS = [40, 60, 80]


def random_codes(num_items, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, num_items) for size in SIZES], axis=1)


@pytest.mark.parametrize("kind", ["t5", "t5-1.1", "mt5", "bart", "mbart"])
@pytest.mark.parametrize("norm", ["vocab", "level"])
@pytest.mark.parametrize("max_rows", [4096, 7])
def test_lists_of_different_lengths_equal_brute_force(get_model, make_batch, brute_force, kind, norm, max_rows):
    lists = [random_codes(30, 1), random_codes(1, 2), np.zeros((0, 3), int), random_codes(12, 3)]
    batch = make_batch([9, 4, 6, 5])
    scores = score_candidates(
        get_model(kind),
        **batch,
        codes=lists,
        level_offsets=OFFSETS,
        norm=norm,
        codebook_size=SIZES,
        max_rows=max_rows,
    )
    assert [score.shape for score in scores] == [(30,), (1,), (0,), (12,)]
    for row, codes in enumerate(lists):
        if len(codes):
            alone = {key: value[row : row + 1] for key, value in batch.items()}
            expected = brute_force(get_model(kind), alone, codes, OFFSETS, norm, SIZES)[0]
            np.testing.assert_allclose(scores[row], expected, atol=1e-4)
            assert scores[row].dtype == np.float32


def test_requests_with_token_blocks_of_their_own(tiny_t5, make_batch, brute_force):
    lists = [random_codes(20, 1), random_codes(10, 2), random_codes(5, 3)]
    offsets = [OFFSETS, [40, 90, 110], OFFSETS]  # the first level is shared, as between two views
    batch = make_batch([5, 3, 8])
    for norm in ("vocab", "level"):
        scores = score_candidates(tiny_t5, **batch, codes=lists, level_offsets=offsets, codebook_size=SIZES, norm=norm)
        for row, codes in enumerate(lists):
            alone = {key: value[row : row + 1] for key, value in batch.items()}
            expected = brute_force(tiny_t5, alone, codes, offsets[row], norm, SIZES)[0]
            np.testing.assert_allclose(scores[row], expected, atol=1e-4)


@settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    depth=st.integers(1, 6),
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    skew=st.sampled_from([1.0, 5.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_lists_equal_brute_force(tiny_t5, make_batch, brute_force, depth, lengths, skew, seed):
    rng = np.random.default_rng(seed)
    offsets = [40 + 10 * level for level in range(depth)]
    lists = [(9 * rng.random((length, depth)) ** skew).astype(np.int64) for length in lengths]
    batch = make_batch([3 + row for row in range(len(lengths))], seed=depth)
    scores = score_candidates(tiny_t5, **batch, codes=lists, level_offsets=offsets)
    for row, codes in enumerate(lists):
        assert len(scores[row]) == len(codes)
        if len(codes):
            alone = {key: value[row : row + 1] for key, value in batch.items()}
            np.testing.assert_allclose(scores[row], brute_force(tiny_t5, alone, codes, offsets)[0], atol=1e-4)


def test_agrees_with_beam_search(tiny_t5, make_batch):
    codes = random_codes(50)
    trie = IdentifierTrie.from_codes(codes, SIZES)
    batch = make_batch([5, 8])
    for norm in ("vocab", "level"):
        found = beam_search(tiny_t5, **batch, trie=trie, level_offsets=OFFSETS, num_beams=10, norm=norm)
        scores = score_candidates(
            tiny_t5,
            **batch,
            codes=[codes[rows] for rows in found.rows],
            level_offsets=OFFSETS,
            codebook_size=SIZES,
            norm=norm,
        )
        for row in range(2):
            np.testing.assert_allclose(scores[row], found.scores[row], rtol=1e-5)


@pytest.mark.parametrize("norm", ["vocab", "level"])
def test_bfloat16_scores_are_near_full_precision(get_model, make_batch, norm):
    half = copy.deepcopy(get_model("t5")).bfloat16()
    options = {**make_batch([4, 7]), "codes": [random_codes(40), random_codes(9)], "level_offsets": OFFSETS}
    full = score_candidates(get_model("t5"), **options, norm=norm, codebook_size=SIZES)
    for scores, expected in zip(score_candidates(half, **options, norm=norm, codebook_size=SIZES), full, strict=True):
        assert scores.dtype == np.float32
        assert np.corrcoef(scores, expected)[0, 1] > 0.98  # bfloat16 has eight bits of mantissa


def test_encoder_outputs_stand_in_for_input_ids(tiny_t5, make_batch):
    batch = make_batch([4, 7])
    lists = [random_codes(5), random_codes(6)]
    with torch.no_grad():
        states = tiny_t5.get_encoder()(batch["input_ids"], attention_mask=batch["attention_mask"])[0]
    given_states = score_candidates(
        tiny_t5,
        None,
        batch["attention_mask"],
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        decoder_prefix=batch["decoder_prefix"],
        codes=lists,
        level_offsets=OFFSETS,
    )
    computed = score_candidates(tiny_t5, **batch, codes=lists, level_offsets=OFFSETS)
    for row in range(2):
        np.testing.assert_allclose(given_states[row], computed[row], rtol=1e-6)


def test_the_size_of_codebooks_may_come_from_the_model(make_batch, get_model):
    model = copy.deepcopy(get_model("t5"))
    batch, lists = make_batch([4]), [random_codes(5)]
    model.config.codebook_size = 6
    given_sizes = {"codes": lists, "level_offsets": OFFSETS, "norm": "level"}
    implied = score_candidates(model, **batch, **given_sizes)
    named = score_candidates(get_model("t5"), **batch, **given_sizes, codebook_size=np.int64(6))
    np.testing.assert_array_equal(implied[0], named[0])


def test_no_candidates_at_all(tiny_t5, make_batch):
    none = np.zeros((0, 3), int)
    scores = score_candidates(tiny_t5, **make_batch([4, 7]), codes=[none, none], level_offsets=OFFSETS)
    assert [score.tolist() for score in scores] == [[], []]


def test_arguments_that_do_not_fit_are_refused(tiny_t5, make_batch):
    codes = random_codes(5)
    good = {**make_batch([4, 7]), "codes": [codes, codes], "level_offsets": OFFSETS}
    wrong = [
        ({"codes": [codes]}, RequestError, "`codes` has 1 lists for 2 requests"),
        (
            {"codes": [codes, codes[:, :2]]},
            RequestError,
            r"`codes` of request 0 is int64 of shape \(5, 3\); .*\[2, 3\]",
        ),
        ({"codes": [codes, codes * 1.0]}, RequestError, "`codes` of request 1 is float64"),
        ({"codes": [codes, -codes]}, RequestError, "`codes` of request 1 contains -[0-9]; codes start at 0"),
        ({"norm": "level"}, ConfigurationError, "`codebook_size` is missing"),
        ({"codebook_size": (5, 4)}, RequestError, r"`codes` has 3 levels .*; `codebook_size` is \(5, 4\)"),
        ({"codebook_size": 3}, RequestError, "`codes` has 3 levels with codes up to .*; `codebook_size` is 3"),
        ({"level_offsets": [OFFSETS]}, RequestError, "`level_offsets` has 1 rows for 2 requests"),
        ({"level_offsets": [40, 60, 199]}, ConfigurationError, "The tokens of level 2 are 199"),
        ({"max_rows": 0}, RequestError, "`max_rows` is 0"),
        ({"norm": "none"}, ConfigurationError, "`norm` is 'none'"),
    ]
    for change, error, message in wrong:
        with pytest.raises(error, match=message):
            score_candidates(tiny_t5, **{**good, **change})
