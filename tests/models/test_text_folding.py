# SPDX-License-Identifier: Apache-2.0
"""Queries as people type them: every family reads them alike, and a model made before reads as it did."""

from __future__ import annotations

import copy
import dataclasses
import json

import pyarrow as pa
import pytest
import torch
from small_shop import HISTORY, make_gensar, make_gensr, make_intsr, make_synergen
from transformers import AutoProcessor

from seekrec.corpora import build_corpus, encode_text, get_text_folding, instructions, set_text_folding
from seekrec.corpora.text import tokenizer_digest
from seekrec.errors import CatalogError
from seekrec.events import Spelling, spelling
from seekrec.models import GenSARConfig, IntSRProcessor
from seekrec.schema import Event, Request
from seekrec.util.text import WORD_FOLDING

TYPED = (
    "garden kitchen",
    "Garden Kitchen",
    "GARDEN KITCHEN",
    "garden kitchen?",
    "Garden-Kitchen",
    "ｇａｒｄｅｎ kitchen",
)


@pytest.fixture
def folded_aisles(aisles):
    split, catalog, tokenizer, vocabulary = aisles
    folded = copy.deepcopy(tokenizer)
    set_text_folding(folded, WORD_FOLDING)
    return split, catalog, folded, vocabulary


def make(family, folded_aisles):
    if family in ("intsr", "synergen"):
        return make_intsr() if family == "intsr" else make_synergen()
    return make_gensar(folded_aisles) if family == "gensar" else make_gensr(folded_aisles)


def held(processor):
    return (
        get_text_folding(processor.tokenizer) if hasattr(processor, "tokenizer") else processor.query_vectors.folding
    )


@pytest.mark.parametrize("family", ["gensar", "gensr", "intsr", "synergen"])
def test_a_query_has_one_answer_however_it_is_typed(family, folded_aisles):
    _, processor = make(family, folded_aisles)
    features = [processor([Request(HISTORY, query=query)]) for query in TYPED]
    for other in features[1:]:
        assert other.keys() == features[0].keys()
        for name, tensor in features[0].items():
            assert torch.equal(other[name], tensor), name
    # In a history, too.
    searched = [[HISTORY[0], Event("i9", "search", timestamp=2, query=query)] for query in TYPED]
    before = [processor([Request(history)]) for history in searched]
    assert all(torch.equal(one[name], tensor) for one in before for name, tensor in before[0].items())


@pytest.mark.parametrize("family", ["gensar", "gensr", "intsr", "synergen"])
def test_a_slip_is_read_as_meant_and_so_by_a_saved_processor(family, folded_aisles, tmp_path):
    _, processor = make(family, folded_aisles)
    processor.spelling = Spelling.fit({"garden kitchen": 2}, processor.catalog.items)
    processor.save_pretrained(tmp_path)
    meant, typed = (Request(HISTORY, query=query) for query in ("garden kitchen", "Gadren kitchenn"))
    for one in (processor, AutoProcessor.from_pretrained(tmp_path)):
        assert one.read_query("Gadren kitchenn") == "garden kitchen"
        for name, tensor in one([meant]).items():
            assert torch.equal(one([typed])[name], tensor), name
    if family in ("intsr", "synergen"):  # a new item's word is no slip
        new = {"item_id": "new", "title": "gadren"}
        text = processor.catalog.embeddings["semantic"][:1]
        processor.set_catalog(processor.catalog.add_items([new], semantic_embeddings=text))
        assert processor.read_query("gadren kitchenn") == "gadren kitchen"


def test_known_words_follow_the_catalogue_by_what_changed(folded_aisles, tmp_path, monkeypatch):
    """Each change reads its own texts alone, and what is saved on the way reads as what went on."""
    _, processor = make("intsr", folded_aisles)
    catalog, text = processor.catalog, processor.catalog.embeddings["semantic"][:1]
    processor.spelling = Spelling.fit({"garden kitchen": 2}, catalog.items)
    read, item_words = [], spelling.item_words
    monkeypatch.setattr(
        spelling, "item_words", lambda items, fields: read.append(items.num_rows) or item_words(items, fields)
    )
    for number, title in enumerate(("Gramophone", "Samovar")):
        catalog = catalog.add_items([{"item_id": f"new{number}", "title": title}], semantic_embeddings=text)
        processor.set_catalog(catalog)
        assert processor.read_query(f"{title.lower()}x") == title.lower()
    processor.set_catalog(catalog.remove_items(["new0"]))  # may come back, so its words stay
    assert processor.read_query("grmaophone samvoar") == "gramophone samovar"
    assert read == [1, 1]
    titles = pa.array([*catalog.items["title"].to_pylist()[:-1], "Balalaika"])
    place = catalog.items.schema.get_field_index("title")
    catalog = dataclasses.replace(catalog, items=catalog.items.set_column(place, "title", titles))
    processor.set_catalog(catalog)
    assert processor.read_query("balalaikaa samvoar") == "balalaika samvoar"
    assert read == [1, 1, 1, 1]  # the title that came and the one that went
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    for one in (loaded, copy.deepcopy(processor)):
        assert one.read_query("balalaikaa samvoar grmaophone") == "balalaika samvoar gramophone"
    assert read == [1, 1, 1, 1]
    loaded.set_catalog(catalog.add_items([{"item_id": "new2", "title": "Samovar"}], semantic_embeddings=text))
    assert loaded.read_query("samvoar") == "samovar" and read == [1, 1, 1, 1, 1]


def test_words_need_a_catalogue():
    with pytest.raises(CatalogError, match="`spelling` contains words of a catalogue's items"):
        IntSRProcessor().spelling = Spelling.fit({"garden": 1}, make_intsr()[1].catalog.items)


@pytest.mark.parametrize("family", ["gensar", "intsr"])
def test_folding_is_saved_and_an_older_processor_reads_as_it_did(family, folded_aisles, tmp_path):
    _, processor = make(family, folded_aisles)
    processor.save_pretrained(tmp_path)
    path = tmp_path / ("tokenizer_config.json" if family == "gensar" else "processor_config.json")
    content = json.loads(path.read_text())
    assert content["text_folding"]
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert held(loaded) == held(processor) != ()
    del content["text_folding"]
    path.write_text(json.dumps(content))
    for manifest in tmp_path.glob("*manifest.json"):  # an older folder has none
        manifest.unlink()
    older = AutoProcessor.from_pretrained(tmp_path)
    assert held(older) == ()


def test_what_is_read_is_folded_and_what_is_written_is_not(aisles, folded_aisles, monkeypatch):
    split, catalog, tokenizer, vocabulary = folded_aisles
    assert encode_text(tokenizer, ["Garden Things!"]) == encode_text(tokenizer, ["garden thing"])
    assert encode_text(tokenizer, ["Garden Things!"], as_written=True) == encode_text(aisles[2], ["Garden Things!"])
    texts = [f"Garden THINGS no. {row}!" for row in range(len(catalog))]
    monkeypatch.setattr(instructions, "item_texts", lambda items: texts)
    tasks = ("desc2id_semantic", "id2desc_semantic")
    corpus = build_corpus(split, catalog, tokenizer, vocabulary, GenSARConfig(), tasks=tasks)
    read = tokenizer.decode(corpus["desc2id_semantic"][3]["input_ids"])
    written = tokenizer.decode(corpus["id2desc_semantic"][3]["labels"], skip_special_tokens=True)
    assert "garden thing no 3" in read
    assert written == "Garden THINGS no. 3!"


def test_folding_belongs_to_the_identity_of_a_tokenizer(aisles, folded_aisles):
    assert tokenizer_digest(aisles[2]) != tokenizer_digest(folded_aisles[2])
