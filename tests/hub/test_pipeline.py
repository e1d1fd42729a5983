# SPDX-License-Identifier: Apache-2.0
"""The pipeline over any model that has `retrieve` and `rank`."""

import json

import numpy as np
import pytest
import torch
from transformers import BatchFeature, PreTrainedConfig, PreTrainedModel, pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from seekrec.errors import RequestError
from seekrec.hub import SearchAndRecommendationPipeline
from seekrec.schema import Event, Request, ScoredItem

TITLES = {"A": "Red kite", "B": "Blue kite", "C": "Chess set"}


class FakeConfig(PreTrainedConfig):
    model_type = "fake_seekrec"


class FakeModel(PreTrainedModel):
    """Scores item number n of the catalogue by minus its distance to the number of events in the history."""

    config_class = FakeConfig

    def __init__(self, config):
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batch_sizes = []
        self.post_init()

    def _answer(self, length, ids):
        scores = {item_id: -abs("ABC".index(item_id) - length) for item_id in ids}
        return [
            ScoredItem(item_id, scores[item_id], TITLES[item_id]) for item_id in sorted(ids, key=lambda i: -scores[i])
        ]

    def retrieve(self, inputs, *, top_k, where=None, exclude_seen=None):
        self.excludes = exclude_seen
        lengths = inputs["lengths"].tolist()
        self.batch_sizes.append(len(lengths))
        masks = where if isinstance(where, list) and not isinstance(where[0], str) else [where] * len(lengths)
        answers = []
        for length, mask in zip(lengths, masks, strict=True):
            if mask is None:
                ids = list("ABC")
            elif isinstance(mask, np.ndarray):
                ids = [item_id for item_id, allowed in zip("ABC", mask, strict=True) if allowed]
            else:
                ids = mask
            answers.append(self._answer(length, ids)[:top_k])
        return answers

    def rank(self, inputs):
        return [
            self._answer(length, ids)
            for length, ids in zip(inputs["lengths"].tolist(), inputs["candidates"], strict=True)
        ]


class FakeProcessor:
    def __call__(self, requests, candidates=None):
        self.queries = [request.query for request in requests]
        features = BatchFeature({"lengths": torch.tensor([len(request.history) for request in requests])})
        return BatchFeature({**features, "candidates": candidates})


@pytest.fixture
def answer():
    return pipeline(
        "search-and-recommendation",
        model=FakeModel(FakeConfig()),
        processor=FakeProcessor(),
        device=torch.device("cpu"),
    )


def request_of(length):
    return Request(history=[Event("A") for _ in range(length)])


def ids(answers):
    return "".join(entry["item_id"] for entry in answers)


def test_task_is_registered():
    assert PIPELINE_REGISTRY.check_task("search-and-recommendation")[1]["impl"] is SearchAndRecommendationPipeline


def test_answers_one_request(answer):
    assert isinstance(answer, SearchAndRecommendationPipeline)
    found = answer(request_of(1), top_k=2)
    assert found == [
        {"item_id": "B", "title": "Blue kite", "score": 0.0},
        {"item_id": "A", "title": "Red kite", "score": -1.0},
    ]
    json.dumps(found)


def test_text_is_a_search(answer):
    assert ids(answer("kite")) == "ABC"
    assert answer.processor.queries == ["kite"]


def test_answers_many_in_batches(answer):
    found = answer([request_of(2), "kite", request_of(1)], batch_size=2)
    assert [ids(entry) for entry in found] == ["CBA", "ABC", "BAC"]
    assert answer.model.batch_sizes == [2, 1]
    assert answer([]) == []


def test_generator_streams(answer):
    stream = answer((request_of(number) for number in (2, 0, 1)), batch_size=2, top_k=1)
    assert ids(next(stream)) == "C"
    assert answer.model.batch_sizes == [2]
    assert [ids(entry) for entry in stream] == ["A", "B"]


def test_where(answer):
    mask = np.array([True, False, True])
    assert ids(answer("kite", where=mask)) == "AC"
    assert ids(answer("kite", where=["C", "B"])) == "BC"
    found = answer(["kite"] * 3, where=[mask, ["B"], None], batch_size=2)
    assert [ids(entry) for entry in found] == ["AC", "B", "ABC"]


def test_candidates(answer):
    assert ids(answer(request_of(2), candidates=["A", "C"])) == "CA"
    found = answer([request_of(2), request_of(0)], candidates=[["A", "B"], ["C", "A"]], batch_size=1, top_k=1)
    assert [ids(entry) for entry in found] == ["B", "A"]


def test_defaults_come_from_the_constructor():
    model = FakeModel(FakeConfig())
    answer = pipeline(
        "search-and-recommendation", model=model, processor=FakeProcessor(), top_k=1, batch_size=3, device="cpu"
    )
    assert [ids(entry) for entry in answer(["kite"] * 4)] == ["A"] * 4
    assert model.batch_sizes == [3, 1]
    assert model.excludes is None  # the model's own default
    assert ids(answer("kite", top_k=2, exclude_seen=True)) == "AB"
    assert model.excludes is True


@pytest.mark.parametrize(
    ("requests", "options", "message"),
    [
        (3, {}, "3 is not a request; pass a seekrec.Request, a query"),
        ([request_of(0), {"query": "kite"}], {}, "Entry 1 of the batch is .*'query': 'kite'.*not a request"),
        ("kite", {"num_answers": 3}, "`num_answers` is an unknown option of this pipeline; use `top_k`"),
        (["kite"], {"candidates": [["A"], ["B"]]}, "`candidates` has 2 entries for 1 requests"),
        (["kite"], {"where": [["A"], ["B"]]}, "`where` has 2 entries for 1 requests"),
        ("kite", {"candidates": ["A"], "where": ["A"]}, "`where` and `candidates` are both given"),
        ("", {}, "`query` is ''"),
        ([Request()], {"batch_size": 2.5}, "`batch_size` is 2.5; pass a positive number"),
        ([Request()], {"batch_size": -(10**5000)}, "`batch_size` is a value that cannot be shown; pass a positive"),
        ([Request()], {"batch_size": 0}, "`batch_size` is 0; pass a positive number"),
        (Request(), {"candidates": ["A"], "top_k": 2.5}, "`top_k` is 2.5; pass a positive number"),
    ],
)
def test_refuses(answer, requests, options, message):
    with pytest.raises(RequestError, match=message):
        answer(requests, **options)
