"""GenSR: two views, prompts, Yes and No, identifiers; what all families promise is in `test_contract.py`."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hammer import grow
from small_shop import CODEBOOK_SIZE, FINDING, HISTORY, NUM_ITEMS, REQUESTS, make_gensr
from torch.nn import functional as F
from transformers import AutoModel, AutoProcessor, LogitsProcessorList, T5Config
from transformers import T5ForConditionalGeneration as T5

from seekrec.corpora import encode_text, train_tokenizer
from seekrec.embeddings import SASRecConfig, SASRecForNextItem
from seekrec.errors import CatalogError, ConfigurationError, RequestError
from seekrec.generation import TrieLogitsProcessor
from seekrec.models import GenSRConfig, GenSRForConditionalGeneration, GenSRProcessor
from seekrec.models.gensr.modeling_gensr import SoftFilter, pool_tokens
from seekrec.models.gensr.processing_gensr import describe_items, tokenizer_texts
from seekrec.models.losses import view_contrast
from seekrec.models.views import AddedScores
from seekrec.recipes.arguments import T5Arguments
from seekrec.recipes.gensr import make_gensr_model, make_gensr_processor
from seekrec.recipes.t5 import add_lora
from seekrec.schema import Request
from seekrec.training import RequestArguments, training_requests
from seekrec.training.gensr_batches import GenSRCollator
from seekrec.training.gensr_data import negative_sampler

CANDIDATES = [["i3", "i9", "i20"], ["i1"], ["i2", "i3", "i4", "i5"], ["i23", "i0"]]
SHARED = {"shared_prompt": True, "wording": "short"}


def training_batch(aisles, processor, *, negatives=("uniform=2", "popularity=1"), size=24, **settings):
    split, catalog, *_ = aisles
    arguments = RequestArguments(negatives=list(negatives), **settings)
    requests = training_requests(split, catalog, arguments, max_history=4, seed=0)
    scores = processor.config.scores_candidates
    sampler = negative_sampler(split, catalog, requests, arguments, seed=0) if scores else None
    return GenSRCollator(requests, processor, sampler)(list(range(0, len(requests), len(requests) // size))[:size])


# ---- the views ----


def test_the_soft_filter_is_equations_7_and_8_by_hand():
    """One head of width 2 with identity maps: weights exp(q.h / sqrt 2), normalised; the output their mean of h."""
    attend = SoftFilter(2, 1)
    for linear in (attend.query_projection, attend.key_projection, attend.value_projection, attend.output_projection):
        torch.nn.init.eye_(linear.weight)
    states = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]])
    picked = attend(torch.tensor([[[math.sqrt(2.0), 0.0]]]), states, torch.tensor([[True, True, False]]))[0]
    # Scores 1 and 0; the third event is masked.
    first = math.e / (math.e + 1)
    torch.testing.assert_close(picked, torch.tensor([[[first, 2 * (1 - first)]]]))


def test_a_candidate_says_where_it_agrees_with_the_history_by_hand():
    """The same attention: weights e / (e + 1) and 1 / (e + 1) on the keys (1, 0) and (0, 2), times the query."""
    attend = SoftFilter(2, 1)
    for linear in (attend.query_projection, attend.key_projection):
        torch.nn.init.eye_(linear.weight)
    torch.nn.init.zeros_(attend.value_projection.weight)
    states = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]])
    candidates = torch.tensor([[[math.sqrt(2.0), 0.0], [0.0, 0.0]]])
    agreed = attend(candidates, states, torch.tensor([[True, True, False]]))[1]
    torch.testing.assert_close(agreed, torch.tensor([[[math.sqrt(2.0) * math.e / (math.e + 1), 0.0], [0.0, 0.0]]]))


@pytest.mark.parametrize(
    ("request_", "layers"),
    [
        (Request(history=HISTORY), ["agreement_to_prompt"]),
        (Request(history=HISTORY, query="garden tools"), ["agreement_to_prompt", "wanted_agreement_to_prompt"]),
    ],
)
def test_agreement_is_part_of_the_filtered_vector(aisles, request_, layers):
    model, processor = make_gensr(aisles, filtered_history="agreement")
    inputs = processor([request_], candidates=[["i3", "i9", "i20"]])
    before = model.score_candidates(inputs)[0]
    for layer in layers:
        torch.nn.init.zeros_(getattr(model.history_views["semantic"], layer).weight)
        after = model.score_candidates(inputs)[0]
        assert np.abs(before - after).max() > 1e-5, layer
        before = after
    model.history_views["semantic"].agreement_to_prompt = None
    # Without a query there is nothing else to agree with.
    model.history_views["semantic"].wanted_agreement_to_prompt = None
    np.testing.assert_allclose(model.score_candidates(inputs)[0], before, atol=1e-6)


def test_candidates_agree_with_the_query_by_hand():
    attend = SoftFilter(2, 1)
    torch.nn.init.eye_(attend.query_projection.weight)
    attend.key_projection.weight.data = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    agreed = attend.compare(torch.tensor([[[3.0, 5.0], [0.0, 1.0]]]), torch.tensor([[1.0, -1.0]]))
    # The key is (2, -1).
    torch.testing.assert_close(agreed, torch.tensor([[[6.0, -5.0], [0.0, -1.0]]]))


def test_the_contrast_is_equation_10_by_hand():
    """Two users, cosines 1 and 0 within the first view, temperature 0.5."""
    first, second = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[5.0, 0.0], [1.0, 1.0]])
    # sim[u, v] of first u and second v: [[1, 1/sqrt 2], [0, 1/sqrt 2]].
    a, b = 2.0, 2 / math.sqrt(2)  # 1 / 0.5 and (1 / sqrt 2) / 0.5
    of_first = a - math.log((math.exp(a) + math.exp(b)) + (math.exp(a) + math.exp(0)))
    of_second = b - math.log((math.exp(0) + math.exp(b)) + (math.exp(b) + math.exp(b)))
    expected = -(of_first + of_second) / 2
    assert view_contrast(first, second, 0.5).item() == pytest.approx(expected, abs=1e-6)
    # A cosine does not know lengths.
    assert view_contrast(7 * first, second, 0.5).item() == pytest.approx(expected, abs=1e-6)


def test_pooled_tokens_keep_the_length_of_one():
    embedding = torch.nn.Embedding.from_pretrained(torch.tensor([[9.0, 9.0], [3.0, 0.0], [3.0, 4.0]]))
    texts = torch.tensor([[1, 2, -1, -1], [-1, -1, -1, -1]])
    # (3 + 3, 0 + 4) over the root of two tokens; nothing for an empty text.
    torch.testing.assert_close(pool_tokens(embedding, texts), torch.tensor([[6.0, 4.0], [0.0, 0.0]]) / math.sqrt(2))


def test_a_history_is_read_by_order_behavior_and_query(aisles):
    model, processor = make_gensr(aisles)
    first, search, last = HISTORY
    candidates = [["i3", "i9", "i20"]]

    def scores(history, **settings):
        return model.score_candidates(processor([Request(history)], candidates=candidates))[0]

    plain = scores(HISTORY)
    swapped = [type(first)(last.item_id, timestamp=1), search, type(first)(first.item_id, timestamp=3)]
    other_query = [first, type(search)("i9", "search", timestamp=2, query="garden"), last]
    no_query = [first, type(search)("i9", timestamp=2), last]
    for history in (swapped, other_query, no_query, HISTORY[:2], []):
        assert not np.allclose(scores(history), plain, atol=1e-4)


# ---- prompts ----


def read(processor, layout):
    return [
        processor.tokenizer.convert_ids_to_tokens(number) if number >= 0 else number
        for number in layout.tolist()
        if number != -1
    ]


def test_prompts_hold_text_and_four_vectors_in_the_order_of_equation_9(aisles):
    _, processor = make_gensr(aisles, wording="short", identifier_weight=0.0)
    features = processor(REQUESTS, candidates=CANDIDATES)
    assert "".join(read(processor, features["prompt_layout"][0])).replace("\u2581", " ") == " recommend"
    assert "".join(read(processor, features["prompt_layout"][1])).replace("\u2581", " ") == " search garden"
    # C_u, S_u, e of the candidate, s of the candidate.
    assert read(processor, features["suffix_layout"][0]) == [-2, -3, -4, -5]
    assert "retrieval_layout" not in features
    assert features["candidate_rows"].tolist()[1] == [1, -1, -1, -1]
    # Every item stands once, whoever names it.
    assert len(set(features["item_rows"].tolist())) == len(features["item_rows"])


def test_every_event_enters_the_prompt_that_asks_for_an_identifier(aisles):
    _, processor = make_gensr(aisles, wording="short")
    layout = processor(REQUESTS)["retrieval_layout"]
    # Three events: places 1..3 of the collaborative bank, then of the semantic one, which begins at 4.
    assert read(processor, layout[0])[-6:] == [-3, -4, -5, -7, -8, -9]
    assert all(isinstance(piece, str) for piece in read(processor, layout[2]))  # no history
    assert layout[2, 0] == -1  # padded on the left


def test_the_query_can_stand_as_the_last_event(aisles):
    _, processor = make_gensr(aisles, query_as_event=True)
    features = processor(REQUESTS)
    assert features["history_mask"].sum(1).tolist() == [3, 2, 0, 4]
    assert features["history_items"][1, 1] == -1 and features["history_queries"][1, 1] >= 0
    assert features["history_behaviors"][1].tolist()[:2] == [0, 1]


def test_long_histories_keep_their_end(aisles):
    _, processor = make_gensr(aisles, max_history=2)
    features = processor([Request(HISTORY)])
    assert features["item_rows"][features["history_items"][0]].tolist() == [9, 1]


def test_the_answers_are_pieces_of_their_own_in_any_tokenizer():
    words = ["".join(letters) for letters in itertools.product("abcdefgh", repeat=3)]
    tokenizer = train_tokenizer(tokenizer_texts(words), 200)
    assert [len(tokens) for tokens in encode_text(tokenizer, ["Yes", "No"])] == [1, 1]


def test_item_texts_put_special_categories_first():
    items = pa.table(
        {
            "title": ["Red kite", None],
            "description": [None, "It flies."],
            "categories": [[["Toys", "Outdoor", "Kites"], ["Toys", "Gifts"]], None],
        }
    )
    assert describe_items(items, ("categories", "title")) == ["Kites Outdoor Toys Gifts Red kite", ""]
    assert describe_items(items, ("title", "description")) == ["Red kite", "It flies."]


# ---- sharing ----


@torch.no_grad()
def test_scores_equal_a_prompt_for_each_candidate(gensr):
    """100 prompts run one by one: the straightforward way."""
    model, processor = gensr
    together = model.score_candidates(processor(REQUESTS, candidates=CANDIDATES))
    for request, line, scores in zip(REQUESTS, CANDIDATES, together, strict=True):
        alone = [model.score_candidates(processor([request], candidates=[[one]]))[0][0] for one in line]
        np.testing.assert_allclose(scores, alone, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("way", [{}, SHARED])
@pytest.mark.parametrize("positions", [1, 10, 40])
def test_many_candidates_are_scored_in_blocks(aisles, monkeypatch, way, positions):
    from seekrec.models.gensr import modeling_gensr

    model, processor = make_gensr(aisles, **way)
    inputs = processor([*REQUESTS, REQUESTS[0]], candidates=[*CANDIDATES, []])
    expected = model.score_candidates(inputs)
    assert [len(scores) for scores in expected] == [3, 1, 4, 2, 0]
    monkeypatch.setattr(modeling_gensr, "_MAX_POSITIONS", positions)
    for one, other in zip(expected, model.score_candidates(inputs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


# ---- answers ----


@torch.no_grad()
def test_scores_are_yes_minus_no(aisles):
    model, processor = make_gensr(aisles)
    inputs = processor(REQUESTS, candidates=CANDIDATES)
    logits = model(**inputs).candidate_logits
    scores = model.score_candidates(inputs)
    probabilities = model.score_candidates(inputs, "probability")
    vocabulary = model.score_candidates(inputs, "vocabulary")
    for row, line in enumerate(CANDIDATES):
        np.testing.assert_allclose(scores[row], logits[row, : len(line)], atol=1e-4)
        np.testing.assert_allclose(probabilities[row], 1 / (1 + np.exp(-scores[row])), atol=1e-5)
        # Among all tokens Yes gets less than among two.
        assert (vocabulary[row] < probabilities[row]).all()
    ranked = model.rank(inputs, score="probability")
    assert [item.item_id for item in ranked[0]] == [CANDIDATES[0][place] for place in np.argsort(-scores[0])]
    assert 0 < ranked[0][0].score < 1
    assert ranked[1][0].title == "garden thing 1"


@torch.no_grad()
def test_retrieve_equals_brute_force(gensr):
    model, processor = gensr
    ids = model.catalog.id_map.ids
    answers = model.retrieve(processor(REQUESTS), top_k=5, num_beams=NUM_ITEMS, exclude_seen=False)
    for request, answer in zip(REQUESTS, answers, strict=True):
        asked = model._prompt(model.current_snapshot(), processor([request]))
        prompt, views = asked.decoding, asked.views
        offsets = model.vocabulary.level_offsets[views[0]]
        scores = []
        for codes in model.catalog.codes[views[0]]:
            tokens = torch.from_numpy(codes + offsets)[None]
            logits = model(
                encoder_outputs=prompt["encoder_outputs"],
                attention_mask=prompt["attention_mask"],
                decoder_input_ids=torch.cat([prompt["decoder_prefix"], tokens[:, :-1]], dim=1),
            ).logits[0]
            total = 0.0
            for line, offset, code in zip(logits, offsets.tolist(), codes.tolist(), strict=True):
                others = slice(offset, offset + CODEBOOK_SIZE) if model.config.loss_norm == "level" else slice(None)
                total += (line[offset + code] - line[others].logsumexp(-1)).item()
            scores.append(total)
        best = np.argsort(-np.array(scores))[:5]
        assert [item.item_id for item in answer] == [ids[row] for row in best]
        np.testing.assert_allclose([item.score for item in answer], np.array(scores)[best], atol=1e-4)


@torch.no_grad()
def test_generate_with_the_trie_processor_gives_the_same_items(aisles):
    model, processor = make_gensr(aisles)
    inputs = processor([Request(HISTORY)])
    asked = model._prompt(model.current_snapshot(), inputs)
    prompt, views = asked.decoding, asked.views
    offsets = model.vocabulary.level_offsets[views[0]]
    written = model.generate(
        encoder_outputs=prompt["encoder_outputs"],
        attention_mask=prompt["attention_mask"],
        decoder_input_ids=prompt["decoder_prefix"],
        decoder_start_token_id=int(prompt["decoder_prefix"][0, 0]),
        num_beams=6,
        num_return_sequences=6,
        max_new_tokens=2,
        eos_token_id=None,
        length_penalty=0.0,
        do_sample=False,
        logits_processor=LogitsProcessorList([TrieLogitsProcessor(model.trie(views[0]), offsets, 1)]),
    )
    by_code = {tuple(code): row for row, code in enumerate(model.catalog.codes[views[0]].tolist())}
    found = [f"i{by_code[tuple(code)]}" for code in (written[:, -2:].numpy() - offsets).tolist()]
    assert found == [
        item.item_id for item in model.retrieve(inputs, top_k=6, num_beams=6, norm="vocab", exclude_seen=False)[0]
    ]


@torch.no_grad()
def test_a_model_without_yes_and_no_ranks_by_identifiers(aisles):
    model, processor = make_gensr(aisles, yes_no_loss="none", contrast_weight=0.0)
    ranked = model.rank(processor(REQUESTS[:1], candidates=[["i3", "i9"]]))[0]
    found = {
        item.item_id: item.score
        for item in model.retrieve(processor(REQUESTS[:1]), top_k=NUM_ITEMS, exclude_seen=False)[0]
    }
    assert [item.score for item in ranked] == pytest.approx([found[item.item_id] for item in ranked], abs=1e-4)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_retrieve_can_ask_about_every_item(aisles, weight):
    model, processor = make_gensr(aisles, retrieve_by="answer", identifier_weight=weight, **SHARED)
    ids = list(model.catalog.id_map.ids)
    found = model.retrieve(
        processor(REQUESTS), top_k=[1, 5, 30, 3], where=[None, None, None, ["i3", "i9"]], exclude_seen=False
    )
    ordered = model.rank(processor(REQUESTS, candidates=[ids] * len(REQUESTS)))
    expected = [
        ordered[0][:1],
        ordered[1][:5],
        ordered[2],
        [item for item in ordered[3] if item.item_id in ("i3", "i9")],
    ]
    for answer, best in zip(found, expected, strict=True):
        assert [item.item_id for item in answer] == [item.item_id for item in best]
        np.testing.assert_allclose([item.score for item in answer], [item.score for item in best], atol=1e-5)
    named = processor(REQUESTS, candidates=CANDIDATES)
    assert len(named["item_rows"]) < NUM_ITEMS
    with pytest.raises(RequestError, match="The inputs contain no texts of the catalogue's items"):
        model.retrieve(named, exclude_seen=False)


def test_answers_order_what_views_find(aisles, tmp_path, monkeypatch):
    """Of each request the five items with most from views and boost, and the new one, by that and the answer."""
    monkeypatch.setattr("seekrec.models.gensr.modeling_gensr.NUM_VIEWED", 5)
    model, processor = make_gensr(aisles, identifier_weight=0.0, **FINDING)
    requests = [Request(HISTORY, query="garden"), Request(HISTORY[:2]), Request(HISTORY[:1], query="tools")]
    before = model.retrieve(processor(requests), top_k=3)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    catalog = grow(model.catalog, "garden thing", 1)
    model.set_catalog(catalog)
    processor.set_catalog(catalog)
    inputs = processor(requests)
    assert len(inputs["item_rows"]) < len(catalog) == len(inputs["catalog_text_ids"])
    ids, all_rows = np.array(catalog.id_map.ids), [np.arange(len(catalog))] * 3
    own = model.score_items(inputs, all_rows)
    whole = model.rank(processor(requests, candidates=[ids.tolist()] * 3))
    boost = np.random.default_rng(0).normal(size=(3, len(catalog))).astype(np.float32)
    seen = {event.item_id for event in HISTORY[:2] if event.item_id}
    some = ids[::2].tolist()
    for number, answer in enumerate(
        model.retrieve(inputs, top_k=[3, 3, 9], where=[None, None, some], boost=boost, exclude_seen=None)
    ):
        total = {item.item_id: item.score for item in whole[number]}
        total = np.array([total[one] for one in ids]) + boost[number]
        first = total - own[number]
        allowed = np.isin(ids, some) if number == 2 else ~np.isin(ids, list(seen)) if number == 1 else ids != ""
        # More wanted than views find: they find as many.
        found = [row for row in np.argsort(-first, kind="stable") if allowed[row]][: 9 if number == 2 else 5]
        found = list({*found, NUM_ITEMS})  # one in 25 items is new, and one of up to 25 asked about
        best = sorted(found, key=lambda row: -total[row])[: 9 if number == 2 else 3]
        assert [item.item_id for item in answer] == ids[best].tolist()
        np.testing.assert_allclose([item.score for item in answer], total[best], atol=1e-4)
    assert "new" in [item.item_id for item in model.retrieve(inputs, top_k=5, boost={"new": 9.0})[0]]
    # Saved and loaded, it answers as before it grew.
    loaded, own_processor = AutoModel.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    for answer, expected in zip(loaded.retrieve(own_processor(requests), top_k=3), before, strict=True):
        assert [item.item_id for item in answer] == [item.item_id for item in expected]
        assert [item.score for item in answer] == pytest.approx([item.score for item in expected], abs=1e-5)


def test_the_best_new_items_are_asked_about_whatever_views_say_of_others(aisles, monkeypatch):
    """Of so many candidates as large a share as of all items: ceil(9 * 4 / 28) = 2 of 4 among 28."""
    monkeypatch.setattr("seekrec.models.gensr.modeling_gensr.NUM_VIEWED", 9)
    weights = ["recommendation.semantic=2", "recommendation.new=-9", "search.lexical=1"]
    model, processor = make_gensr(aisles, **{**FINDING, "view_weights": weights})
    grown = grow(grow(grow(grow(model.catalog, "a", 0), "b", 1), "c", 2), "d", 3)
    ids = [*model.catalog.id_map.ids, "n0", "n1", "n2", "n3"]
    grown = dataclasses.replace(grown, items=grown.items.set_column(0, "item_id", pa.array(ids)))
    grown = grown.remove_items(["i20", "i21"])
    grown.__dict__["identifier_hash"] = model.catalog.identifier_hash
    model.set_catalog(grown)
    processor.set_catalog(grown)
    asked: list[np.ndarray] = []
    ask = model._ask
    monkeypatch.setattr(model, "_ask", lambda *given: asked.extend(given[2]) or ask(*given))
    inputs = processor([Request(HISTORY), Request(HISTORY)])
    where = [None, [one for one in ids if one not in ("n1", "i20", "i21")]]
    answers = model.retrieve(inputs, top_k=5, where=where, exclude_seen=False, boost={"n2": -50.0})
    views = model.catalog_views(model.current_snapshot(), model.views)
    parts = views.added(model.view_requests(inputs, [0, 0]), model.view_weights, 1.0)
    sums = AddedScores(parts, 2, 28, model.device).numbers().numpy() - 50.0 * (np.arange(28) == 26)
    for rows, line, answer, left_out in zip(asked, sums, answers, ([20, 21], [20, 21, 25]), strict=True):
        line[left_out] = -np.inf
        known = np.argsort(-line[:24])[:9].tolist()
        new = (24 + np.argsort(-line[24:])[:2]).tolist()
        assert sorted(rows.tolist()) == sorted(known + new)
        scores = ask(model.current_snapshot(), processor(Request(HISTORY)), [rows])[0] + line[rows]
        best = rows[np.argsort(-scores)][:5]
        assert [item.item_id for item in answer] == [ids[row] for row in best]


def test_without_views_that_count_nothing_is_found(aisles):
    model, processor = make_gensr(aisles, **{**FINDING, "view_weights": ["search.lexical=1"]})
    inputs = processor(REQUESTS)
    with pytest.raises(RequestError, match=r"has a weight in recommendation \(`view_weights` is \['search.lex"):
        model.retrieve(inputs, exclude_seen=False)
    model.set_views(None)
    with pytest.raises(RequestError, match="has a weight in recommendation or search .* call `rank`"):
        model.retrieve(inputs, exclude_seen=False, boost={"i3": 1.0})
    assert model.rank(processor(REQUESTS, candidates=CANDIDATES))


def test_what_a_model_was_not_trained_for_is_refused(aisles):
    model, processor = make_gensr(aisles, identifier_weight=0.0, loss_norm="level")
    with pytest.raises(RequestError, match="not trained to write identifiers"):
        model.retrieve(processor(REQUESTS), exclude_seen=False)
    inputs = processor(REQUESTS, candidates=CANDIDATES)
    with pytest.raises(RequestError, match="`score` is 'rank'; use 'logit', 'probability' or 'vocabulary'"):
        model.rank(inputs, score="rank")
    with pytest.raises(RequestError, match="compares Yes and No alone"):
        model.rank(inputs, score="vocabulary")
    with pytest.raises(CatalogError, match="its model writes no identifiers"):
        _ = processor.vocabulary


def test_batches_that_lack_features_are_refused(aisles):
    model, processor = make_gensr(aisles)
    inputs = dict(processor(REQUESTS, candidates=CANDIDATES))
    with pytest.raises(RequestError, match="The batch has no 'item_text_ids', 'query_text_ids', .*'asked_queries'"):
        model(item_rows=inputs["item_rows"])
    with pytest.raises(RequestError, match="The batch has no 'candidate_items'; make it with the model's processor"):
        model.score_candidates(processor(REQUESTS))
    del inputs["suffix_layout"]
    with pytest.raises(RequestError, match="The batch has no 'suffix_layout'"):
        model(**inputs)


# ---- losses ----


@torch.no_grad()
@pytest.mark.parametrize("loss_norm", ["vocab", "level"])
def test_the_loss_is_equations_11_and_12(aisles, loss_norm):
    model, processor = make_gensr(aisles, loss_norm=loss_norm, contrast_weight=0.3, identifier_weight=0.5)
    batch = training_batch(aisles, processor)
    output = model(**batch)
    features = {name: batch[name] for name in batch if not name.startswith(("candidate", "identifier", "user"))}
    histories = model.encode_histories(features)
    logits = model.candidate_logits(
        histories, features["prompt_layout"], features["suffix_layout"], batch["candidate_items"]
    ).double()
    if loss_norm == "level":
        yes = logits.log_softmax(-1)[..., 1]
        no = logits.log_softmax(-1)[..., 0]
    else:
        yes = logits.log_softmax(-1)[..., model.config.yes_token_id]
        no = logits.log_softmax(-1)[..., model.config.no_token_id]
    # One positive, three negatives a request.
    assert batch["candidate_labels"].tolist() == [[1, 0, 0, 0]] * len(batch["candidate_labels"])
    expected = -(yes[:, 0].sum() + no[:, 1:].sum()) / yes.numel()
    assert output.yes_no_loss.item() == pytest.approx(expected.item(), abs=1e-5)
    total = output.yes_no_loss + 0.5 * output.identifier_loss + 0.3 * output.contrast_loss
    assert output.loss.item() == pytest.approx(total.item(), abs=1e-6)


@torch.no_grad()
def test_the_listwise_loss_is_a_softmax_over_the_candidates(aisles):
    model, processor = make_gensr(aisles, yes_no_loss="listwise", **SHARED)
    batch = training_batch(aisles, processor)
    output = model(**batch)
    expected = F.cross_entropy(output.candidate_logits, torch.zeros(len(output.candidate_logits), dtype=torch.long))
    assert output.yes_no_loss.item() == pytest.approx(expected.item(), abs=1e-5)


@torch.no_grad()
def test_the_contrast_leaves_out_empty_histories_and_users_that_are_the_same(aisles):
    model, processor = make_gensr(aisles)
    batch = training_batch(aisles, processor)
    loss = model(**batch).contrast_loss
    has_history = batch["history_mask"].any(1)
    assert 0 < has_history.sum() < len(has_history)
    alone = {**batch, "user_ids": torch.zeros_like(batch["user_ids"])}
    # Nobody else in the batch: the pair against itself, twice, log 2.
    assert model(**alone).contrast_loss.item() == pytest.approx(math.log(2), abs=1e-5)
    assert loss > math.log(2)


@pytest.mark.parametrize(
    "way",
    [
        {"shared_prompt": True, "history_in_prompt": "both", "query_as_event": True, "yes_no_loss": "listwise"},
        {"shared_prompt": True, "filtered_history": "agreement"},
    ],
)
def test_training_moves_every_parameter_and_lowers_the_loss(aisles, way):
    model, processor = make_gensr(aisles, **way, wording="short", loss_norm="level")
    batch = training_batch(aisles, processor)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    table = model.collaborative_table.weight.detach().clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    model.train()
    for _ in range(20):
        loss = model(**batch).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.75 * losses[0]
    unmoved = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    assert unmoved == []
    assert torch.equal(model.collaborative_table.weight, table)


# ---- the recommender behind the table ----

RECOMMENDER = {"hidden_size": 6, "max_history": 5, "num_hidden_layers": 1, "intermediate_size": 12}


def make_recommender(**changes):
    torch.manual_seed(5)
    settings = {**RECOMMENDER, "num_items": NUM_ITEMS, "initializer_range": 0.5, **changes}
    return SASRecForNextItem(SASRecConfig(**settings)).eval()


def test_a_recommender_says_what_it_expects_after_the_history(aisles):
    """Its state times its item embeddings are its own scores, as SASRec computes them by itself."""
    model, processor = make_gensr(aisles, filtered_history="recommender", recommender=RECOMMENDER, query_as_event=True)
    sasrec = make_recommender()
    model.set_recommender(sasrec)
    # The query at the end has no item; the last request has no history at all.
    requests = [Request(history=HISTORY), Request(history=HISTORY[:2], query="garden tools"), Request(history=())]
    inputs = processor(requests, candidates=[["i3"]] * 3)
    with torch.no_grad():
        histories = model.encode_histories(inputs)
    table = model.collaborative_table.weight * model.config.table_scale
    rows = model.catalog.id_map.convert_to_rows([event.item_id for event in HISTORY if event.item_id is not None])
    lengths = [sum(event.item_id is not None for event in request.history[-4:]) for request in requests]
    assert lengths[0] > lengths[1] > lengths[2] == 0
    expected = sasrec.score([rows[len(rows) - lengths[0] :], rows[: lengths[1]], rows[:0]])
    torch.testing.assert_close(histories.wanted["collaborative"] @ table.T, expected, atol=1e-5, rtol=1e-5)


def test_the_recommender_is_heard_saved_and_frozen(aisles, tmp_path):
    model, processor = make_gensr(aisles, filtered_history="recommender", recommender=RECOMMENDER, wording="short")
    model.set_recommender(make_recommender())
    inputs = processor([Request(history=HISTORY)], candidates=[["i3", "i9", "i20"]])
    before = model.score_candidates(inputs)[0]
    model.save_pretrained(tmp_path)
    np.testing.assert_allclose(AutoModel.from_pretrained(tmp_path).score_candidates(inputs)[0], before, atol=1e-6)
    frozen = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("recommender.")}
    assert len(frozen) > 10
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    model.train()
    model(**training_batch(aisles, processor)).loss.backward()
    optimizer.step()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in frozen.items())
    model.eval()
    model.set_recommender(make_recommender(initializer_range=0.2))
    table = model.collaborative_table.weight.clone()
    after = model.score_candidates(inputs)[0]
    torch.nn.init.zeros_(model.recommender.norm.weight)
    assert torch.equal(model.collaborative_table.weight, table)
    assert np.abs(model.score_candidates(inputs)[0] - after).max() > 1e-5


def test_a_recommender_that_does_not_fit_is_refused(aisles):
    model, _ = make_gensr(aisles, filtered_history="recommender", recommender=RECOMMENDER)
    table = model.collaborative_table.weight.clone()
    with pytest.raises(ValueError, match="`recommender` has the sizes .* make it with the recommender's own"):
        model.set_recommender(make_recommender(num_hidden_layers=2))
    assert torch.equal(model.collaborative_table.weight, table)
    with pytest.raises(ValueError, match="`config.recommender` is None"):
        make_gensr(aisles)[0].set_recommender(make_recommender())


# ---- catalogue and checkpoints ----


def test_the_table_is_scaled_and_saved(aisles, tmp_path):
    model, _ = make_gensr(aisles)
    model.set_collaborative_table(100 * np.arange(NUM_ITEMS * 6, dtype=np.float32).reshape(NUM_ITEMS, 6))
    table = model.collaborative_table.weight
    assert table.square().mean().item() == pytest.approx(1.0, abs=1e-5)
    model.save_pretrained(tmp_path)
    assert torch.equal(AutoModel.from_pretrained(tmp_path).collaborative_table.weight, table)
    with pytest.raises(ValueError, match=r"`vectors` has shape \(24, 5\)"):
        model.set_collaborative_table(np.zeros((NUM_ITEMS, 5), dtype=np.float32))


def test_a_new_item_gets_its_collaborative_vector_from_its_text(aisles):
    """The table is a linear map of the semantic embeddings, so the ridge regression finds it again."""
    import dataclasses

    model, processor = make_gensr(aisles)
    generator = np.random.default_rng(0)
    semantic = generator.normal(size=(NUM_ITEMS + 1, 4)).astype(np.float32)
    mapping = generator.normal(size=(4, 6)).astype(np.float32)
    model.set_collaborative_table(semantic[:NUM_ITEMS] @ mapping)
    scale = model.collaborative_table.weight[0, 0].item() / (semantic[0] @ mapping)[0]
    old = model.catalog
    items = pa.concat_tables([old.items, old.items.slice(0, 1).set_column(0, "item_id", pa.array(["new"]))])
    grown = dataclasses.replace(
        old,
        items=items,
        codes={view: np.concatenate([codes, [[3, 0]]]) for view, codes in old.codes.items()},
        embeddings={"semantic": semantic},
        is_removed=np.zeros(NUM_ITEMS + 1, bool),
        is_predicted=np.zeros(NUM_ITEMS + 1, bool),
    )
    model.config.identifier_hash = grown.identifier_hash
    model.set_catalog(grown)
    processor.set_catalog(grown)
    table = model.collaborative_table
    np.testing.assert_allclose(table(torch.tensor([NUM_ITEMS]))[0], semantic[-1] @ mapping * scale, atol=1e-2)
    # What was learned stays what it was, so the way back to the old catalogue is open.
    assert len(table.weight) == model.config.num_items == NUM_ITEMS
    with pytest.raises(CatalogError, match="1 new items, but no semantic embeddings"):
        make_gensr(aisles)[0].set_catalog(dataclasses.replace(grown, embeddings={}, codes=old.codes))
    assert model.rank(processor(Request(HISTORY), candidates=[["new", "i1"]]))[0][1].score < 1e6
    assert (
        model.retrieve(processor(Request(HISTORY)), top_k=1, where=["new"], exclude_seen=False)[0][0].item_id == "new"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt_views": ["visual"]}, "'prompt_views'"),
        ({"prompt_views": []}, "use 'collaborative', 'semantic' or both"),
        ({"prompt_views": ["semantic"]}, "the contrastive loss aligns two views"),
        ({"collaborative_size": 7}, "`collaborative_size` is 7; it must be a multiple of 2"),
        ({"item_text_fields": ["price"]}, "'item_text_fields'"),
        ({"item_text_fields": []}, "`item_text_fields` is empty"),
        ({"max_history": 0}, "`max_history` is 0"),
        ({"recommender": {"hidden_size": 64, "max_history": 50}}, "but `filtered_history` is 'picked'"),
        (
            {"filtered_history": "recommender", "prompt_views": ["semantic"], "contrast_weight": 0.0},
            "needs the collaborative view",
        ),
        (
            {"filtered_history": "recommender", "recommender": {"hidden_size": 8, "max_history": 50}},
            "`recommender` has `hidden_size` 8, but `collaborative_size` is 64",
        ),
        (
            {"filtered_history": "recommender", "recommender": {"hidden_size": 64, "max_history": 20}},
            "`recommender` has `max_history` 20, but has to read 20 events and a start",
        ),
        ({"contrast_weight": -1.0}, "`contrast_weight` is -1.0"),
        ({"yes_no_loss": "none"}, "`identifier_weight` 0; train at least one mode"),
        ({"yes_no_loss": "none", "identifier_weight": 1.0, "retrieve_by": "answer"}, "cannot score candidates"),
        ({"yes_no_loss": "none", "identifier_weight": 1.0, "retrieve_by": "views"}, "cannot score candidates"),
        ({"retrieve_by": "views"}, "`retrieve_by` is 'views', but `view_weights` is empty; write 'validation'"),
        ({"contrast_temperature": 0.0}, "`contrast_temperature` is 0.0"),
        ({"yes_token_id": 5, "no_token_id": 5}, "they must differ"),
        ({"num_shared_levels": 0, "num_specific_levels": 0, "identifier_weight": 1.0}, "at least one level"),
        ({"identifier_hash": "x", "vocab_size": 100, "identifier_weight": 1.0}, "resize the token"),
    ],
)
def test_contradicting_settings_are_refused(settings, message):
    with pytest.raises(Exception, match=message) as caught:
        GenSRConfig(**{"yes_token_id": 3, "no_token_id": 4, "first_identifier_token_id": 5, **settings})
    assert "Strict" in type(caught.value).__name__


@pytest.mark.parametrize(
    ("switches", "mode"),
    [
        ({"soft_filter": False, "agreement_in_prompt": False}, "mean"),
        ({"soft_filter": True, "agreement_in_prompt": False}, "picked"),
        ({"soft_filter": True, "agreement_in_prompt": True}, "agreement"),
        ({"soft_filter": True, "agreement_in_prompt": True, "recommender": RECOMMENDER}, "recommender"),
    ],
)
def test_a_checkpoint_of_an_older_version_answers_as_it_did(aisles, tmp_path, switches, mode):
    settings = {"recommender": RECOMMENDER} if mode == "recommender" else {}
    model, processor = make_gensr(aisles, filtered_history=mode, **settings)
    inputs = processor(REQUESTS, candidates=CANDIDATES)
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    old = json.loads(path.read_text())
    assert old.pop("filtered_history") == mode
    old |= {**switches, "view_num_heads": 2, "view_positions": 32, "train_collaborative_table": False}
    old["yes_no_weight"] = 0.5
    path.write_text(json.dumps(old))
    (tmp_path / "model_manifest.json").unlink()
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.config.filtered_history == mode and not hasattr(loaded.config, "soft_filter")
    assert loaded.config.yes_no_loss == "token" and not hasattr(loaded.config, "yes_no_weight")
    for one, other in zip(model.score_candidates(inputs), loaded.score_candidates(inputs), strict=True):
        np.testing.assert_array_equal(one, other)
    path.write_text(json.dumps({**old, "yes_no_weight": 0.0, "identifier_weight": 1.0}))
    assert not AutoModel.from_pretrained(tmp_path).config.scores_candidates
    path.write_text(json.dumps({**old, "view_num_heads": 4}))
    with pytest.raises(Exception, match="The checkpoint's `view_num_heads` is not 2"):
        AutoModel.from_pretrained(tmp_path)


def test_a_processor_of_an_older_version_writes_as_it_did(aisles, tmp_path):
    _, processor = make_gensr(aisles, query_as_event=True, wording="short", history_in_prompt="both")
    expected = processor(REQUESTS, candidates=CANDIDATES)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved == {
        "processor_class": "GenSRProcessor",
        "unknown": "skip",
        "scores_candidates": True,
        "writes_identifiers": True,
        "wording": "short",
        "prompt_views": ["collaborative", "semantic"],
        "history_in_prompt": "both",
        "query_as_event": True,
        "retrieve_by": "identifier",
        "item_text_fields": ["title"],
        "max_item_tokens": 10,
        "max_query_tokens": 32,
        "max_history": 4,
    }
    loaded = AutoProcessor.from_pretrained(tmp_path)(REQUESTS, candidates=CANDIDATES)
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


class TestFromT5:
    """Starting from a T5 checkpoint, here one of random weights."""

    @pytest.fixture
    def checkpoint(self, tmp_path, aisles):
        torch.manual_seed(3)
        tokenizer = aisles[2]
        config = T5Config(vocab_size=320, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
        config.decoder_start_token_id = 0
        T5(config).save_pretrained(tmp_path / "t5")
        tokenizer.save_pretrained(tmp_path / "t5")
        return str(tmp_path / "t5")

    def make(self, aisles, checkpoint, **settings):
        catalog = aisles[1]
        t5 = T5Arguments(backbone=checkpoint, lora_rank=4)
        config = GenSRConfig(max_history=4, **settings)
        processor = make_gensr_processor({}, catalog, t5, config)
        table = np.random.default_rng(0).normal(size=(NUM_ITEMS, 6)).astype(np.float32)
        return make_gensr_model(catalog, processor, table, t5, config, seed=0), processor, t5

    def test_old_weights_stay_and_views_speak_as_loud_as_tokens(self, checkpoint, aisles):
        old = T5.from_pretrained(checkpoint)
        model, processor, _ = self.make(aisles, checkpoint, identifier_weight=1.0)
        assert model.config.model_type == "gensr" and model.config.scale_decoder_outputs
        first = processor.vocabulary.first_token_id
        assert torch.equal(model.shared.weight[:first], old.shared.weight[:first])
        spread = old.shared.weight[:first].detach().std().item()
        batch = training_batch(aisles, processor)
        histories = model.encode_histories(batch)
        for name, view in model.history_views.items():
            items = histories.items[name][batch["candidate_items"]]
            picked = view.filtered_vectors(items, histories.states[name], histories.mask, histories.wanted.get(name))
            for vectors in (picked, view.item_to_prompt(items) * view.scale.weight):
                assert 0.2 * spread < vectors.detach().std().item() < 5 * spread

    def test_new_weights_start_as_in_a_fresh_model(self, checkpoint, aisles):
        """transformers starts a parent's weights only in modules of its own: ours must hold theirs themselves."""
        model, *_ = self.make(aisles, checkpoint)
        for made in (model, make_gensr(aisles)[0]):
            view = made.history_views["semantic"]
            query, key = view.filter.query_projection.weight, view.filter.key_projection.weight
            assert torch.equal(query, key)
            torch.testing.assert_close(query @ query.T, torch.eye(32), atol=1e-5, rtol=0)
            # 32 inputs: entries of 1 / sqrt 32, a tenth of that where a layer starts close to its input.
            assert view.item_to_prompt.weight.std().item() == pytest.approx(32**-0.5, rel=0.1)
            assert view.encoder.attention_output.weight.std().item() == pytest.approx(0.1 * 32**-0.5, rel=0.1)
            assert view.item_to_prompt.bias.abs().max() == 0

    def test_lora_trains_adapters_views_and_new_rows_only(self, checkpoint, aisles, tmp_path):
        from peft import PeftModel

        model, processor, generator = self.make(aisles, checkpoint, identifier_weight=1.0)
        first = processor.vocabulary.first_token_id
        old = model.shared.weight[:first].detach().clone()
        model.save_pretrained(tmp_path / "base")
        wrapped = add_lora(model, generator.lora_rank)
        trained_names = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
        assert any("history_views" in name for name in trained_names)
        assert all("lora_" in name or "history_views" in name or "token" in name for name in trained_names)
        batch = training_batch(aisles, processor)
        optimizer = torch.optim.Adam([p for p in wrapped.parameters() if p.requires_grad], lr=1e-2)
        losses = []
        for _ in range(4):
            loss = wrapped(**batch).loss
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert losses[-1] < losses[0]
        wrapped.eval().save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
        inputs = processor(REQUESTS, candidates=CANDIDATES)
        trained = wrapped.rank(inputs), wrapped.retrieve(inputs, top_k=3, exclude_seen=False)

        base = AutoModel.from_pretrained(tmp_path / "base")
        merged = PeftModel.from_pretrained(base, tmp_path / "adapter").eval().merge_and_unload()
        assert type(merged) is GenSRForConditionalGeneration
        assert torch.equal(merged.shared.weight[:first], old)
        for before, after in zip(
            trained, (merged.rank(inputs), merged.retrieve(inputs, top_k=3, exclude_seen=False)), strict=True
        ):
            for one, other in zip(before, after, strict=True):
                assert [item.item_id for item in one] == [item.item_id for item in other]
                np.testing.assert_allclose([item.score for item in one], [item.score for item in other], atol=1e-3)

    def test_a_tokenizer_that_cannot_tell_yes_from_no_is_refused(self, checkpoint, aisles, monkeypatch):
        from seekrec.recipes import gensr

        monkeypatch.setattr(gensr, "encode_text", lambda *_, **__: [[7, 8], [7, 9]])
        with pytest.raises(ConfigurationError, match="Yes and No begin with the same token"):
            self.make(aisles, checkpoint)


def test_the_processor_needs_a_catalogue(aisles):
    processor = GenSRProcessor(aisles[2])
    with pytest.raises(CatalogError, match="The processor has no catalogue"):
        processor(REQUESTS)
