"""What GenSR is asked in training: from training events only, and in the words of the processor."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from transformers import TrainingArguments

from seekrec.catalog import Catalog
from seekrec.corpora import train_tokenizer
from seekrec.embeddings import SASRecForNextItem
from seekrec.errors import ConfigurationError, DataError
from seekrec.events import EventLog, category_queries, has_training_events, split_log
from seekrec.models import GenSRConfig, GenSRProcessor
from seekrec.models.gensr.processing_gensr import tokenizer_texts
from seekrec.recipes import items as preparation
from seekrec.recipes.arguments import CollaborativeArguments, EmbeddingArguments, T5Arguments
from seekrec.recipes.collaborative import prepare_collaborative, prepare_lightgcn, prepare_sasrec
from seekrec.recipes.gensr import make_gensr_model, make_gensr_trainer
from seekrec.recipes.items import prepare_embeddings, prepare_plain_items
from seekrec.recipes.stages import StageCache
from seekrec.schema import item_texts
from seekrec.training import RequestArguments, training_requests
from seekrec.training.gensr_batches import EncodedRequests, GenSRCollator
from seekrec.training.gensr_data import negative_sampler

NUM_ITEMS = 20
SIZES = {"d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2}
CONFIG = GenSRConfig(wording="short", max_history=3, identifier_weight=1.0, **SIZES)


def make_log(query_source="category"):
    """Ten users act on six items in a row; every second act is a search for the item's category."""
    kinds = ("kites", "ropes")
    items = pa.table(
        {
            "item_id": [f"i{row}" for row in range(NUM_ITEMS)],
            "title": [f"{kinds[row % 2]} number {row}" for row in range(NUM_ITEMS)],
            "categories": [[["Toys", kinds[row % 2].title()]] for row in range(NUM_ITEMS)],
        }
    )
    events = [
        {
            "user_id": f"u{user}",
            "timestamp": step,
            "behavior": "search" if step % 2 else "recommendation",
            "query": f"toys {kinds[(user + step) % 2]}" if step % 2 else None,
            "item_id": f"i{(user + step) % NUM_ITEMS}",
            "action": "impression" if step == 0 and user == 0 else "click",
        }
        for user in range(10)
        for step in range(6)
    ]
    return EventLog("toys", pa.Table.from_pylist(events), items, query_source=query_source)


@pytest.fixture(scope="module")
def toys():
    split = split_log(make_log())
    items = split.log.items
    catalog = Catalog.build(
        items,
        {"collaborative": np.arange(NUM_ITEMS)[:, None]},
        num_shared_levels=1,
        codebook_size=NUM_ITEMS,
    )
    tokenizer = train_tokenizer([*tokenizer_texts(item_texts(items)), "toys"], 300)
    return split, catalog, GenSRProcessor.from_config(CONFIG, tokenizer, catalog)


def test_requests_are_the_training_interactions_with_what_came_before(toys):
    split, catalog, _ = toys
    requests = training_requests(split, catalog, RequestArguments(), max_history=2, seed=0)
    # Four training events a user (the last two are held out), two of each behavior; one was only shown.
    assert requests.count() == {"recommendation": 19, "search": 20}
    events = split.log.events
    for number in range(len(requests)):
        history = requests.histories.take([number]).values
        target = requests.targets[number]
        assert len(history) <= 2
        assert all(events["action"][row].as_py() == "click" for row in history.tolist())
        owner = split.timeline.user[history]
        assert (owner == requests.users[number]).all()
        # Each item of a user is one step after the one before, so steps tell the times.
        steps = [(int(requests.events.item[row]) - requests.users[number]) % NUM_ITEMS for row in history]
        own = (int(target) - requests.users[number]) % NUM_ITEMS
        assert own < 4 and all(step < own for step in steps)
        query = requests.query_numbers[number]
        assert (query < 0) == (own % 2 == 0)
        if query >= 0:
            assert requests.queries[query] == f"toys {('kites', 'ropes')[target % 2]}"


def test_events_the_recommender_has_not_seen_are_asked_for_alone(toys):
    split, catalog, _ = toys
    every = training_requests(split, catalog, RequestArguments(), max_history=20, seed=0)
    requests = training_requests(split, catalog, RequestArguments(num_unseen_events=1), max_history=20, seed=0)
    # The last of four training events is a search, for all ten users.
    assert requests.count() == {"recommendation": 0, "search": 10}
    assert set(zip(requests.users.tolist(), requests.targets.tolist(), strict=True)) == {
        (user, (user + 3) % NUM_ITEMS) for user in range(10)
    }
    two = training_requests(split, catalog, RequestArguments(num_unseen_events=2), max_history=20, seed=0)
    assert two.count() == {"recommendation": 10, "search": 10}
    # The first interaction of a user is never left to the model: it begins every sequence of the recommender.
    most = training_requests(split, catalog, RequestArguments(num_unseen_events=9), max_history=20, seed=0)
    assert len(most) == len(every) - 10


def test_items_can_be_asked_for_in_both_tasks(toys):
    split, catalog, _ = toys
    settings = RequestArguments(extra_requests=["recommend_searched_items", "search_recommended_items"])
    requests = training_requests(split, catalog, settings, max_history=20, seed=0)
    assert requests.count() == {"recommendation": 39, "search": 39}
    choices = category_queries(catalog.items)
    for target, query in zip(requests.targets[39:].tolist(), requests.query_numbers[39:].tolist(), strict=True):
        assert requests.queries[query] in choices[target]
    typed = split_log(make_log(query_source="logged"))
    with pytest.raises(ConfigurationError, match="the log's queries are logged"):
        training_requests(typed, catalog, settings, max_history=20, seed=0)


def test_every_item_can_be_asked_for_without_a_history(toys):
    split, catalog, processor = toys
    plain = training_requests(split, catalog, RequestArguments(), max_history=20, seed=0)
    settings = RequestArguments(extra_requests=["item_queries"], negatives=["uniform=4"])
    requests = training_requests(split, catalog, settings, max_history=20, seed=0)
    before, added = len(plain), slice(len(plain), None)
    for name in ("behaviors", "query_numbers", "users", "targets"):
        np.testing.assert_array_equal(getattr(requests, name)[:before], getattr(plain, name))
    # Each item of the catalogue by each of its queries, and nobody's history.
    asked = zip(requests.targets[added].tolist(), requests.query_numbers[added].tolist(), strict=True)
    choices = category_queries(catalog.items)
    assert [(row, requests.queries[query]) for row, query in asked] == [
        (row, query) for row, of_item in enumerate(choices) for query in of_item
    ]
    assert not requests.histories.lengths[added].any() and (requests.behaviors[added] == 1).all()
    assert not set(requests.users[added]) & set(plain.users)
    place = catalog.items.column_names.index("categories")
    nothing = pa.nulls(len(catalog), catalog.items.schema.field(place).type)
    bare = replace(catalog, items=catalog.items.set_column(place, "categories", nothing))
    with pytest.raises(DataError, match="No item of the catalogue has a category path .* leave `item_queries` out"):
        training_requests(split, bare, settings, max_history=20, seed=0)
    # The item is not drawn beside itself.
    sampler = negative_sampler(split, catalog, requests, settings, seed=0)
    batch = GenSRCollator(requests, processor, sampler)(list(range(before, len(requests))))
    candidates = batch["candidate_rows"]
    assert not (candidates[:, 1:] == candidates[:, :1]).any()


def test_a_batch_holds_the_answer_and_items_the_user_does_not_know(toys):
    split, catalog, processor = toys
    settings = RequestArguments(negatives=["uniform=2", "popularity=1", "bm25=3"], num_bm25_matches=5)
    requests = training_requests(split, catalog, settings, max_history=20, seed=0)
    sampler = negative_sampler(split, catalog, requests, settings, seed=0)
    collate = GenSRCollator(requests, processor, sampler)
    codes = [len(requests) + row for row in range(len(requests))]  # the second epoch
    batch = collate(codes)
    assert batch["candidate_rows"][:, 0].tolist() == requests.targets.tolist()
    assert batch["candidate_labels"].tolist() == [[1, 0, 0, 0, 0, 0, 0]] * len(requests)
    for user, negatives in zip(requests.users.tolist(), batch["candidate_rows"][:, 1:].tolist(), strict=True):
        known = {(user + step) % NUM_ITEMS for step in range(4)} - ({0} if user == 0 else set())
        assert not known & set(negatives)
    # Matches of "toys kites" are kites: even rows.
    kites = [number for number in range(len(requests)) if "kites" in requests.queries[requests.query_numbers[number]]]
    kites = [number for number in kites if requests.query_numbers[number] >= 0]
    assert (batch["candidate_rows"][kites][:, 4:] % 2 == 0).all()
    # One atomic code an item, behind the token of the behavior.
    first = processor.vocabulary.first_token_id
    assert (batch["identifier_labels"][:, 0] - first - 3).tolist() == requests.targets.tolist()
    assert (batch["identifier_inputs"][:, 0] - first).tolist() == [0] * 19 + [2] * 20
    # The same rows of another epoch have other negatives; a part of the batch the same.
    assert collate(list(range(len(requests))))["candidate_rows"].tolist() != batch["candidate_rows"].tolist()
    assert collate(codes[5:8])["candidate_rows"].tolist() == batch["candidate_rows"][5:8].tolist()
    lengths = EncodedRequests(requests, processor).lengths
    assert lengths[:19].tolist() == requests.histories.lengths[:19].tolist()
    assert (lengths[19:] > requests.histories.lengths[19:]).all()


@pytest.mark.parametrize(
    ("negatives", "message"),
    [
        (["random=2"], "`negatives` has random=2"),
        (["uniform=1.5"], "write whole numbers of uniform, popularity, bm25"),
    ],
)
def test_wrong_negatives_are_refused(negatives, message):
    with pytest.raises(ConfigurationError, match=message):
        RequestArguments(negatives=negatives)


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([], (19, 20)),
        (["recommendation=1", "search=2"], (13, 26)),
        (["search=2"], (0, 39)),
        (["recommendation=1", "search=0"], (39, 0)),
    ],
)
def test_every_choice_of_tasks_takes_the_same_steps(toys, tmp_path, weights, shares):
    split, catalog, processor = toys
    settings = RequestArguments(task_weights=weights)
    table = np.random.default_rng(0).normal(size=(NUM_ITEMS, 4)).astype(np.float32)
    model = make_gensr_model(catalog, processor, table, T5Arguments(), CONFIG, seed=0)
    requests = training_requests(split, catalog, settings, max_history=3, seed=0)
    arguments = TrainingArguments(output_dir=str(tmp_path), per_device_train_batch_size=8, use_cpu=True)
    trainer = make_gensr_trainer(model, processor, split, requests, settings, arguments, evaluate_model=None)
    rows = np.array(list(trainer._get_train_sampler())) % len(requests)
    behaviors = requests.behaviors[rows]
    assert len(trainer.get_train_dataloader()) == 5  # 39 requests in batches of 8
    assert (int((behaviors == 0).sum()), int((behaviors == 1).sum())) == shares
    with pytest.raises(ConfigurationError, match="`task_weights` names 'nrip'; the tasks are recommendation and"):
        RequestArguments(task_weights=["nrip=1"])


def test_items_without_learnt_identifiers(toys, tmp_path, monkeypatch):
    split, *_ = toys
    vectors = np.random.default_rng(0).normal(size=(NUM_ITEMS, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(preparation, "embed_in_blocks", lambda texts, *_, **__: vectors[: len(texts)])
    cache = StageCache(tmp_path)
    settings = EmbeddingArguments(sasrec_num_epochs=1, sasrec_hidden_size=8)
    embeddings = prepare_embeddings(split, settings, cache, seed=0, report_progress=False)
    plain = prepare_plain_items(split, embeddings, atomic=False, has_events=has_training_events(split))
    assert plain.catalog.views == () and plain.quality is None
    atomic = prepare_plain_items(split, embeddings, atomic=True, has_events=has_training_events(split))
    assert atomic.catalog.codes["collaborative"][:, 0].tolist() == list(range(NUM_ITEMS))
    assert atomic.catalog.embeddings["collaborative"].shape == (NUM_ITEMS, 8)
    model, graph = prepare_lightgcn(split, CollaborativeArguments(lightgcn_num_epochs=1), cache, hidden_size=4, seed=0)
    assert model.item_embeddings().shape == (NUM_ITEMS, 4)
    assert len(graph.user_ids) == 10 and len(graph.users) == 19  # recommendations alone


def test_the_recommender_learns_the_events_it_had_not_seen_when_the_model_has(toys, tmp_path):
    split, *_ = toys
    cache = StageCache(tmp_path)
    settings = EmbeddingArguments(sasrec_num_epochs=2, sasrec_hidden_size=8)
    sasrec, _ = prepare_sasrec(split, settings, cache, seed=0)
    lightgcn, _ = prepare_lightgcn(split, CollaborativeArguments(lightgcn_num_epochs=1), cache, hidden_size=4, seed=0)

    def prepare(source, **reading):
        collaborative = CollaborativeArguments(collaborative_source=source)
        return prepare_collaborative(split, sasrec, lightgcn, settings, collaborative, cache, seed=0, **reading)

    assert prepare("sasrec", reads_states=True).answering is sasrec
    # Where nothing is finished nothing is put in the place of what was trained.
    for name, model in (("sasrec", sasrec), ("lightgcn", lightgcn)):
        source = prepare(name)
        assert source.answering is source.training
        np.testing.assert_array_equal(source.training, model.item_embeddings())
    both = prepare("sasrec", reads_states=True, num_unseen_events=1)
    begun = SASRecForNextItem.from_pretrained(next(tmp_path.glob("sasrec-unseen-*")))
    tables = [model.item_embeddings() for model in (begun, both.training, both.answering)]
    np.testing.assert_array_equal(tables[0], tables[1])
    # It goes on from there: two steps of AdamW, an epoch each, which moves no weight by more than its rate.
    assert 0 < np.abs(tables[2] - tables[1]).max() < 2 * 1e-3
    record = json.loads((next(tmp_path.glob("sasrec-finished-*")) / "stage.json").read_text())
    assert record["key"]["num_finishing_epochs"] == 2
    assert set(record["files"]) == {"config.json", "model.safetensors"}  # checkpoints are gone
    table = prepare("sasrec", num_unseen_events=1)
    np.testing.assert_array_equal(table.training, tables[1])
    np.testing.assert_array_equal(table.answering, tables[2])
    with pytest.raises(ConfigurationError, match="`filtered_history: recommender` needs SASRec; pass"):
        prepare("lightgcn", reads_states=True)
    with pytest.raises(ConfigurationError, match="`num_unseen_events: 1` needs SASRec; pass"):
        prepare("lightgcn", num_unseen_events=1)
