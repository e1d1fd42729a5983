# SPDX-License-Identifier: Apache-2.0
"""The pipeline over any model that has `retrieve` and `rank`."""

import json

import numpy as np
import pytest
import torch
from small_shop import REQUESTS, make_aisles, make_model
from transformers import BatchFeature, PreTrainedConfig, PreTrainedModel, pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from seekrec.errors import RequestError
from seekrec.hub import SearchAndRecommendationPipeline
from seekrec.schema import Event, Request, ScoredItem

WAY = {"gensar": "instructions", "gensr": "sentence", "intsr": "paper", "synergen": "paper"}
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
        self.excluded = []
        self.post_init()

    def _answers(self, lengths, lists, top_k):
        counts = [top_k] * len(lengths) if isinstance(top_k, int) else top_k
        return [self._answer(*entry)[:count] for *entry, count in zip(lengths, lists, counts, strict=True)]

    def _answer(self, length, ids):
        scores = {item_id: -abs("ABC".index(item_id) - length) for item_id in ids}
        return [
            ScoredItem(item_id, scores[item_id], TITLES[item_id]) for item_id in sorted(ids, key=lambda i: -scores[i])
        ]

    def retrieve(self, inputs, *, top_k, where=None, exclude_seen=None, boost=None):
        self.excluded.append(exclude_seen)
        lengths = inputs["lengths"].tolist()
        self.batch_sizes.append(len(lengths))
        masks = where if isinstance(where, list) and not isinstance(where[0], str) else [where] * len(lengths)
        lists = []
        for mask in masks:
            if mask is None:
                ids = list("ABC")
            elif isinstance(mask, np.ndarray):
                ids = [item_id for item_id, allowed in zip("ABC", mask, strict=True) if allowed]
            else:
                ids = mask
            lists.append(ids)
        return self._answers(lengths, lists, top_k)

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


def test_numbers_of_items_for_each_request(answer):
    answer([request_of(2), "kite", request_of(1)], exclude_seen=[True, False, None], batch_size=2)
    assert answer.model.excluded == [[True, False], [None]]
    answer(request_of(2), exclude_seen=True)
    assert answer.model.excluded[-1] is True
    asked = [request_of(2), "kite", request_of(1)]
    assert [ids(entry) for entry in answer(asked, top_k=np.array([1, 3, 2]), batch_size=2)] == ["C", "ABC", "BA"]
    found = answer([request_of(2), "kite", request_of(1)], top_k=[1, 3, 2], batch_size=2)
    assert [ids(entry) for entry in found] == ["C", "ABC", "BA"]


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
    assert model.excluded[-1] is None  # the model's own default
    assert ids(answer("kite", top_k=2, exclude_seen=True)) == "AB"
    assert model.excluded[-1] is True


@pytest.mark.parametrize("family", ["gensar", "gensr", "intsr", "synergen"])
def test_answers_of_each_family_are_those_of_its_calls(family):
    model, processor = make_model(family, WAY[family], make_aisles())
    answer = pipeline("search-and-recommendation", model=model, processor=processor, device="cpu", batch_size=3)

    def plain(found):
        return [[(item.item_id, item.title, pytest.approx(item.score, abs=1e-5)) for item in one] for one in found]

    def given(found):
        return [[(item["item_id"], item["title"], item["score"]) for item in one] for one in found]

    inputs = processor(REQUESTS)
    assert given(answer(REQUESTS, top_k=5)) == plain(model.retrieve(inputs, top_k=5))
    stream = answer((request for request in REQUESTS), top_k=5, batch_size=1)
    assert given([next(stream), *stream]) == plain(model.retrieve(inputs, top_k=5))
    mask = model.catalog.where(categories="kitchen")
    expected = model.retrieve(inputs, top_k=4, where=mask, exclude_seen=True)
    assert given(answer(REQUESTS, top_k=4, where=mask, exclude_seen=True)) == plain(expected)
    masks = np.stack([mask, ~mask, mask, ~mask])
    tensors = torch.from_numpy(masks)
    for given_masks in (masks, tensors, [mask, *tensors[1:]]):
        found = answer(REQUESTS, top_k=4, where=given_masks)
        assert given(found) == plain(model.retrieve(inputs, top_k=4, where=masks))
    assert given([answer(REQUESTS[0], top_k=4, where=torch.from_numpy(mask))]) == plain(
        model.retrieve(processor(REQUESTS[:1]), top_k=4, where=mask)
    )
    # Numbers of all items or of some, for all requests; and a line for each, of which batches of three get their own.
    lines = np.random.default_rng(0).normal(scale=3, size=(len(REQUESTS), len(model.catalog)))
    for boost in (lines[0], lines[0].tolist(), {"i3": 5.0, "i20": -2.0}, lines, lines.tolist(), list(lines)):
        expected = plain(model.retrieve(inputs, top_k=4, boost=boost))
        assert given(answer(REQUESTS, top_k=4, boost=boost)) == expected
        if len(boost) != len(REQUESTS):
            assert given([*answer((one for one in REQUESTS), top_k=4, boost=boost)]) == expected
            assert given([answer(REQUESTS[0], top_k=4, boost=boost)]) == expected[:1]
    assert given([answer(REQUESTS[1], top_k=4, boost=lines[1:2])]) == plain(
        model.retrieve(processor(REQUESTS[1:2]), top_k=4, boost=lines[1])
    )
    with pytest.raises(RequestError, match=r"`boost` has shape \(23,\); give one number for each of the 24 items"):
        answer(REQUESTS[0], boost=lines[0, 1:])
    candidates = [["i3", "i9"], ["i1"], ["i2", "i20", "i4"], ["i5"]]
    expected = model.rank(processor(REQUESTS, candidates=candidates))
    assert given(answer(REQUESTS, candidates=candidates)) == plain(expected)


@pytest.mark.parametrize(
    ("requests", "options", "message"),
    [
        (3, {}, r"3 is not a request; pass a seekrec\.Request\(query=..., history=\[...\]\), a query"),
        ({"query": "wok"}, {}, r"\{'query': 'wok'\} is not a request; pass a seekrec\.Request\(query="),
        (b"wok", {}, r"b'wok' is not a request"),
        ([request_of(0), {"query": "kite"}], {}, "Entry 1 of the batch is .*'query': 'kite'.*not a request"),
        ("kite", {"num_answers": 3}, "`num_answers` is an unknown option of this pipeline; use `top_k`"),
        (["kite"], {"candidates": [["A"], ["B"]]}, "`candidates` has 2 entries for 1 requests"),
        (["kite"], {"where": [["A"], ["B"]]}, "`where` has 2 entries for 1 requests"),
        (["kite"], {"top_k": [1, 2]}, "`top_k` has 2 entries for 1 requests"),
        ("kite", {"candidates": ["A"], "where": ["A"]}, "`where` and `candidates` are both given"),
        ("kite", {"candidates": ["A"], "boost": {"A": 1.0}}, "`boost` and `candidates` are both given"),
        (["kite"], {"boost": np.zeros((2, 3))}, "`boost` has 2 entries for 1 requests; give one for each"),
        (["kite"] * 3, {"boost": [[0, 0, 1]]}, "`boost` has 1 entries for 3 requests"),
        (iter(["kite"]), {"boost": np.zeros((1, 3))}, r"`boost` has numbers for each request \(1 rows\), but the"),
        ("kite", {"boost": [[0, 0, 1], [1, 0, 0]]}, "`boost` has 2 entries for 1 requests; give one for each"),
        ("kite", {"top_k": [1, 2]}, "`top_k` has 2 entries for 1 requests; give one for each"),
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
