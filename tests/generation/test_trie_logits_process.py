# SPDX-License-Identifier: Apache-2.0
"""The processor inside `generate`, and what it does at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from seekrec.errors import ConfigurationError, RequestError
from seekrec.generation import IdentifierTrie, TrieLogitsProcessor, beam_search, collect_items

OFFSETS = [40, 60]
CODES = np.array([[3, 1], [0, 2], [0, 0], [3, 0], [0, 2], [1, 1]])


@pytest.fixture
def trie():
    return IdentifierTrie.from_codes(CODES, (4, 3))


def allowed_tokens(processor, tokens):
    scores = processor(torch.tensor(tokens), torch.zeros(len(tokens), 100))
    return [row.isfinite().nonzero()[:, 0].tolist() for row in scores]


def test_only_continuations_keep_their_score(trie):
    processor = TrieLogitsProcessor(trie, OFFSETS, 2)
    assert allowed_tokens(processor, [[0, 7]]) == [[40, 41, 43]]
    # Rows in any order: nothing is remembered between calls.
    assert allowed_tokens(processor, [[0, 7, 43], [0, 8, 40]]) == [[60, 61], [60, 62]]
    assert allowed_tokens(processor, [[0, 8, 41], [0, 7, 43]]) == [[61], [60, 61]]
    scores = torch.rand(1, 100)
    kept = processor(torch.tensor([[0, 7, 40]]), scores.clone())
    assert torch.equal(kept[0, [60, 62]], scores[0, [60, 62]])
    assert kept.isfinite().sum() == 2


def test_masks_by_request(trie):
    only_3 = trie.mask(CODES[:, 0] == 3)
    assert allowed_tokens(TrieLogitsProcessor(trie, OFFSETS, masks=only_3), [[0], [0]]) == [[43], [43]]
    processor = TrieLogitsProcessor(trie, OFFSETS, masks=[only_3, None], num_beams=2)
    assert allowed_tokens(processor, [[0], [0], [0], [0]]) == [[43], [43], [40, 41, 43], [40, 41, 43]]


def test_a_dead_beam_beside_a_living_one_is_silenced(trie):
    processor = TrieLogitsProcessor(trie, OFFSETS, num_beams=2)
    assert allowed_tokens(processor, [[0, 42], [0, 41]]) == [[], [61]]


def test_a_request_that_cannot_go_on_is_named(trie):
    with pytest.raises(
        RequestError, match=r"Request 1 of the batch cannot continue after the identifier tokens \[42\]"
    ):
        TrieLogitsProcessor(trie, OFFSETS)(torch.tensor([[0, 41], [0, 42]]), torch.zeros(2, 100))
    processor = TrieLogitsProcessor(trie, OFFSETS, masks=[None, trie.mask(np.zeros(6, bool))], num_beams=2)
    with pytest.raises(RequestError, match=r"Request 1 .* Leave requests out whose mask allows no item"):
        processor(torch.zeros(4, 1, dtype=torch.int64), torch.zeros(4, 100))


def test_going_on_after_a_complete_identifier(trie):
    with pytest.raises(ConfigurationError, match="pass `max_new_tokens=2`, or `eos_token_id`"):
        TrieLogitsProcessor(trie, OFFSETS)(torch.tensor([[0, 41, 61]]), torch.zeros(1, 100))
    processor = TrieLogitsProcessor(trie, OFFSETS, eos_token_id=1)
    assert allowed_tokens(processor, [[0, 41, 61]]) == [[1]]
    assert allowed_tokens(processor, [[0, 41, 61, 1]]) == [[1]]


def test_arguments_that_do_not_fit_are_refused(trie):
    other = IdentifierTrie.from_codes(CODES, (4, 3))
    with pytest.raises(ConfigurationError, match="`level_offsets` has 1 entries for identifiers of 2 levels"):
        TrieLogitsProcessor(trie, [40])
    with pytest.raises(ConfigurationError, match="`prompt_length` is 0, `num_beams` 1; both start at 1"):
        TrieLogitsProcessor(trie, OFFSETS, 0)
    with pytest.raises(RequestError, match="Mask 1 was made by another trie"):
        TrieLogitsProcessor(trie, OFFSETS, masks=[None, other.mask(np.ones(6, bool))])
    rows = torch.zeros(3, 1, dtype=torch.int64)
    with pytest.raises(ConfigurationError, match="`num_beams` is 2, but `generate` sent 3 rows"):
        TrieLogitsProcessor(trie, OFFSETS, num_beams=2)(rows, torch.zeros(3, 100))
    with pytest.raises(
        ConfigurationError, match="`masks` has 2 entries and `num_beams` is 1, but `generate` sent 3 rows"
    ):
        TrieLogitsProcessor(trie, OFFSETS, masks=[None, None])(rows, torch.zeros(3, 100))
    with pytest.raises(ConfigurationError, match="`prompt_length` is 2, but the decoder has 1 tokens"):
        TrieLogitsProcessor(trie, OFFSETS, 2)(rows, torch.zeros(3, 100))


def generate(model, batch, processor, **options):
    return model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        decoder_input_ids=batch["decoder_prefix"],
        logits_processor=[processor],
        length_penalty=0.0,
        **options,
    )


@pytest.mark.parametrize("eos_token_id", [None, 1])
def test_more_beams_than_items_gives_no_copies(tiny_t5, make_batch, trie, eos_token_id):
    # Six items and ten beams: generate answers with copies, which collect_items takes out.
    batch = make_batch([5, 3])
    masks = [trie.mask(CODES[:, 0] == 3), None]
    processor = TrieLogitsProcessor(trie, OFFSETS, 2, masks=masks, num_beams=10, eos_token_id=eos_token_id)
    output = generate(
        tiny_t5,
        batch,
        processor,
        num_beams=10,
        num_return_sequences=10,
        max_new_tokens=2 if eos_token_id is None else 3,
        eos_token_id=eos_token_id,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert len(torch.unique(output.sequences[:10], dim=0)) < 10
    collected = collect_items(
        output.sequences,
        None if eos_token_id else output.sequences_scores,
        trie=trie,
        level_offsets=OFFSETS,
        prompt_length=2,
        num_return_sequences=10,
        masks=masks,
    )
    found = beam_search(tiny_t5, **batch, trie=trie, level_offsets=OFFSETS, num_beams=10, masks=masks)
    assert sorted(collected.rows[0].tolist()) == [0, 3]
    assert sorted(collected.rows[1].tolist()) == list(range(6))
    for row in range(2):
        if eos_token_id is None:
            np.testing.assert_array_equal(collected.rows[row], found.rows[row])
            np.testing.assert_allclose(collected.scores[row], found.scores[row], rtol=1e-5)
        else:
            assert np.isnan(collected.scores[row]).all()


@pytest.mark.parametrize("options", [{"do_sample": False}, {"do_sample": True, "top_k": 0}])
def test_one_beam_stays_in_the_catalogue(tiny_t5, make_batch, trie, options):
    batch = make_batch([5, 3, 4, 6])
    torch.manual_seed(0)
    processor = TrieLogitsProcessor(trie, OFFSETS, 2)
    sequences = generate(tiny_t5, batch, processor, max_new_tokens=2, eos_token_id=None, **options)
    collected = collect_items(sequences, trie=trie, level_offsets=OFFSETS, prompt_length=2)
    assert all(len(rows) in (1, 2) for rows in collected.rows)  # rows 1 and 4 share an identifier


def test_collecting_drops_what_is_not_allowed(trie):
    sequences = torch.tensor([[0, 43, 61], [0, 42, 60], [0, 40, 62], [0, 43, 61]])
    scores = torch.tensor([-1.0, -2.0, -3.0, -1e9])
    options = {"trie": trie, "level_offsets": OFFSETS, "num_return_sequences": 4}
    collected = collect_items(sequences, scores, **options)
    assert collected.rows[0].tolist() == [0, 1, 4]
    assert collected.scores[0].tolist() == [-1.0, -3.0, -3.0]
    masked = collect_items(sequences, scores, **options, masks=[trie.mask(np.arange(6) == 4)])
    assert (masked.rows[0].tolist(), masked.scores[0].tolist()) == ([4], [-3.0])
    assert math.isnan(collect_items(sequences, **options).scores[0][0])


def test_collecting_refuses_numbers_that_do_not_fit(trie):
    sequences = torch.zeros(4, 3, dtype=torch.int64)
    with pytest.raises(
        RequestError, match=r"`sequences` has shape \(4, 3\); expected a multiple of .* \(3\) rows of at least 3"
    ):
        collect_items(sequences, trie=trie, level_offsets=OFFSETS, num_return_sequences=3)
    with pytest.raises(RequestError, match="2 requests have 2 masks, 4 sequences have 3 scores"):
        collect_items(sequences, torch.zeros(3), trie=trie, level_offsets=OFFSETS, num_return_sequences=2)
    with pytest.raises(RequestError, match="2 requests have 1 masks, 4 sequences have no scores"):
        collect_items(sequences, trie=trie, level_offsets=OFFSETS, num_return_sequences=2, masks=[None])
