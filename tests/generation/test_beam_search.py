# SPDX-License-Identifier: Apache-2.0
"""Beam search against the slow and obvious way, and against `generate`."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from seekrec.errors import ConfigurationError, NotFiniteError, RequestError
from seekrec.generation import IdentifierTrie, TrieLogitsProcessor, beam_search, collect_items
from seekrec.generation.sessions import BartSession, T5Session, WholeModelSession, open_session

SIZES = (5, 4, 6)
OFFSETS = [40, 60, 80]
KINDS = ["t5", "t5-eager", "t5-1.1", "mt5", "bart", "mbart"]


def random_codes(num_items: int, sizes: tuple[int, ...] = SIZES, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, num_items) for size in sizes], axis=1)


def assert_best(rows, scores, expected, count, allowed=None):
    """The answer holds the `count` best scores of `expected`, each with a row that has it, in order."""
    permitted = np.arange(len(expected)) if allowed is None else np.flatnonzero(allowed)
    best = np.sort(expected[permitted])[::-1][:count]
    assert len(rows) == len(scores) == len(best)
    assert len(set(rows.tolist())) == len(rows)
    assert set(rows.tolist()) <= set(permitted.tolist())
    # Sums of tens of nats in float32, whose products round differently from one processor to another.
    np.testing.assert_allclose(scores, best, atol=1e-4, rtol=1e-5)
    np.testing.assert_allclose(scores, expected[rows], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["vocab", "level"])
def test_all_items_in_the_beam_equal_brute_force(get_model, make_batch, brute_force, kind, norm):
    codes = random_codes(40)  # 120 identifiers are possible: some of the 40 items share one
    trie = IdentifierTrie.from_codes(codes, SIZES)
    model, batch = get_model(kind), make_batch([9, 4, 6])
    expected = brute_force(model, batch, codes, OFFSETS, norm, SIZES)
    found = beam_search(model, **batch, trie=trie, level_offsets=OFFSETS, num_beams=40, norm=norm)
    for row in range(3):
        assert_best(found.rows[row], found.scores[row], expected[row], 40)


def test_each_architecture_takes_its_path(get_model):
    states = torch.zeros(1, 3, 32)
    paths = {kind: type(open_session(get_model(kind), states, None)) for kind in KINDS}
    expected = {kind: T5Session for kind in KINDS} | {"bart": BartSession, "mbart": WholeModelSession}
    assert paths == expected


def test_decoders_that_are_not_quite_known_are_called_whole(get_model, make_batch):
    trie = IdentifierTrie.from_codes(random_codes(60), SIZES)
    options = {**make_batch([4, 7]), "trie": trie, "level_offsets": OFFSETS, "num_beams": 5}
    for kind in ("t5", "bart"):
        model = copy.deepcopy(get_model(kind))
        decoder = model.get_decoder()
        layers = decoder.block if kind == "t5" else decoder.layers
        layers[0]._hf_hook = None  # where accelerate keeps what it does before a layer
        assert type(open_session(model, torch.zeros(1, 3, 32), None)) is WholeModelSession
        whole, layered = beam_search(model, **options), beam_search(get_model(kind), **options)
        for row in range(2):
            np.testing.assert_array_equal(whole.rows[row], layered.rows[row])
            np.testing.assert_allclose(whole.scores[row], layered.scores[row], rtol=1e-5)


def test_a_model_without_a_shared_cache_is_refused():
    class Forgetful:
        def __call__(self, **inputs):
            return SimpleNamespace(cache=None, logits=torch.zeros(1, 1, 9))

    session = WholeModelSession(Forgetful(), torch.zeros(1, 3, 32), None)
    with pytest.raises(
        ConfigurationError, match="Forgetful returns a NoneType, but beam search needs an encoder-decoder cache"
    ):
        session.start(torch.zeros((1, 2), dtype=torch.int64))


@pytest.mark.parametrize("kind", KINDS)
def test_same_items_as_generate_with_the_processor(get_model, make_batch, kind):
    # More items than beams: what is pruned must be the same too. Scores of generate are sums with length_penalty=0.
    codes = random_codes(90, seed=3)
    trie = IdentifierTrie.from_codes(codes, SIZES)
    model, batch = get_model(kind), make_batch([9, 4, 6, 7], seed=5)
    masks = [None, trie.mask(np.arange(90) % 3 == 0), None, trie.mask(np.arange(90) % 7 == 0)]
    processor = TrieLogitsProcessor(trie, OFFSETS, 2, masks=masks, num_beams=6)
    output = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        decoder_input_ids=batch["decoder_prefix"],
        num_beams=6,
        num_return_sequences=6,
        max_new_tokens=3,
        do_sample=False,
        length_penalty=0.0,
        eos_token_id=None,
        logits_processor=[processor],
        return_dict_in_generate=True,
        output_scores=True,
    )
    reference = collect_items(
        output.sequences,
        output.sequences_scores,
        trie=trie,
        level_offsets=OFFSETS,
        prompt_length=2,
        num_return_sequences=6,
        masks=masks,
    )
    found = beam_search(model, **batch, trie=trie, level_offsets=OFFSETS, num_beams=6, top_k=6, masks=masks)
    for row in range(4):
        # Six beams, one or more items each: generate gives all items of its beams, beam_search the best six.
        np.testing.assert_array_equal(found.rows[row], reference.rows[row][:6])
        np.testing.assert_allclose(found.scores[row], reference.scores[row][:6], rtol=1e-5)


@st.composite
def catalogues(draw):
    """Depth 1 to 6, codebooks of 1 to 9, one to sixty items, skewed, with items that share an identifier."""
    sizes = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=6)))
    num_items = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    skew = draw(st.sampled_from([1.0, 4.0]))  # 4: most codes are small
    codes = np.stack([(size * rng.random(num_items) ** skew).astype(np.int64) for size in sizes], axis=1)
    if draw(st.booleans()):
        codes = codes[rng.integers(0, num_items, num_items)]
    return sizes, codes, rng


# Fixtures are models that no test changes.
relaxed = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@relaxed
@given(catalogue=catalogues(), norm=st.sampled_from(["vocab", "level"]), top_k=st.integers(1, 70))
def test_any_catalogue_equals_brute_force(tiny_t5, make_batch, brute_force, catalogue, norm, top_k):
    sizes, codes, rng = catalogue
    offsets = [40 + 10 * level for level in range(len(sizes))]
    trie = IdentifierTrie.from_codes(codes, sizes)
    batch = make_batch([5, 3])
    allowed = [rng.random(len(codes)) < 0.5, rng.random(len(codes)) < 0.1]
    found = beam_search(
        tiny_t5, **batch, trie=trie, level_offsets=offsets, num_beams=60, top_k=top_k, masks=allowed, norm=norm
    )
    expected = brute_force(tiny_t5, batch, codes, offsets, norm, sizes)
    for row in range(2):
        assert_best(found.rows[row], found.scores[row], expected[row], top_k, allowed[row])


@relaxed
@given(catalogue=catalogues(), num_beams=st.integers(1, 8))
def test_any_catalogue_and_few_beams_equal_generate(tiny_t5, make_batch, catalogue, num_beams):
    sizes, codes, _ = catalogue
    offsets = [40 + 10 * level for level in range(len(sizes))]
    trie = IdentifierTrie.from_codes(codes, sizes)
    batch = make_batch([5, 3])
    output = tiny_t5.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        decoder_input_ids=batch["decoder_prefix"],
        num_beams=num_beams,
        num_return_sequences=num_beams,
        max_new_tokens=len(sizes),
        do_sample=False,
        length_penalty=0.0,
        eos_token_id=None,
        logits_processor=[TrieLogitsProcessor(trie, offsets, 2, num_beams=num_beams)],
    )
    options = {"trie": trie, "level_offsets": offsets}
    reference = collect_items(output, prompt_length=2, num_return_sequences=num_beams, **options)
    found = beam_search(tiny_t5, **batch, **options, num_beams=num_beams)
    for row in range(2):
        np.testing.assert_array_equal(found.rows[row], reference.rows[row][:num_beams])


def test_a_batch_gives_what_each_request_gives_alone(tiny_t5, make_batch):
    # Lengths, masks, tries, token blocks, numbers of beams and of answers all differ.
    tries = [IdentifierTrie.from_codes(random_codes(80, seed=seed), SIZES) for seed in (1, 2)]
    batch = make_batch([9, 4, 6, 2, 7], seed=2)
    rng = np.random.default_rng(0)
    where = [rng.random(80) < share for share in (0.5, 0.05, 0.0, 1.0, 0.3)]
    chosen = [tries[index] for index in (0, 1, 0, 1, 0)]
    offsets = [OFFSETS if index == 0 else [60, 80, 100] for index in (0, 1, 0, 1, 0)]
    num_beams, top_k = [10, 5, 7, 3, 12], [4, 5, 7, 2, 20]
    together = beam_search(
        tiny_t5, **batch, trie=chosen, level_offsets=offsets, num_beams=num_beams, top_k=top_k, masks=where
    )
    assert len(together.rows[2]) == 0
    assert len(together.rows[1]) == min(5, int(where[1].sum()))
    for row in range(5):
        alone = beam_search(
            tiny_t5,
            batch["input_ids"][row : row + 1, : int(batch["attention_mask"][row].sum())],
            decoder_prefix=batch["decoder_prefix"][row : row + 1],
            trie=chosen[row],
            level_offsets=offsets[row],
            num_beams=num_beams[row],
            top_k=top_k[row],
            masks=where[row],
        )
        np.testing.assert_array_equal(together.rows[row], alone.rows[0])
        np.testing.assert_allclose(together.scores[row], alone.scores[0], rtol=1e-5)


def test_items_that_share_an_identifier_are_all_returned_in_row_order(tiny_t5, make_batch):
    codes = np.array([[1, 1, 1], [2, 2, 2], [1, 1, 1], [1, 1, 1]])
    trie = IdentifierTrie.from_codes(codes, SIZES)
    options = {"trie": trie, "level_offsets": OFFSETS, "num_beams": 2}
    found = beam_search(tiny_t5, **make_batch([4]), **options, top_k=10)
    shared = [row for row in found.rows[0].tolist() if row != 1]
    assert shared == [0, 2, 3]
    assert sorted(found.rows[0].tolist()) == [0, 1, 2, 3]
    # A mask can allow one of the items of an identifier and forbid another.
    masked = beam_search(tiny_t5, **make_batch([4]), **options, masks=np.array([False, False, True, False]))
    assert masked.rows[0].tolist() == [2]


def test_nothing_allowed_gives_an_empty_list(tiny_t5, make_batch):
    trie = IdentifierTrie.from_codes(random_codes(10), SIZES)
    found = beam_search(
        tiny_t5, **make_batch([4, 5]), trie=trie, level_offsets=OFFSETS, num_beams=3, masks=np.zeros(10, bool)
    )
    assert [len(rows) for rows in found.rows] == [0, 0]
    assert found.rows[0].dtype == np.int64
    assert found.scores[0].dtype == np.float32


def test_an_empty_batch_gives_no_lists(tiny_t5):
    trie = IdentifierTrie.from_codes(random_codes(10), SIZES)
    none = torch.zeros((0, 4), dtype=torch.int64)
    found = beam_search(tiny_t5, none, decoder_prefix=none[:, :2], trie=trie, level_offsets=OFFSETS, num_beams=3)
    assert found.rows == []


def test_top_k_raises_the_number_of_beams(tiny_t5, make_batch):
    trie = IdentifierTrie.from_codes(random_codes(60), SIZES)
    options = {**make_batch([4]), "trie": trie, "level_offsets": OFFSETS}
    narrow = beam_search(tiny_t5, **options, num_beams=2, top_k=20)
    wide = beam_search(tiny_t5, **options, num_beams=20)
    np.testing.assert_array_equal(narrow.rows[0], wide.rows[0])
    assert len(narrow.rows[0]) == 20


def test_encoder_outputs_stand_in_for_input_ids(tiny_t5, make_batch):
    trie = IdentifierTrie.from_codes(random_codes(60), SIZES)
    batch = make_batch([4, 7])
    options = {"decoder_prefix": batch["decoder_prefix"], "trie": trie, "level_offsets": OFFSETS, "num_beams": 5}
    with torch.no_grad():
        states = tiny_t5.get_encoder()(batch["input_ids"], attention_mask=batch["attention_mask"])[0]
    given = beam_search(
        tiny_t5,
        None,
        batch["attention_mask"],
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        **options,
    )
    computed = beam_search(tiny_t5, batch["input_ids"], batch["attention_mask"], **options)
    for row in range(2):
        np.testing.assert_array_equal(given.rows[row], computed.rows[row])


def test_atomic_identifiers_of_a_million_items(make_batch):
    # One level, whose one family has a million children.
    num_items = 1_000_000
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    torch.manual_seed(0)
    config = T5Config(vocab_size=40 + num_items, decoder_start_token_id=0, **sizes)
    model = T5ForConditionalGeneration(config).eval()
    batch = make_batch([4, 7])
    codes = np.random.default_rng(0).permutation(num_items)[:, None]
    trie = IdentifierTrie.from_codes(codes, num_items)
    masks = [None, np.arange(num_items) % 1000 == 7]
    found = beam_search(model, **batch, trie=trie, level_offsets=[40], num_beams=5, norm="level", masks=masks)
    with torch.no_grad():
        logits = model(
            batch["input_ids"], attention_mask=batch["attention_mask"], decoder_input_ids=batch["decoder_prefix"]
        ).logits[:, -1, 40:]
    scores = logits.double().log_softmax(-1).numpy()[:, codes[:, 0]]
    assert_best(found.rows[0], found.scores[0], scores[0], 5)
    assert_best(found.rows[1], found.scores[1], scores[1], 5, masks[1])


@pytest.mark.parametrize("kind", ["t5", "bart"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs(get_model, make_batch, kind, dtype):
    model = copy.deepcopy(get_model(kind)).to(dtype)
    trie = IdentifierTrie.from_codes(random_codes(60), SIZES)
    found = beam_search(model, **make_batch([4, 7]), trie=trie, level_offsets=OFFSETS, num_beams=60)
    full = beam_search(get_model(kind), **make_batch([4, 7]), trie=trie, level_offsets=OFFSETS, num_beams=60)
    for row in range(2):
        assert sorted(found.rows[row].tolist()) == list(range(60))
        assert np.isfinite(found.scores[row]).all()
        by_item = np.empty((2, 60))
        by_item[0, found.rows[row]], by_item[1, full.rows[row]] = found.scores[row], full.scores[row]
        assert np.corrcoef(by_item)[0, 1] > 0.98  # bfloat16 has eight bits of mantissa


# peft 0.21 reads an attribute that transformers 5 has renamed (huggingface/peft, `PeftModel.__init__`).
renamed_attribute = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@renamed_attribute
@pytest.mark.parametrize("with_tokens", [False, True])
@pytest.mark.parametrize("norm", ["vocab", "level"])
def test_lora_adapters_are_used(get_model, make_batch, brute_force, with_tokens, norm):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    trained = {"trainable_token_indices": list(range(40, 90))} if with_tokens else {}
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q", "v"], init_lora_weights=False, **trained)
    model = peft.get_peft_model(copy.deepcopy(get_model("t5")), config).eval()
    if with_tokens:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "trainable_tokens_delta" in name:
                    parameter.add_(torch.randn_like(parameter))
    codes = random_codes(40)
    trie = IdentifierTrie.from_codes(codes, SIZES)
    batch = make_batch([9, 4])
    found = beam_search(model, **batch, trie=trie, level_offsets=OFFSETS, num_beams=40, norm=norm)
    expected = brute_force(model, batch, codes, OFFSETS, norm, SIZES)
    plain = brute_force(get_model("t5"), batch, codes, OFFSETS, norm, SIZES)
    assert np.abs(expected - plain).max() > 0.1
    for row in range(2):
        assert_best(found.rows[row], found.scores[row], expected[row], 40)


@renamed_attribute
def test_adapters_outside_the_model_are_refused(get_model, make_batch):
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=2)
    model = peft.get_peft_model(copy.deepcopy(get_model("t5")), config).eval()
    trie = IdentifierTrie.from_codes(random_codes(10), SIZES)
    with pytest.raises(ConfigurationError, match="prompt-learning adapter"):
        beam_search(model, **make_batch([4]), trie=trie, level_offsets=OFFSETS, num_beams=2)


def test_unusable_models_are_refused(tiny_t5, make_batch):
    trie = IdentifierTrie.from_codes(random_codes(10), SIZES)
    options = {**make_batch([4]), "trie": trie, "num_beams": 2}
    with pytest.raises(ConfigurationError, match="pass an encoder-decoder with a language-modelling head"):
        beam_search(tiny_t5.get_encoder(), **options, level_offsets=OFFSETS)
    with pytest.raises(ConfigurationError, match=r"The tokens of level 2 are 198..203 .* has 200 tokens"):
        beam_search(tiny_t5, **options, level_offsets=[40, 60, 198])
    with pytest.raises(ConfigurationError, match="`level_offsets` has 2 entries for identifiers of 3 levels"):
        beam_search(tiny_t5, **options, level_offsets=[40, 60])
    with pytest.raises(ConfigurationError, match="`norm` is 'word'; use one of vocab, level"):
        beam_search(tiny_t5, **options, level_offsets=OFFSETS, norm="word")


def test_training_mode_is_refused(make_batch, get_model):
    model = copy.deepcopy(get_model("t5")).train()
    trie = IdentifierTrie.from_codes(random_codes(10), SIZES)
    with pytest.raises(ConfigurationError, match=r"in training mode.* call `model.eval\(\)`"):
        beam_search(model, **make_batch([4]), trie=trie, level_offsets=OFFSETS, num_beams=2)


def test_scores_that_are_not_numbers_are_refused(make_batch, get_model):
    model = copy.deepcopy(get_model("t5"))
    with torch.no_grad():
        model.shared.weight.fill_(float("nan"))
    trie = IdentifierTrie.from_codes(random_codes(10), SIZES)
    with pytest.raises(NotFiniteError, match="scores at level 0 are not numbers"):
        beam_search(model, **make_batch([4]), trie=trie, level_offsets=OFFSETS, num_beams=2)


def test_arguments_that_contradict_each_other_are_refused(tiny_t5, make_batch):
    trie = IdentifierTrie.from_codes(random_codes(10), SIZES)
    other = IdentifierTrie.from_codes(random_codes(10), SIZES)
    shallow = IdentifierTrie.from_codes(random_codes(10)[:, :2], SIZES[:2])
    batch = make_batch([4, 5])
    good = {**batch, "trie": trie, "level_offsets": OFFSETS, "num_beams": 2}
    wrong = [
        ({"num_beams": 2.0}, "`num_beams` is 2.0; pass a positive number"),
        ({"num_beams": 0}, "`num_beams` is 0; pass a positive number"),
        ({"top_k": [1, 2, 3]}, r"`top_k` is \[1, 2, 3\]; pass a positive number, or one for each of the 2 requests"),
        ({"masks": other.mask(np.ones(10, bool))}, "The mask of request 0 was made by another trie"),
        ({"masks": [None]}, "`masks` has 1 entries for 2 requests"),
        ({"masks": np.ones(9, bool)}, r"`where` is bool of shape \(9,\)"),
        ({"trie": [trie]}, "`trie` has 1 entries for 2 requests"),
        ({"trie": [trie, shallow]}, r"identifiers of \[2, 3\] levels; call once for each length"),
        ({"level_offsets": [OFFSETS]}, "`level_offsets` has 1 rows for 2 requests"),
        ({"attention_mask": batch["attention_mask"][:, :3]}, r"`attention_mask` has shape \(2, 3\)"),
        ({"decoder_prefix": batch["decoder_prefix"][:1]}, r"`decoder_prefix` has shape \(1, 2\) for 2 requests"),
        ({"input_ids": batch["input_ids"][0]}, r"`input_ids` has shape \(5,\); pass \(batch, length\)"),
        ({"input_ids": None}, "Pass either `input_ids` or `encoder_outputs`"),
    ]
    for change, message in wrong:
        with pytest.raises(RequestError, match=message):
            beam_search(tiny_t5, **{**good, **change})
