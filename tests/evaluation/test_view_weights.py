# SPDX-License-Identifier: Apache-2.0
"""Weights of views that are learned from validation: of one that tells the target, and of one that tells nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from small_shop import (
    AISLES,
    FINDING,
    TEXT_SIZE,
    log_of,
    make_aisles,
    make_dense_catalog,
    make_gensr,
    make_log,
    make_synergen,
)
from transformers import AutoModel

from seekrec.embeddings import SASRecConfig, SASRecForNextItem
from seekrec.errors import ConfigurationError
from seekrec.evaluation import ModelRetriever
from seekrec.evaluation import likely_weights as weighing
from seekrec.evaluation import view_weights as weights_of_views
from seekrec.evaluation.likely_weights import ScoredCases, choose_weights, likely_weights
from seekrec.evaluation.validation import ValidationRanking
from seekrec.evaluation.view_weights import _weigh_new, choose_view_weights
from seekrec.events import split_log
from seekrec.models.views import LEXICAL_CHOICES, Views
from seekrec.schema import Request


class SimpleCases:
    """What is read of cases to deal them out."""

    def __init__(self, target_rows):
        self.target_rows = target_rows

    def __len__(self):
        return len(self.target_rows)

    def take(self, rows):
        return SimpleCases(self.target_rows[rows])


@pytest.fixture(scope="module")
def aisles():
    """As in `small_shop`, but of every second user the validation case is a search."""
    _, *rest = make_aisles()
    lines = [
        (f"u{user}", step, f"i{user % 3 * 8 + (user // 3 + step) % 8}", ("garden", None)[(user + step) % 2])
        for user in range(30)
        for step in range(7)
    ]
    return split_log(log_of(lines, items=make_log().items)), *rest


def looked_at(own, added):
    """Every item for itself alone."""
    return ScoredCases(own, added, np.zeros_like(own))


def test_weights_are_those_that_made_the_targets():
    # Targets are drawn from a softmax of own + 1.5 a; b is noise. The target stands first in each line.
    rng = np.random.default_rng(0)
    own, told, noise = rng.normal(size=(3, 4000, 12)).astype(np.float32)
    scores = own + 1.5 * told + rng.gumbel(size=own.shape)
    target = scores.argmax(1)[:, None]
    order = np.concatenate([target, np.array([np.delete(np.arange(12), one) for one in target[:, 0]])], axis=1)
    parts = [np.take_along_axis(one, order, axis=1) for one in (own, told, noise)]
    parts[0][:, -1] = -np.inf  # padding
    weights = likely_weights(looked_at(parts[0], {"told": parts[1], "noise": parts[2]}), ["told", "noise"])
    assert weights["told"] == pytest.approx(1.5, rel=0.08)
    assert weights["noise"] < 0.08


def test_weights_are_those_of_the_whole_catalogue():
    # As above, of 2,000 items: looked at are the 20 that each part holds best and 100 others, which stand for all.
    rng = np.random.default_rng(3)
    own, told, noise = rng.normal(size=(3, 1500, 2000)).astype(np.float32)
    target = (own + 1.5 * told + rng.gumbel(size=own.shape)).argmax(1)
    lines, counts = [], []
    for case in range(len(own)):
        best = np.concatenate([[target[case]], *(np.argsort(-part[case])[:20] for part in (own, told, noise))])
        found = best[np.sort(np.unique(best, return_index=True)[1])]
        others = np.setdiff1d(rng.integers(2000, size=100), found)
        lines.append(np.concatenate([found, others, np.zeros(161 - len(found) - len(others), np.int64)]))
        counts.append([0.0] * len(found) + [np.log(20)] * len(others) + [-np.inf] * (161 - len(found) - len(others)))
    rows, counts = np.stack(lines), np.array(counts)
    parts = [np.take_along_axis(part, rows, 1) for part in (own, told, noise)]
    added = {"told": parts[1], "noise": parts[2]}
    parts[0][counts == -np.inf] = -np.inf
    weights = likely_weights(ScoredCases(parts[0], added, np.maximum(counts, 0)), ["told", "noise"])
    assert weights["told"] == pytest.approx(1.5, rel=0.08) and weights["noise"] < 0.08
    # What is measured is the rank among those looked at for themselves.
    parts[0][counts > 0] = -np.inf
    alone = looked_at(parts[0], added)
    values = [
        scored.values(weights).tolist() for scored in (alone, ScoredCases(parts[0], added, np.maximum(counts, 0)))
    ]
    assert values[0] == values[1]
    # Without the others, what chose the items is weighed on them.
    assert likely_weights(alone, ["told", "noise"])["told"] > 1.6


def cases_of_two_kinds(seed, number):
    """What is added is right of eight targets in ten, and quite wrong of the others."""
    rng = np.random.default_rng(seed)
    own, told = rng.normal(size=(2, number, 60)).astype(np.float32)
    is_right = rng.random(number) < 0.8
    told[:, 0] += np.where(is_right, 2.5, -4)
    own[:, 0] += 1
    return looked_at(own, {"told": told})


def test_weights_are_moved_to_where_the_first_ten_are_best():
    """The likelihood fears the targets that end last; for the first ten these are lost at a small weight, too."""
    learned, asked = cases_of_two_kinds(0, 1000), cases_of_two_kinds(1, 1000)
    likely = likely_weights(learned, ["told"])
    moved = choose_weights(learned, likely)
    assert moved["told"] >= 1.5 * likely["told"]
    before, after = (asked.values(weights) for weights in (likely, moved))
    assert (after - before).mean() > 2 * (after - before).std() / np.sqrt(len(asked.own))
    # A hundred cases are too few to move them.
    assert choose_weights(learned.take(np.arange(100)), likely) == likely


def test_weights_are_the_mean_of_those_without_a_fifth_of_the_cases(monkeypatch):
    learned = cases_of_two_kinds(0, 400)
    asked = []

    def moved(scored, weights):
        # Of one view 0.02 in the mean, which counts, and of another 0.01, which does not.
        asked.append(set(scored.own[:, 1].tolist()))
        return {"told": 1.0 + len(asked), "seldom": 0.1 * (len(asked) == 2), "hardly": 0.05 * (len(asked) == 3)}

    monkeypatch.setattr(weighing, "move_weights", moved)
    likely = {"told": 9.0, "seldom": 1.0, "hardly": 1.0}
    assert choose_weights(learned, likely) == {"told": 4.0, "seldom": 0.02, "hardly": 0.0}
    # Four fifths of the cases, each left out once.
    whole = set(learned.own[:, 1].tolist())
    assert [len(one) for one in asked] == [320] * 5 and sum(map(len, [whole - one for one in asked])) == 400
    assert set.intersection(*asked) == set()
    assert choose_weights(learned, dict.fromkeys(likely, 0.0)) == dict.fromkeys(likely, 0.0) and len(asked) == 5


def test_beside_a_model_that_knows_nothing_weights_are_finite(caplog):
    # Targets are drawn from a softmax of 2 a, whatever the model says: without a limit its factor falls to 0, and what
    # it divides grows for ever. The limit is 1 / 20.
    rng = np.random.default_rng(1)
    own, told = rng.normal(size=(2, 4000, 12)).astype(np.float32)
    own[:, 0] -= 1.0  # it would rather be wrong
    told[:, 0] += 2.0
    weights = likely_weights(looked_at(own, {"told": told}), ["told"])
    # The log-odds of two normal distributions of deviation 1 whose means are 2 apart: 2, over 0.05.
    assert weights["told"] == pytest.approx(40, rel=0.1)
    assert "barely separate" in caplog.text
    # A few cases, as those by which a model is timed before training, say nothing of it.
    caplog.clear()
    likely_weights(looked_at(own[:120], {"told": told[:120]}), ["told"])
    assert not caplog.records


@pytest.mark.parametrize("unit", [0.05, 1.0, 30.0])
def test_weights_do_not_depend_on_the_unit_of_scores(unit, caplog):
    # A model that knows something, in scores of which `unit` is a log-probability, as what is added to them.
    rng = np.random.default_rng(2)
    own, told = rng.normal(size=(2, 4000, 12)).astype(np.float32)
    own[:, 0] += 1.5
    told[:, 0] += 1.0
    weights = likely_weights(looked_at(own * np.float32(unit), {"told": told * np.float32(unit)}), ["told"], unit=unit)
    # Log-odds of distributions 1.5 and 1 apart: 1 / 1.5 of the model's own.
    assert weights["told"] == pytest.approx(1 / 1.5, rel=0.05)
    assert not caplog.records


@pytest.mark.parametrize("told", [2.0, 0.0])
def test_views_that_find_items_are_weighed_for_the_answers_the_model_gives(aisles, monkeypatch, told):
    """NDCG@10 that is reported is that of `retrieve`, with and without what the views add to the answers."""
    for module in ("evaluation.score_cases", "models.gensr.modeling_gensr"):
        monkeypatch.setattr(f"seekrec.{module}.NUM_VIEWED", 12)
    split, catalog, *_ = aisles
    model, processor = make_gensr(aisles, **{**FINDING, "view_weights": ["validation"]})
    model.set_views(None)
    with torch.no_grad():
        model.lm_head.weight.mul_(told)  # at 0 every answer is alike
    views = Views.fit(split, catalog, SASRecForNextItem(SASRecConfig(num_items=24, hidden_size=8)))
    views = replace(views, query_log=None)
    monkeypatch.setattr("seekrec.models.interface.QueryVectors", lambda _: SimpleNamespace(encode=_vectors))
    found = choose_view_weights(model, processor, split, views, max_cases=40, seed=3)
    assert all(model.view_weights[task] for task in ("search", "recommendation"))
    validation = ValidationRanking(split, catalog, max_cases=40, seed=3)
    values = validation(ModelRetriever(model, processor, num_beams=None))
    for task, own in found.items():
        assert values[f"{task}_ndcg@10"] == pytest.approx(own["ndcg@10 with"], abs=1e-6)
        if not told:
            # All alike: the views alone decide.
            assert own["ndcg@10 with"] > own["ndcg@10 without"]


def _vectors(texts):
    return np.stack([np.resize([len(text), 1.0, -2.0], 5) for text in texts]).astype(np.float32)


def test_views_find_items_for_a_task_that_validation_lacks(caplog):
    model, processor = make_gensr(make_aisles(), **FINDING)
    split = make_aisles()[0]  # its validation cases are recommendations
    found = choose_view_weights(model, processor, split, Views.fit(split, model.catalog), behaviors=["search"])
    assert not found and model.view_weights == {
        "search": {**dict.fromkeys(("item_knn", "lexical", "query_log", "semantic"), 0.02), "unsearched": 1.0}
    }
    assert "No usable search validation example" in caplog.text and model.views.lexical is not None


def test_views_that_find_nothing_for_a_task_are_refused(aisles):
    split, catalog, *_ = aisles
    model, processor = make_gensr(aisles, **FINDING)
    model.set_catalog(replace(catalog, embeddings={"collaborative": catalog.embeddings["collaborative"]}))
    views = replace(Views.fit(split, catalog), item_knn=None)
    with pytest.raises(ConfigurationError, match="there is no view for recommendation"):
        choose_view_weights(model, processor, split, views, behaviors=["recommendation"])


def test_a_few_cases_find_the_words_with_which_all_weigh(monkeypatch, aisles, tmp_path):
    """Of all cases only what is left to choose is scored, and what is reported is what the model answers then."""
    split, (model, processor) = aisles[0], make_synergen()
    monkeypatch.setattr(weights_of_views, "_FEW", 10)
    monkeypatch.setattr(weighing, "_ENOUGH_CASES", 12)
    # The third way to weigh words is best for searches.
    found_with = iter([0.1, 0.2, 0.3, *[0.2] * len(LEXICAL_CHOICES)])
    monkeypatch.setattr(weights_of_views, "_found_with_words", lambda *_: next(found_with))
    passes = []

    def counted(model, processor, cases, asked, **how):
        words = [name for name in asked if name.startswith("lexical")]
        passes.append((cases.behavior, len(cases), len(words), how.get("draws")))
        return score(model, processor, cases, asked, **how)

    score = weights_of_views.score_cases
    monkeypatch.setattr(weights_of_views, "score_cases", counted)
    found = choose_view_weights(model, processor, split, Views.fit(split, model.catalog), max_cases=40)
    # Then a few are asked with new items taken from the catalogue.
    few = [("search", 10, len(LEXICAL_CHOICES), True), ("recommendation", 10, 0, True)]
    assert passes[:4] == [*few, ("search", 15, 1, False), ("recommendation", 30, 0, False)]
    assert len(passes) > 4 and all(number <= 10 for _, number, *_ in passes[4:])
    values = ValidationRanking(split, model.catalog, max_cases=40)(ModelRetriever(model, processor, num_beams=None))
    for task, own in found.items():
        assert values[f"{task}_ndcg@10"] == pytest.approx(own["ndcg@10 with"], abs=1e-6)
    monkeypatch.setattr(weights_of_views, "choose_weights", lambda _, likely: dict.fromkeys(likely, 2.0))
    monkeypatch.setattr(ScoredCases, "values", lambda _, weights: np.array([float(bool(weights))]))
    found_with = iter([0.1, 0.2, 0.3, *[0.2] * len(LEXICAL_CHOICES)])
    choose_view_weights(model, processor, split, Views.fit(split, model.catalog), max_cases=40)
    assert model.views.lexical.settings == LEXICAL_CHOICES[2] and model.views.item_knn.decay == 0.8
    model.save_pretrained(tmp_path)
    again = Views.load(tmp_path / "views")[0]
    assert again.lexical.settings == LEXICAL_CHOICES[2] and again.item_knn.decay == 0.8
    # Files of when there was a choice of neighbours name what was chosen; the neighbours are what they hold.
    saved = tmp_path / "views" / "views.json"
    content = json.loads(saved.read_text(encoding="utf-8"))
    content["parts"]["item_knn"] = {"decay": 0.6, "nearness": "users"}
    saved.write_text(json.dumps(content), encoding="utf-8")
    older = Views.load(tmp_path / "views")[0].item_knn
    assert older.decay == 0.6 and (older.similarities != again.item_knn.similarities).nnz == 0


@pytest.mark.parametrize(
    ("bias", "rounds", "finds_by_views"), [(0.0, 10, False), (-0.8, 10, False), (-0.8, 2, False), (-0.8, 10, True)]
)
def test_being_new_weighs_what_makes_new_items_as_likely_as_others(monkeypatch, bias, rounds, finds_by_views):
    """Everybody is taken for new once, and one case in ten has such a target: cases drawn so tell the weight.

    Of many items, some are; as many cases have such a target.
    """
    if rounds < 10:
        # Two of 24 are new each time.
        monkeypatch.setattr("seekrec.evaluation.view_weights._MANY_PAIRS", 48)
    model, processor = make_synergen()
    catalog, rng = model.catalog, np.random.default_rng(0)
    cases = SimpleCases(rng.integers(0, 24, size=400) ** 2 // 24)
    played, held = [], []

    def score(model, processor, part, asked, by):
        is_new = model.catalog.is_predicted
        # Beside the model's own answers, whoever finds the items.
        assert by == ("views then model" if finds_by_views else "all")
        played.append(np.flatnonzero(is_new))
        held.append(int(is_new[part.target_rows].sum()))
        # The model says `bias` too much of new items; targets are drawn as it says of known ones.
        true = rng.normal(size=(24 * len(part), 24)).astype(np.float32)
        target = (true + rng.gumbel(size=true.shape)).argmax(1)
        order = np.argsort(np.arange(24) != target[:, None], axis=1, kind="stable")
        marks = np.take_along_axis(np.broadcast_to(is_new, true.shape), order, 1).astype(np.float32)
        total = np.take_along_axis(true, order, 1) + bias * marks
        return looked_at(total * 0.3 - 1, {"new": 300 * marks + 1, "sum": np.ones_like(marks)})

    monkeypatch.setattr("seekrec.evaluation.view_weights.score_cases", score)
    monkeypatch.setattr(type(model), "score_unit", property(lambda _: 0.3))
    monkeypatch.setattr(type(model), "finds_by_views", property(lambda _: finds_by_views))
    weight = _weigh_new(model, processor, cases, Views(24), {"lexical": 2.0}, 0)
    assert model.catalog is catalog
    assert len(played) == rounds
    everybody = sorted(np.concatenate(played).tolist())
    assert everybody == list(range(24)) if rounds == 10 else len(set(everybody)) == len(everybody) >= 4
    of_item = np.bincount(cases.target_rows, minlength=24)
    assert held == pytest.approx([of_item[rows].sum() / rounds for rows in played], abs=1)
    # A factor of the model's own says the rest; below 0 no weight is. Of 9,600 lines in which one in ten is new it is
    # known to sqrt(1 / (9600 * 0.1 * 0.9)) = 0.034.
    assert weight == pytest.approx(max(0.0, -bias), abs=0.12)


def test_where_views_find_no_target_being_new_weighs_nothing(monkeypatch):
    model, processor = make_synergen()
    nothing = looked_at(np.zeros((0, 0), np.float32), dict.fromkeys(("new", "sum"), np.zeros((0, 0), np.float32)))
    monkeypatch.setattr("seekrec.evaluation.view_weights.score_cases", lambda *_, **how: nothing)
    monkeypatch.setattr(type(model), "finds_by_views", property(lambda _: True))
    assert _weigh_new(model, processor, SimpleCases(np.arange(24)), Views(24), {"lexical": 2.0}, 0) == 0.0


def test_where_very_many_items_are_new_being_new_is_not_weighed(monkeypatch, caplog):
    # Of 24 items 12 have no event; 12 and a sixth of the other 12 are compared with these: 12 x 14 pairs.
    model, processor = make_synergen()
    is_new = np.arange(24) < 12
    model.set_catalog(replace(model.catalog, is_predicted=is_new))
    cases = SimpleCases(np.arange(12, 24))
    asked = []
    monkeypatch.setattr("seekrec.evaluation.view_weights._ONE_IN", 6)
    nothing = looked_at(np.zeros((0, 0), np.float32), dict.fromkeys(("new", "sum"), np.zeros((0, 0), np.float32)))
    monkeypatch.setattr("seekrec.evaluation.view_weights.score_cases", lambda *_, **how: asked.append(1) or nothing)
    for most, rounds in ((12 * 14, 6), (12 * 14 - 1, 0)):
        asked.clear()
        monkeypatch.setattr("seekrec.evaluation.view_weights._MOST_PAIRS", most)
        with caplog.at_level("INFO", "seekrec"):
            assert _weigh_new(model, processor, cases, Views(24), {"lexical": 2.0}, 0) == 0.0
        assert len(asked) == rounds
    assert caplog.messages == ["`new` has the weight 0: 14 of 24 items are new, too many to weigh."]


def test_a_model_gets_the_views_that_help():
    split = split_log(make_log())
    model, processor = make_synergen()
    views = Views.fit(split, model.catalog, SASRecForNextItem(SASRecConfig(num_items=24, hidden_size=8)))
    assert views.names(make_dense_catalog()) == ["collaborative", "item_knn", "lexical", "query_log", "semantic"]
    found = choose_view_weights(model, processor, split, views, max_cases=40)
    assert all(own["ndcg@10 with"] >= own["ndcg@10 without"] for own in found.values())
    used = {setting.partition("=")[0] for setting in model.config.view_weights}
    named = {
        f"{task}.{view}" for task, own in found.items() for view, weight in own.items() if weight and "@" not in view
    }
    assert used == named | {"search.unsearched"}  # validation has no search


def test_weights_chosen_after_items_were_added_are_saved_and_loaded(tmp_path):
    lines = [
        (f"u{user:02d}", step, f"i{row}", f"{AISLES[user % 3]} thing {row}" if step % 2 == 0 else None)
        for user in range(30)
        for step in range(6)
        for row in [user % 3 * 8 + (user // 3 + step) % 8]
    ]
    log = log_of(lines, items=make_log().items)
    split = split_log(log)
    model, processor = make_synergen(catalog=make_dense_catalog(log))
    views = Views.fit(split, model.catalog, None)
    vectors = np.random.default_rng(0).normal(size=(1, TEXT_SIZE)).astype(np.float32)
    catalog = model.catalog.add_items([{"item_id": "new", "title": "kitchen thing 99"}], semantic_embeddings=vectors)
    model.set_catalog(catalog)
    processor.set_catalog(catalog)
    choose_view_weights(model, processor, split, views)
    assert any(setting.startswith("search.lexical=") for setting in model.config.view_weights)
    assert model.views.lexical.num_items == 24  # new items are read beside it
    model.save_pretrained(tmp_path)
    asked = processor(Request(query="kitchen thing 99"))
    first, again = (
        {item.item_id: item.score for item in one.retrieve(asked, top_k=25)[0]}
        for one in (model, AutoModel.from_pretrained(tmp_path))
    )
    assert "new" in first and again == pytest.approx(first, abs=1e-3)


@pytest.mark.parametrize(("asked", "weight"), [("garden", 1.0), ("xylophone", 0.0)])
def test_words_that_nobody_searched_for_count_unless_validation_speaks_against_them(asked, weight):
    """In validation everybody asks for "xylophone", a word of one item, and means another one; or for nothing new."""
    items = make_log().items
    titles = items["title"].to_pylist()
    titles[23] = "office xylophone"
    items = items.set_column(items.column_names.index("title"), "title", pa.array(titles))
    asks = ["garden", None, "garden", None, asked, "garden"]  # the last one is the test's, the one before validation's
    lines = [
        (f"u{user:02d}", step, f"i{user % 3 * 7 + (user // 3 + step) % 7}", query)
        for user in range(30)
        for step, query in enumerate(asks)
    ]
    split = split_log(log_of(lines, items=items))
    assert {request.query for request in split.requests("validation", "search")} == {asked}
    model, processor = make_synergen(catalog=make_dense_catalog(split.log))
    views = Views.fit(split, model.catalog, None, names=["item_knn", "unsearched"])
    # So sure of the word that its item comes first.
    views = replace(views, unsearched=replace(views.unsearched, weights=1e5 * views.unsearched.weights))
    choose_view_weights(model, processor, split, views, behaviors=["search"])
    assert model.view_weights["search"]["item_knn"] > 0
    assert model.view_weights["search"].get("unsearched", 0.0) == weight
