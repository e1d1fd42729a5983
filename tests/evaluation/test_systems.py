# SPDX-License-Identifier: Apache-2.0
"""A model's face behind the evaluator, in batches."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from seekrec.errors import ConfigurationError
from seekrec.evaluation import ModelRetriever, build_cases, evaluate_cases
from seekrec.schema import IdMap, Request, ScoredItem


class FakeModel:
    """Answers with the allowed items in the order of the catalogue."""

    def __init__(self, ids):
        self.ids = ids
        self.calls = []
        self.catalog = SimpleNamespace(id_map=IdMap(ids), is_removed=np.zeros(len(ids), bool))

    def retrieve(self, inputs, *, top_k=10, where=None, **options):
        self.calls.append((len(inputs["requests"]), top_k, options))
        masks = where if where is not None else [np.ones(len(self.ids), bool)] * len(inputs["requests"])
        return [
            [ScoredItem(self.ids[row], -float(row)) for row in np.flatnonzero(mask)[:top_k].tolist()] for mask in masks
        ]

    def rank(self, inputs):
        self.calls.append(len(inputs["requests"]))
        return [
            [ScoredItem(item, -float(self.ids.index(item))) for item in sorted(items)]
            for items in inputs["candidates"]
        ]


def process(requests, candidates=None):
    return {"requests": requests, "candidates": candidates}


def test_model_is_asked_in_batches():
    model = FakeModel(["a", "b", "c"])
    retriever = ModelRetriever(model, process, batch_size=2, num_beams=7)
    masks = [np.array([number == row for row in range(3)]) for number in (0, 1, 2, 0, 1)]
    answers = retriever.retrieve([Request()] * 5, top_k=2, where=masks)
    assert [[item.item_id for item in answer] for answer in answers] == [["a"], ["b"], ["c"], ["a"], ["b"]]
    # The masks say what was seen, and never hide the target: the model must not do so besides.
    told = {"num_beams": 7, "exclude_seen": False}
    assert model.calls == [(2, 2, told), (2, 2, told), (1, 2, told)]
    assert retriever.details == {"num_beams": 7}


def test_model_without_beams_is_not_told_of_them():
    model = FakeModel(["a"])
    ModelRetriever(model, process, num_beams=None).retrieve([Request()], top_k=3)
    assert model.calls == [(1, 3, {"exclude_seen": False})]


def test_model_ranks_in_batches(capsys):
    model = FakeModel(["a", "b", "c"])
    retriever = ModelRetriever(model, process, batch_size=2)
    answers = retriever.rank([Request()] * 3, [("b", "a"), ("c", "b"), ("c",)])
    assert [[item.item_id for item in answer] for answer in answers] == [["a", "b"], ["b", "c"], ["c"]]
    assert model.calls == [2, 1]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("protocol", ["full", "uniform"])
def test_model_is_evaluated(toy_split, toy_id_map, protocol):
    retriever = ModelRetriever(FakeModel(toy_id_map.ids), process, batch_size=1)
    cases = build_cases(toy_split, toy_id_map, protocol=protocol, num_negatives=2)
    (row,) = evaluate_cases({"model": retriever}, cases, toy_split, toy_id_map)
    # Both ways d, e, f are left, in this order; the targets are d and e.
    assert row.ranks.tolist() == [[1, 1], [2, 2]]
    assert row.details == {"num_beams": 50}


def test_batch_size_is_checked():
    with pytest.raises(ConfigurationError, match="`batch_size` is 0; use at least 1"):
        ModelRetriever(FakeModel([]), process, batch_size=0)


def test_candidates_that_no_beam_reaches_come_last_and_tied():
    class BeamModel(FakeModel):
        def retrieve(self, inputs, *, top_k=10, where=None, **options):
            self.calls.append((top_k, where, options))
            return [[ScoredItem(item, -1.0) for item in sorted(items)[:top_k]] for items in where]

    model = BeamModel(["a", "b", "c", "d"])
    retriever = ModelRetriever(model, process, num_beams=2, candidate_scoring="beams")
    answers = retriever.rank([Request(), Request()], [("d", "b", "a"), ("c",)])
    assert model.calls == [(2, [["d", "b", "a"], ["c"]], {"exclude_seen": False, "num_beams": 2})]
    assert [[(item.item_id, item.score) for item in answer] for answer in answers] == [
        [("a", -1.0), ("b", -1.0), ("d", float("-inf"))],
        [("c", -1.0)],
    ]


def test_beams_that_order_candidates_need_a_number():
    with pytest.raises(ConfigurationError, match="`candidate_scoring` is 'beams' but `num_beams` is None"):
        ModelRetriever(FakeModel(["a"]), process, num_beams=None, candidate_scoring="beams")


def test_candidates_that_were_removed_come_last_and_are_not_asked_for():
    model = FakeModel(["a", "b", "c"])
    model.catalog.is_removed[0] = True
    answers = ModelRetriever(model, process).rank([Request(), Request()], [["b", "a", "c"], ["a"]])
    assert [[item.item_id for item in answer] for answer in answers] == [["b", "c", "a"], ["a"]]
    assert answers[0][-1].score == float("-inf")
