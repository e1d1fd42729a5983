# SPDX-License-Identifier: Apache-2.0
"""How neighbours are read: of what makes the targets of all tasks likeliest, what answers them best."""

import json

import numpy as np
import pytest
from small_shop import make_dense_catalog, make_log, make_synergen

from seekrec.evaluation import view_choices
from seekrec.evaluation.likely_weights import ScoredCases
from seekrec.evaluation.view_choices import ViewChoices
from seekrec.evaluation.view_weights import choose_view_weights
from seekrec.events import split_log
from seekrec.models.views import LEXICAL_CHOICES, Views

NAMES = {task: ["item_knn"] for task in ("search", "recommendation")}


def cases_of(rng, number, way):
    """Targets are drawn from a softmax of the model's score and 1.5 times what one way says; others are noise."""
    own, *ways = rng.normal(size=(4, number, 12)).astype(np.float32)
    target = (own + 1.5 * ways[way] + rng.gumbel(size=own.shape)).argmax(1)
    order = np.argsort(np.arange(12) != target[:, None], axis=1, kind="stable")
    own, *ways = (np.take_along_axis(part, order, 1) for part in (own, *ways))
    return ScoredCases(own, {f"item_knn {one}": said for one, said in enumerate(ways)}, np.zeros_like(own))


def ways(number, size):
    """So many ways to read neighbours of a catalogue of so many items, which nobody asks what they are."""
    return ViewChoices(Views(size), {}, dict.fromkeys(range(number), Views(size)))


@pytest.mark.parametrize(("searches", "expected"), [(400, 2), (100, 1)])
def test_the_likeliest_way_is_that_of_the_targets_of_all_tasks(searches, expected):
    rng = np.random.default_rng(0)
    scored = {"search": cases_of(rng, searches, 2), "recommendation": cases_of(rng, 200, 1)}
    for asked, first in ((scored, expected), ({"search": scored["search"]}, 2)):
        likeliest = ways(3, 12).likeliest_neighbors(asked, NAMES, None, 1.0)
        assert likeliest[0] == first and sorted(likeliest) == [0, 1, 2]
        assert ways(3, 12).narrow(None, likeliest).best_neighbors(asked, asked, NAMES, None, 1.0) == first


def test_of_the_likeliest_ways_it_is_the_one_with_the_best_answers(monkeypatch):
    """The first way is quite right of eight targets in ten and wrong of others, the second a little right of all."""
    rng = np.random.default_rng(0)
    own, sure, careful = rng.normal(size=(3, 600, 60)).astype(np.float32)
    own[:, 0] += 1
    sure[:, 0] += np.where(rng.random(600) < 0.8, 2.5, -4)
    careful[:, 0] += 1.5
    scored = {"search": ScoredCases(own, {"item_knn 0": sure, "item_knn 1": careful}, np.zeros_like(own))}
    few = {"search": scored["search"].take(np.arange(100))}
    for sampled in (scored, few):
        likeliest = ways(2, 60).likeliest_neighbors(sampled, NAMES, None, 1.0)
        assert likeliest == [1, 0]
        choices = ways(2, 60).narrow(None, likeliest)
        # The first ten are those of all cases, also where a few of them found what is likely.
        assert choices.best_neighbors(sampled, scored, NAMES, None, 1.0) == 0
        # Of a hundred the first ten say too little.
        assert choices.best_neighbors(sampled, few, NAMES, None, 1.0) == 1
    monkeypatch.setattr(view_choices, "_NUM_LIKELIEST", 1)
    assert ways(2, 60).likeliest_neighbors(scored, NAMES, None, 1.0) == [1]


def test_without_a_case_or_neighbours_nothing_is_chosen():
    cases = {"search": cases_of(np.random.default_rng(0), 20, 1)}
    for choices, asked in ((ways(3, 12), {}), (ways(0, 12), cases)):
        likeliest = choices.likeliest_neighbors(asked, NAMES, None, 1.0)
        assert likeliest == []
        assert choices.narrow(None, likeliest).best_neighbors(asked, asked, NAMES, None, 1.0) is None


def test_what_is_asked_is_each_view_in_each_of_its_ways():
    split, catalog = split_log(make_log()), make_dense_catalog()
    views = Views.fit(split, catalog)
    choices = ViewChoices.of(views, catalog)
    names = choices.names(catalog, "search")
    assert names == ["item_knn", "lexical", "query_log", "semantic"]
    assert choices.names(catalog, "recommendation") == ["item_knn", "semantic"]
    asked = choices.asked(names)
    words = [one for name, (one, _) in asked.items() if name.startswith("lexical")]
    assert [one.lexical.settings for one in words] == list(LEXICAL_CHOICES)
    # By users and in sequences 20, 50, 100 or 500 neighbours, and four decays.
    near = [one.item_knn for name, (one, _) in asked.items() if name.startswith("item_knn")]
    assert [one.decay for one in near] == [0.95, 0.9, 0.8, 0.6] * 8
    assert [one.nearness for one in near] == ["users"] * 16 + ["sequences"] * 16
    assert len(asked) == len(words) + len(near) + 2
    chosen = choices.chosen(2, 18)
    assert chosen.lexical is words[2].lexical and chosen.item_knn is near[18]
    assert chosen.query_log is views.query_log and choices.chosen(None, None) is views
    # What is left of the choices is asked by the same names.
    narrow = choices.narrow(2, [18, 3])
    assert list(narrow.asked(names)) == ["item_knn 18", "item_knn 3", "lexical 2", "query_log 0", "semantic 0"]
    assert narrow.chosen(2, 18).item_knn is near[18]


def test_a_model_answers_and_is_saved_with_the_way_that_was_chosen(monkeypatch, tmp_path):
    split = split_log(make_log())
    model, processor = make_synergen()
    monkeypatch.setattr(ViewChoices, "likeliest_neighbors", lambda self, *_: [19])
    # What makes targets likelier is taken here whether or not it brings them to the front.
    monkeypatch.setattr("seekrec.evaluation.view_weights.choose_weights", lambda _, likely: dict.fromkeys(likely, 2.0))
    monkeypatch.setattr(ScoredCases, "values", lambda _, weights: np.array([float(bool(weights))]))
    choose_view_weights(model, processor, split, Views.fit(split, model.catalog), max_cases=40)
    assert (model.views.item_knn.decay, model.views.item_knn.nearness) == (0.6, "sequences")
    model.save_pretrained(tmp_path)
    again = Views.load(tmp_path / "views")[0].item_knn
    assert (again.decay, again.nearness) == (0.6, "sequences")
    # Files that name no way are those of before there was another.
    saved = tmp_path / "views" / "views.json"
    content = json.loads(saved.read_text(encoding="utf-8"))
    assert content["parts"]["item_knn"].pop("nearness") == "sequences"
    saved.write_text(json.dumps(content), encoding="utf-8")
    assert Views.load(tmp_path / "views")[0].item_knn.nearness == "users"
