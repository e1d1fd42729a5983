# SPDX-License-Identifier: Apache-2.0
"""GenSAR that reads the catalogue's vectors of items, and orders what it found by the encoder's score."""

import copy

import numpy as np
import pyarrow as pa
import pytest
import torch
from small_shop import GENSAR_WAYS, HISTORY, NUM_ITEMS, REQUESTS, VECTOR_SIZES, grow, make_gensar
from transformers import AutoModel, AutoProcessor, BatchFeature
from transformers.models.t5.modeling_t5 import T5Stack

from seekrec.catalog import Catalog
from seekrec.corpora import StreamCollator, build_stream
from seekrec.errors import CatalogError, CheckpointError, RequestError
from seekrec.models import GenSARConfig, GenSARForConditionalGeneration, new_items
from seekrec.models.dense import QueryVectors
from seekrec.models.gensar.processing_gensar import QueryReadingCollator
from seekrec.models.manifest import save_checkpoint
from seekrec.models.views import added as added_scores
from seekrec.models.words import NO_WORD, item_word_keys, text_word_keys
from seekrec.schema import Event, Request
from seekrec.util.text import split_words

ORDERING = {"corpus": "stream", "item_vector_size": sum(VECTOR_SIZES.values())}
READING = {**ORDERING, "order_by": "identifier"}
ALL_PARTS = {
    **GENSAR_WAYS["stream"],
    "query_reading": ["tokens", "words", "recommendation"],
}


def joined_vectors(catalog):
    return torch.from_numpy(np.concatenate([catalog.embeddings[view] for view in ("semantic", "collaborative")], 1))


@torch.no_grad()
def test_items_are_found_by_their_whole_identifiers(aisles):
    model, processor = make_gensar(aisles, **READING)
    vectors, vocabulary = model.encoder.item_vectors, model.vocabulary
    tokens = processor([Request(HISTORY)])["input_ids"]  # i0, then i9 by a search, then i1
    found = vectors.find_rows(tokens)[0]
    begins = [vocabulary.item_token_ids["recommendation"], vocabulary.item_token_ids["search"]]
    assert [row for row in found.tolist() if row >= 0] == [0, 9, 1]
    assert all((token in begins) == (row >= 0) for token, row in zip(tokens[0].tolist(), found.tolist(), strict=True))
    # One that is cut off, and a code of the other view in its place, name no item.
    assert vectors.find_rows(tokens[:, :-1]).max() == 9
    other = tokens.clone()
    other[0, -1] = vocabulary.level_offsets["semantic"][1]
    assert vectors.find_rows(other)[0, -3] == -1
    # Code 5 of the shared level belongs to no item: three aisles use 0, 1 and 2.
    unknown = tokens.clone()
    unknown[0, -2] = vocabulary.level_offsets["collaborative"][0] + 5
    assert vectors.find_rows(unknown)[0, -3] == -1


@torch.no_grad()
@pytest.mark.parametrize("corpus", ["instructions", "stream"])
def test_without_behavior_tokens_what_was_searched_reads_like_what_was_recommended(aisles, corpus):
    for reads in (True, False):
        model, processor = make_gensar(aisles, corpus=corpus, reads_behavior=reads)
        tokens = processor([Request(HISTORY)])["input_ids"]
        ids = model.vocabulary.item_token_ids
        query = model.vocabulary.behavior_token_ids["search_query"]
        assert (tokens == ids["search"]).any() and (tokens == query).any()
        searched = tokens.masked_fill(tokens == ids["search"], ids["recommendation"])
        # The stream finds queries by their token: what it embeds is the same, not where.
        read = model.encoder.read_tokens
        assert torch.equal(read(tokens), read(tokens.masked_fill(tokens == query, ids["search"]))) is not reads
        states = [model.encoder(input_ids=one, attention_mask=torch.ones_like(one))[0] for one in (tokens, searched)]
        assert torch.equal(*states) is not reads


@torch.no_grad()
def test_the_encoder_reads_tokens_and_vector_of_an_item(aisles, monkeypatch):
    model, processor = make_gensar(aisles, **READING)
    given = {}
    forward = T5Stack.forward

    def spy(self, *args, inputs_embeds=None, **kwargs):
        given["embeds"] = inputs_embeds
        return forward(self, *args, inputs_embeds=inputs_embeds, **kwargs)

    monkeypatch.setattr(T5Stack, "forward", spy)
    inputs = processor([Request(HISTORY[:1])])  # ... <R_I> <M1> <C1> of i0
    model.encoder.encode_events(inputs["input_ids"], inputs["attention_mask"])
    tokens = model.shared.weight[inputs["input_ids"][0, -3:]].sum(0)
    vector = model.encoder.item_vectors.projection.weight @ joined_vectors(model.catalog)[0]
    torch.testing.assert_close(given["embeds"][0, -1], tokens + vector)


def words_by_hand(model, title):
    """The words of an item weighed by their idf and brought to the length of one, each looked up by itself."""
    table = model.encoder.item_vectors.words
    known = {key: row for row, key in enumerate(table.keys.tolist())}
    titles = model.catalog.items["title"].to_pylist()[:NUM_ITEMS]
    aisles = [title.partition(" ")[0] for title in titles]
    texts = [
        {*split_words(title), *split_words(f"Store {aisle}")} for title, aisle in zip(titles, aisles, strict=True)
    ]
    total, squares = torch.zeros(model.config.d_model), 0.0
    for word in {*split_words(title), *split_words(f"Store {title.partition(' ')[0]}")}:
        having = sum(word in text for text in texts)
        key = int(item_word_keys(pa.table({"item_id": ["x"], "title": [word]}), ["title"]).values[0])
        assert (key in known) == (having > 1)
        if key in known:
            idf = np.log1p(NUM_ITEMS / having)
            total, squares = total + idf * table.weight[known[key]], squares + idf**2
    return total / squares**0.5


@torch.no_grad()
@pytest.mark.parametrize("parts", [ALL_PARTS["item_reading"], ["vector", "words"], ["catalog"], ["codes", "words"]])
def test_an_item_is_read_from_the_parts_that_are_named(parts, aisles):
    """By what an item is scored, and the same in a history; a later item has no vector of its own."""
    size = sum(VECTOR_SIZES.values()) if "catalog" in parts else 0
    settings = {"item_reading": parts, "item_vector_size": size, "query_reading": ["tokens", "recommendation"]}
    model, processor = make_gensar(aisles, **{**ALL_PARTS, **settings})
    grown = grow(model, processor)
    vectors, view, given = model.encoder.item_vectors, "semantic", []
    model.encoder.block[0].register_forward_pre_hook(lambda _, args: given.append(args[0]))
    for row in (0, 9, NUM_ITEMS + 1):
        codes = torch.from_numpy(model.vocabulary.encode(grown.codes[view][[row]], view))[0]
        expected = {
            "codes": model.shared.weight[codes].sum(0),
            "catalog": vectors.projection.weight @ joined_vectors(grown)[row] if size else 0.0,
            "vector": vectors.own.weight[row] if row < NUM_ITEMS and "vector" in parts else 0.0,
            "words": words_by_hand(model, grown.items["title"][row].as_py()) if "words" in parts else 0.0,
        }
        wanted = sum(expected[part] for part in parts)
        torch.testing.assert_close(model.embed_items(view, torch.tensor([row]))[0], wanted)
        tokens = processor([Request([Event(grown.id_map.ids[row], behavior="search", query="office")])])["input_ids"]
        model.encoder.encode_events(tokens, None)
        begins = model.shared.weight[model.vocabulary.item_token_ids["search"]]
        torch.testing.assert_close(given[-1][0, -1], begins + wanted)


@torch.no_grad()
@pytest.mark.parametrize("parts", [["tokens", "words", "text"], ["text"], ["words"]])
def test_a_query_is_read_from_the_parts_that_are_named(parts, aisles):
    """In a history and asked now, in any row of a batch: the words are those of items."""
    size = 4 if "text" in parts else 0
    model, processor = make_gensar(aisles, **{**ALL_PARTS, "query_reading": parts, "query_size": size})
    vectors = QueryVectors()
    vectors._embed = lambda texts: np.stack([np.full(4, float(len(text)), np.float32) for text in texts])
    processor._query_vectors = vectors
    asked = [Request([], query="office"), Request(HISTORY), Request(HISTORY, query="garden thing")]
    inputs, given = processor(asked), []
    model.encoder.block[0].register_forward_pre_hook(lambda _, args: given.append(args[0]))
    answers = model.retrieve(inputs, top_k=3, exclude_seen=False)
    begins = model.shared.weight[model.vocabulary.behavior_token_ids["search_query"]]
    lead_in = len(processor.tokenizer("History:", add_special_tokens=False)["input_ids"])
    for row, place, text in ((0, lead_in, "office"), (1, lead_in + 1, "kitchen"), (2, lead_in + 4, "garden thing")):
        asks = inputs["input_ids"][row] == model.vocabulary.behavior_token_ids["search_query"]
        tokens = inputs["input_ids"][row, asks.nonzero()[-1 if row == 2 else 0, 0] + 1 :]
        length = (
            ((tokens >= model.vocabulary.first_token_id) | (tokens == 0)).tolist().index(True) if row < 2 else None
        )
        tokens = tokens[:length]
        assert processor.tokenizer.decode(tokens) == text
        expected = {
            "tokens": model.shared.weight[tokens].sum(0),
            "words": model.encoder.item_vectors.words(torch.from_numpy(text_word_keys([text]).pad(NO_WORD)))[0],
            "text": model.encoder.query_projection.weight.sum(1) * len(text) if size else 0.0,
        }
        assert expected["words"].abs().max() > 0.05  # titles have it
        wanted = begins + sum(expected[part] for part in parts)
        torch.testing.assert_close(given[0][row, place], wanted, msg=text)
    for request, answer in zip(asked, answers, strict=True):
        assert [item.item_id for item in model.retrieve(processor(request), top_k=3, exclude_seen=False)[0]] == [
            item.item_id for item in answer
        ]
    model.config.trained_tasks = ["nsqp"]
    assert model.suggest_queries(asked[1], processor=processor, num_queries=2) is not None
    with pytest.raises(RequestError, match="contain no `query_"):
        model.retrieve(
            BatchFeature(
                {name: inputs[name] for name in inputs if not name.startswith("query_w")}
                if parts == ["words"]
                else {name: inputs[name] for name in inputs if name != "query_vectors"}
            )
        )


@torch.no_grad()
def test_a_search_is_answered_by_its_state_and_the_one_before(aisles):
    plain, processor = make_gensar(aisles, **{**ALL_PARTS, "query_reading": ["tokens"]})
    model, _ = make_gensar(aisles, **{**ALL_PARTS, "query_reading": ["tokens", "recommendation"]})
    model.load_state_dict(plain.state_dict())
    asked = [Request(HISTORY), Request(HISTORY, query="office"), Request([], query="garden")]
    inputs = [processor([request]) for request in asked]
    # A history holds an answered query, too: <lead-in> i0, query, i9, i1.
    for request, one in zip(asked, inputs, strict=True):
        own, both = (
            each.encoder.encode_events(one["input_ids"], one["attention_mask"]).output[0][0] for each in (plain, model)
        )
        queries = [len(own) - 1] if request.query else []
        queries += [len(own) - 3 - len(queries)] if request.history else []
        expected = own.clone()
        expected[queries] += own[[place - 1 for place in queries]]
        torch.testing.assert_close(both, expected)
        read = model.encoder(input_ids=one["input_ids"], attention_mask=one["attention_mask"])[0]
        torch.testing.assert_close(read[0, 0], expected[-1])  # what the decoder reads, too


def test_the_weight_is_that_of_picking_the_next_item(aisles):
    """Twice the weight adds the likelihood of the targets among all items, by hand; a vector is left out whole."""
    split, catalog, tokenizer, vocabulary = aisles
    losses, states = {}, {}
    for weight in (1.0, 2.0):
        model, processor = make_gensar(aisles, **ALL_PARTS, next_item_weight=weight)
        rows = build_stream(split, catalog, tokenizer, vocabulary, model.config, shares={"nsip": 1.0})
        collate = StreamCollator(tokenizer.pad_token_id, tokenizer.pad_token_id)
        batch = QueryReadingCollator(collate, processor)([rows[0]])
        losses[weight] = model.train()(**batch, num_items_in_batch=1).loss.item()
    states = model.encoder.encode_events(batch["input_ids"], batch["attention_mask"], None, batch["query_words"])
    vectors, expected = model.embed_items("semantic"), 0.0
    for segment in batch["decoder_segment_ids"][0].unique():
        place = (batch["decoder_segment_ids"][0] == segment).nonzero()[0, 0]
        seen = batch["decoder_history_lengths"][0, place]
        state = states.output[0][0, states.event_of_token[0, seen - 1]]
        codes = batch["labels"][0, place : place + 2].numpy() - vocabulary.level_offsets["semantic"]
        target = (catalog.codes["semantic"] == codes).all(1).argmax()
        expected -= (vectors @ state).log_softmax(0)[target].item()
    assert losses[2.0] - losses[1.0] == pytest.approx(expected, rel=1e-4)
    items = model.encoder.item_vectors
    items.dropout_rate = 0.5
    with torch.no_grad():
        rest = items.eval()() - items.own.weight
        items.train()
        kept = (items() - rest) / items.own.weight
    assert {round(number) for number in kept.mean(1).tolist()} == {0, 2}
    assert (kept - kept.mean(1, keepdim=True)).abs().max() < 1e-3


def test_each_view_begins_as_large_as_a_code(aisles):
    model, _ = make_gensar(aisles, **READING)
    projection = model.encoder.item_vectors.projection.weight
    spread = model.shared.weight.std().item()
    first, second = joined_vectors(model.catalog).split(list(VECTOR_SIZES.values()), dim=1)
    for vectors, weight in ((first, projection[:, : first.shape[1]]), (second, projection[:, first.shape[1] :])):
        # A sum of `size` products of variance spread ** 2 / size each.
        assert (vectors @ weight.T).std().item() == pytest.approx(spread, rel=0.35)


@torch.no_grad()
def test_found_items_and_candidates_stand_in_the_encoders_order(aisles):
    plain, processor = make_gensar(aisles, **READING)
    model, _ = make_gensar(aisles, **ORDERING)
    model.load_state_dict(plain.state_dict())
    vectors = joined_vectors(model.catalog) @ model.encoder.item_vectors.projection.weight.T
    for request in REQUESTS:
        inputs = processor([request])
        state = model.encoder.encode_events(inputs["input_ids"], inputs["attention_mask"]).output[0][0, -1]
        view = model.catalog.view_of(request.behavior)
        tokens = torch.from_numpy(model.vocabulary.encode(model.catalog.codes[view], view))
        scores = (model.shared.weight[tokens].sum(1) + vectors) @ state
        beams = {item.item_id for item in plain.retrieve(inputs, top_k=6, num_beams=6, exclude_seen=False)[0]}
        wanted = [f"i{row}" for row in scores.argsort(descending=True).tolist() if f"i{row}" in beams]
        answer = model.retrieve(inputs, top_k=4, num_beams=6, exclude_seen=False)[0]
        assert [item.item_id for item in answer] == wanted[:4]
        assert [item.score for item in answer] == pytest.approx(
            [scores[int(item_id[1:])].item() for item_id in wanted[:4]], abs=1e-4
        )
        # Beams as wide as the catalogue: the order of all items.
        everything = model.retrieve(inputs, top_k=NUM_ITEMS, num_beams=NUM_ITEMS, exclude_seen=False)[0]
        order = [f"i{row}" for row in scores.argsort(descending=True).tolist()]
        assert [item.item_id for item in everything] == order
        # Or all of them scored, without beams, and what is added.
        best = model.retrieve(inputs, top_k=5, num_beams=1, exclude_seen=False, exact=True)[0]
        assert [item.item_id for item in best] == order[:5]
        assert best[0].score == pytest.approx(scores.max().item(), abs=1e-4)
        few = {"where": order[5:9], "boost": {order[8]: 100.0}, "exact": True, "exclude_seen": False}
        assert [item.item_id for item in model.retrieve(inputs, top_k=2, **few)[0]] == [order[8], order[5]]
        candidates = ["i3", "i20", "i11"]
        ranked = model.rank(processor([request], candidates=[candidates]))[0]
        assert [item.item_id for item in ranked] == sorted(candidates, key=order.index)


@torch.no_grad()
@pytest.mark.parametrize("is_grown", [False, True])
@pytest.mark.parametrize("cells", [2**20, 4 * 5])  # in one block, in five
def test_an_exact_answer_has_the_best_sums_of_all_items(aisles, is_grown, cells, monkeypatch):
    monkeypatch.setattr(added_scores, "_BLOCK_CELLS", cells)
    monkeypatch.setattr(added_scores, "_LEAST_ITEMS", 1)
    model, processor = make_gensar(aisles, **ORDERING)
    catalog = grow(model, processor) if is_grown else model.catalog
    if is_grown:
        catalog = catalog.remove_items(["i3"])
        model.set_catalog(catalog)
    rng, everything = np.random.default_rng(0), np.arange(len(catalog))
    inputs, counts = processor(REQUESTS), [1, 5, 100, 4]
    own = model.score_items(inputs, [everything] * len(REQUESTS))
    lines = rng.normal(scale=3, size=(len(REQUESTS), len(catalog))).astype(np.float32)
    masks = [None, rng.random(len(catalog)) < 0.5, None, np.zeros(len(catalog), bool)]
    for boost in (None, lines[0], lines):
        # What a caller boosts is looked for among all items anyway.
        how = {"exact": True} if boost is None else {"num_beams": 1}
        answers = model.retrieve(inputs, top_k=counts, where=masks, exclude_seen=False, boost=boost, **how)
        added = np.zeros_like(lines) if boost is None else np.broadcast_to(boost, lines.shape)
        for answer, scores, more, mask, count in zip(answers, own, added, masks, counts, strict=True):
            allowed = catalog.live if mask is None else catalog.live & mask
            total = np.where(allowed, scores + more, -np.inf)
            best = np.argsort(-total, kind="stable")[: min(count, allowed.sum())]
            assert [item.item_id for item in answer] == [catalog.id_map.ids[row] for row in best]
            assert [item.score for item in answer] == pytest.approx(total[best].tolist(), abs=1e-4)
    # What beams would refuse is refused where there are none, too.
    with pytest.raises(RequestError, match="`num_beams` is 0"):
        model.retrieve(inputs, boost=lines[0], num_beams=0)
    # Of equal sums the first rows.
    model.shared.weight.zero_()
    model.encoder.item_vectors.projection.weight.zero_()
    for answer in model.retrieve(inputs, top_k=5, exclude_seen=False, exact=True):
        assert [item.item_id for item in answer] == [
            catalog.id_map.ids[row] for row in np.flatnonzero(catalog.live)[:5]
        ]


@torch.no_grad()
def test_a_batch_of_both_tasks_with_limits_is_answered_alone_as_together(aisles):
    model, processor = make_gensar(aisles, **ORDERING)
    garden = model.catalog.where(title_contains="garden")
    together = model.retrieve(
        processor(REQUESTS), top_k=[1, 2, 3, 4], where=garden, num_beams=[8, 8, 8, 1], exclude_seen=False
    )
    for number, (request, answer) in enumerate(zip(REQUESTS, together, strict=True)):
        beams = [8, 8, 8, 1][number]
        alone = model.retrieve(
            processor([request]), top_k=number + 1, where=garden, num_beams=beams, exclude_seen=False
        )[0]
        assert [item.item_id for item in answer] == [item.item_id for item in alone]
        assert len(answer) == number + 1 and all(int(item.item_id[1:]) < 8 for item in answer)


def test_beams_and_order_read_a_history_once(aisles):
    model, processor = make_gensar(aisles, **ORDERING)
    passes = []
    model.encoder.register_forward_hook(lambda *call: passes.append(call))
    assert all(model.retrieve(processor(REQUESTS), top_k=3, num_beams=4, exclude_seen=False))
    assert len(passes) == 1


@pytest.mark.parametrize("num_known", [NUM_ITEMS, 6])
def test_items_that_speak_for_new_ones_are_embedded_once(aisles, num_known, monkeypatch):
    """Whether they are most of the catalogue or few of it."""
    monkeypatch.setattr(new_items, "MAX_POOL", num_known)
    model, processor = make_gensar(aisles, **ALL_PARTS)
    grow(model, processor)
    inputs, fresh, embedded = processor(REQUESTS), copy.deepcopy(model), []

    def ask(one=model):
        answers = one.retrieve(inputs, top_k=3, where=["new0", "new1", "new2"], exclude_seen=False)
        return [[(item.item_id, item.score) for item in answer] for answer in answers]

    def embed(view, rows, snapshot, embed=model.embed_items):
        if rows is None or len(rows) > 3:  # else the new ones, as beams found them
            embedded.append(view)
        return embed(view, rows, snapshot)

    monkeypatch.setattr(model, "embed_items", embed)
    first = ask()
    assert sorted(embedded) == ["collaborative", "semantic"]
    assert ask() == first == ask(fresh)
    assert len(embedded) == 2
    # Anew with another catalogue, and with other weights.
    model.set_catalog(model.catalog.remove_items(["i0"]))
    ask()
    assert len(embedded) == 4
    with torch.no_grad():
        model.shared.weight.mul_(1.5)
    assert ask() != first
    assert len(embedded) == 6


def test_what_is_read_travels_with_the_checkpoint(aisles, tmp_path):
    model, processor = make_gensar(aisles, **ALL_PARTS)
    save_checkpoint(model, processor, tmp_path)
    loaded, its_processor = AutoModel.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    request = Request([Event("i4")], query="office")
    before, after = (
        one.retrieve(made(request), top_k=5, exclude_seen=False)[0]
        for one, made in ((model, processor), (loaded, its_processor))
    )
    assert [item.item_id for item in after] == [item.item_id for item in before]
    assert [item.score for item in after] == pytest.approx([item.score for item in before], abs=1e-5)
    assert torch.equal(loaded.encoder.item_vectors.table.vectors, joined_vectors(model.catalog))
    # A processor that reads less of queries is of another model.
    _, other = make_gensar(aisles, **{**ALL_PARTS, "query_reading": ["tokens"]})
    other.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="`query_reading`"):
        AutoProcessor.from_pretrained(tmp_path)


def test_a_catalogue_with_other_vectors_is_refused(aisles):
    _, catalog, *_ = aisles
    model, _ = make_gensar(aisles, **READING)
    without = Catalog.build(catalog.items, catalog.codes, num_shared_levels=1, codebook_size=catalog.codebook_size)
    with pytest.raises(CatalogError, match="`item_vector_size` is 8 in the model, but the catalogue's vectors have 0"):
        model.set_catalog(without)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"item_vector_size": 8}, "`item_vector_size` is 8 and `corpus` 'instructions'; it needs `corpus: stream`"),
        ({"corpus": "stream", "item_vector_size": -1}, "`item_vector_size` is -1"),
        ({"corpus": "stream", "order_by": "encoder"}, "order_by"),
        ({"next_item_weight": 8.0}, "`next_item_weight` is 8.0 and `corpus` 'instructions'"),
        ({"corpus": "stream", "query_reading": ["recommendation"]}, "add a part of the query"),
        ({"corpus": "stream", "query_reading": ["words"]}, "add 'words' to `item_reading` as well"),
        ({"corpus": "stream", "item_reading": []}, r"`item_reading` is \[\]; name at least one part"),
        ({"item_reading": ["codes"]}, "`item_reading` is .*; it needs `corpus: stream`"),
        ({"order_by": "next_item"}, "`order_by` is 'next_item', which only a model with `corpus: stream`"),
    ],
)
def test_contradicting_settings_are_refused(settings, message):
    with pytest.raises(Exception, match=message):
        GenSARConfig(**settings)


@pytest.mark.filterwarnings("ignore:.*tied.*:UserWarning")
def test_adapters_train_what_reads_items_whole(aisles):
    from seekrec.recipes.t5 import add_lora

    split, catalog, tokenizer, vocabulary = aisles
    model, processor = make_gensar(aisles, **ALL_PARTS)
    wrapped = add_lora(model, 4).train()
    before = {name: part.weight.detach().clone() for name, part in model.encoder.item_vectors.named_children()}
    rows = build_stream(split, catalog, tokenizer, vocabulary, model.config)
    collate = QueryReadingCollator(StreamCollator(tokenizer.pad_token_id, tokenizer.pad_token_id), processor)
    batch = collate([rows[0], rows[1]])
    optimizer = torch.optim.SGD([weight for weight in wrapped.parameters() if weight.requires_grad], lr=0.1)
    wrapped(**batch).loss.backward()
    optimizer.step()
    merged = wrapped.merge_and_unload()
    after = {name: part.weight for name, part in merged.encoder.item_vectors.named_children()}
    assert before.keys() == {"projection", "own", "words"}
    assert not any(torch.equal(after[name], before[name]) for name in before)
    assert isinstance(merged, GenSARForConditionalGeneration)
