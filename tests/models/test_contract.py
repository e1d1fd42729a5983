"""What every family promises, and every family of identifiers: one face, one folder, one set of errors."""

import shutil

import numpy as np
import pytest
import torch
from small_shop import CODEBOOK_SIZE, NUM_ITEMS, REQUESTS, SEEN, grow
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoProcessor

import seekrec
from seekrec.errors import CatalogError, RequestError, UnknownItemError
from seekrec.schema import Event, Request


@torch.no_grad()
def test_a_request_is_answered_alone_as_in_a_batch(family):
    model, processor = family
    candidates = [["i3", "i9", "i20"], ["i1"], ["i2", "i3", "i4", "i5"], ["i23", "i0"]]
    together = model.retrieve(processor(REQUESTS), top_k=4, exclude_seen=False)
    ranked = model.rank(processor(REQUESTS, candidates=candidates))
    for request, line, expected, order in zip(REQUESTS, candidates, together, ranked, strict=True):
        for one, other in (
            (model.retrieve(processor(request), top_k=4, exclude_seen=False)[0], expected),
            (model.rank(processor(request, candidates=[line]))[0], order),
        ):
            assert [item.item_id for item in one] == [item.item_id for item in other]
            np.testing.assert_allclose([item.score for item in one], [item.score for item in other], atol=1e-4)
        assert sorted(item.item_id for item in order) == sorted(line)


def test_masks_removed_items_and_short_answers(family):
    model, processor = family
    catalog = model.catalog
    inputs = processor(REQUESTS)
    office = catalog.where(title_contains="office")
    answers = model.retrieve(
        inputs, top_k=50, where=[office, ["i1", "i2"], None, np.zeros(NUM_ITEMS, bool)], exclude_seen=False
    )
    assert {item.item_id for item in answers[0]} == {f"i{row}" for row in range(16, 24)}  # 8 items, 50 asked
    assert {item.item_id for item in answers[1]} == {"i1", "i2"}
    assert len(answers[2]) == NUM_ITEMS and len({item.item_id for item in answers[2]}) == NUM_ITEMS
    assert answers[3] == []
    model.set_catalog(catalog.remove_items(["i2"]))
    found = model.retrieve(inputs, top_k=50, where=["i1", "i2"], exclude_seen=False)
    assert {item.item_id for item in found[0]} == {"i1"}
    processor.set_catalog(model.catalog)
    with pytest.raises(UnknownItemError, match=r"`candidates\[1\]` names 1 items that were removed .*: 'i2'; restore"):
        processor(REQUESTS[:2], candidates=[["i1"], ["i1", "i2"]])
    model.set_catalog(catalog)
    processor.set_catalog(catalog)


@torch.no_grad()
def test_a_saved_folder_is_complete(family, tmp_path):
    model, processor = family
    model.config.use_cache = False  # as Trainer leaves it
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    candidates = [["i3", "i9"]] * len(REQUESTS)
    expected = model.retrieve(processor(REQUESTS), top_k=3, exclude_seen=False)
    order = model.rank(processor(REQUESTS, candidates=candidates))
    for auto in (AutoModel, AutoModelForSeq2SeqLM):
        loaded = auto.from_pretrained(tmp_path)
        assert type(loaded) is type(model)
        assert loaded.config.use_cache and loaded.generation_config.do_sample is False
        for name, parameter in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], parameter), name
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is type(processor)
    settings = {name: value for name, value in again.to_dict().items() if name != "tokenizer"}
    assert settings == {name: value for name, value in processor.to_dict().items() if name != "tokenizer"}
    assert again.catalog.content_hash == processor.catalog.content_hash
    assert loaded.eval().retrieve(again(REQUESTS), top_k=3, exclude_seen=False) == expected
    assert loaded.rank(again(REQUESTS, candidates=candidates)) == order
    assert not list(tmp_path.glob(".*"))


def test_a_catalogue_of_another_checkpoint_is_refused(family, tmp_path):
    model, processor = family
    other = seekrec.Catalog.build(
        model.catalog.items,
        {view: (codes + 1) % CODEBOOK_SIZE for view, codes in model.catalog.codes.items()},
        num_shared_levels=1,
        codebook_size=CODEBOOK_SIZE,
    )
    with pytest.raises(CatalogError, match="identifiers have hash .* the model was trained for"):
        model.set_catalog(other)
    shallow = seekrec.Catalog.build(
        model.catalog.items,
        {"semantic": np.arange(NUM_ITEMS)[:, None]},
        num_shared_levels=0,
        codebook_size=NUM_ITEMS,
    )
    with pytest.raises(CatalogError, match="`num_shared_levels` is 1 in the model and 0 in the catalogue"):
        model.set_catalog(shallow)
    model.save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "catalog")
    with pytest.raises(CatalogError, match="contains no folder 'catalog'"):
        AutoModel.from_pretrained(tmp_path)


def test_bad_requests_are_named(family):
    model, processor = family
    with pytest.raises(
        UnknownItemError, match=r"`candidates\[0\]` names 1 items that are not in the catalogue: 'nowhere'"
    ):
        processor(REQUESTS[:1], candidates=[["i1", "nowhere"]])
    with pytest.raises(RequestError, match="`requests` is empty"):
        processor([])
    with pytest.raises(RequestError, match=r"`requests\[0\]` is a str"):
        processor(["piano"])
    with pytest.raises(RequestError, match="`candidates` has 1 lists for 2 requests"):
        processor(REQUESTS[:2], candidates=[["i1"]])
    with pytest.raises(RequestError, match=r"`candidates\[0\]` names 'i1' more than once"):
        processor(REQUESTS[:1], candidates=[["i1", "i1"]])
    with pytest.raises(RequestError, match=r"`candidates\[0\]` is 'i1'"):
        processor(REQUESTS[:1], candidates=["i1"])
    with pytest.raises(RequestError, match="The inputs contain no candidates"):
        model.rank(processor(REQUESTS[:1]))
    with pytest.raises(RequestError, match="`top_k` is 0"):
        model.retrieve(processor(REQUESTS[:1]), top_k=0, exclude_seen=False)
    with pytest.raises(RequestError, match="`where` has dtype int64"):
        model.retrieve(processor(REQUESTS[:1]), where=np.zeros(3, dtype=np.int64), exclude_seen=False)
    with pytest.raises(RequestError, match="`where` has 2 filters for 1 requests"):
        model.retrieve(processor(REQUESTS[:1]), where=[None, None], exclude_seen=False)


def test_what_was_seen_is_no_recommendation(any_family):
    """All of the history counts, be it more than a model reads; an item that was only shown does not."""
    model, processor = any_family
    shown = Event("i20", timestamp=30, action="impression")
    asked = [Request([*SEEN, shown]), Request(SEEN, query="office")]
    inputs = processor(asked)

    def found(**options):
        return [{item.item_id for item in answer} for answer in model.retrieve(inputs, top_k=50, **options)]

    everything = {f"i{row}" for row in range(NUM_ITEMS)}
    rest = everything - {f"i{row}" for row in range(12)}
    assert found() == [rest, everything]
    assert found(exclude_seen=True) == [rest, rest]
    assert found(exclude_seen=False) == [everything, everything]
    assert found(where=["i1", "i13"]) == [{"i13"}, {"i1", "i13"}]
    # The same as a mask without these items.
    mask = model.catalog.where(ids=rest)
    assert model.retrieve(inputs, top_k=5, exclude_seen=True) == model.retrieve(
        inputs, top_k=5, where=mask, exclude_seen=False
    )
    del inputs["seen_rows"]
    if model.views is None:
        assert found(exclude_seen=False) == [everything, everything]
    else:
        with pytest.raises(RequestError, match="do not say what was seen, which views read"):
            found(exclude_seen=False)
    with pytest.raises(RequestError, match="do not say what was seen; .*`exclude_seen=False`"):
        model.retrieve(inputs)


def test_new_items_are_scored_beside_the_beams(family):
    """However few the beams, no new item is missing that is better than what was found."""
    model, processor = family
    grown = grow(model, processor)
    inputs = processor(REQUESTS)
    everything = model.retrieve(inputs, top_k=len(grown), num_beams=len(grown), exclude_seen=False)
    assert [len(answer) for answer in everything] == [len(grown)] * len(REQUESTS)  # beams enough for all
    new = {"new0", "new1", "new2"}
    for top_k in (1, 3):
        few = model.retrieve(inputs, top_k=top_k, num_beams=1, exclude_seen=False)
        for answer, whole in zip(few, everything, strict=True):
            scores = {item.item_id: item.score for item in whole}
            found = [item.item_id for item in answer]
            assert len(set(found)) == top_k
            assert [item.score for item in answer] == pytest.approx([scores[one] for one in found], abs=1e-4)
            assert [item.score for item in answer] == sorted((item.score for item in answer), reverse=True)
            assert all(scores[one] <= answer[-1].score + 1e-4 for one in new - set(found))
    allowed = model.retrieve(inputs, top_k=5, num_beams=1, where=["new1", "i3"], exclude_seen=False)
    assert all({item.item_id for item in answer} == {"new1", "i3"} for answer in allowed)
    model.set_catalog(grown.remove_items(["new0", "new2"]))
    gone = model.retrieve(inputs, top_k=len(grown), exclude_seen=False)
    assert all(new & {item.item_id for item in answer} == {"new1"} for answer in gone)


def test_of_very_many_new_items_beams_answer_those_they_reach(family, monkeypatch):
    """To decode each would take seconds; beams enough for all find the same as scoring them does."""
    model, processor = family
    grown = grow(model, processor)
    inputs = processor(REQUESTS)
    asked = {"top_k": len(grown), "num_beams": len(grown), "exclude_seen": False}
    beside = model.retrieve(inputs, **asked)
    decoded = []
    score_new = type(model)._score_new
    monkeypatch.setattr(type(model), "_score_new", lambda *args: decoded.append(1) or score_new(*args))
    for most, is_decoded in ((3, True), (2, False)):
        decoded.clear()
        monkeypatch.setattr("seekrec.models.interface._MOST_NEW", most)
        found = model.retrieve(inputs, **asked)
        for one, other in zip(found, beside, strict=True):
            assert {item.item_id: item.score for item in one} == pytest.approx(
                {item.item_id: item.score for item in other}, abs=1e-4
            )
        # Where an encoder orders items, to score a new one is a product, and all are.
        by_products = getattr(model.config, "order_by", "identifier") == "next_item"
        asks_beams = getattr(model.config, "retrieve_by", "identifier") == "identifier"
        assert bool(decoded) == ((is_decoded or by_products) and asks_beams)
