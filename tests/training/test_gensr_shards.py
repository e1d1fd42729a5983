# SPDX-License-Identifier: Apache-2.0
"""GenSR's requests in shards: those of the log in memory, with the negatives that it would allow."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from ray_cluster import two_nodes
from small_shop import make_aisles

from seekrec.corpora import train_tokenizer
from seekrec.errors import ConfigurationError
from seekrec.events.matching import HardMatches
from seekrec.events.partitions import PartitionedLog, partition_log, split_partitions
from seekrec.events.partitions.training_facts import gather_training_facts
from seekrec.models import GenSRConfig, GenSRProcessor
from seekrec.models.gensr.processing_gensr import tokenizer_texts
from seekrec.schema import BEHAVIORS, item_texts
from seekrec.training.gensr_batches import EncodedRequests, GenSRCollator
from seekrec.training.gensr_data import RequestArguments, negative_sampler, training_requests
from seekrec.training.gensr_shards import write_request_shards
from seekrec.training.shards import ShardSampler

ALL_EXTRAS = ["recommend_searched_items", "search_recommended_items", "item_queries"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A split in memory, the same in three partitions with the facts of training, and a processor."""
    split, catalog, *_ = make_aisles()
    split = replace(split, log=replace(split.log, query_source="category"))
    folder = tmp_path_factory.mktemp("shop")
    pq.write_table(split.log.events, folder / "events.parquet")
    partition_log(folder / "events.parquet", split.log.items, folder / "log", num_partitions=3)
    # Partitions of a log whose queries were made from categories.
    description = json.loads((folder / "log/partitions.json").read_text())
    (folder / "log/partitions.json").write_text(json.dumps({**description, "query_source": "category"}))
    parted = split_partitions(PartitionedLog.load(folder / "log"), folder / "split")
    facts = gather_training_facts(parted, folder / "facts")
    tokenizer = train_tokenizer(tokenizer_texts(item_texts(split.log.items)), 300)
    config = GenSRConfig(wording="short", max_history=4, d_model=16, num_heads=2)
    return split, parted, facts, GenSRProcessor.from_config(config, tokenizer, catalog), folder


def batches_of(source, processor):
    """Every request alone as the batch that a model reads, without the number of its user."""
    collate = GenSRCollator(source, processor, None)
    found = []
    for code in range(len(source)):
        batch = collate([code])
        batch.pop("user_ids")
        found.append(repr({name: batch[name].tolist() for name in sorted(batch)}))
    return sorted(found)


def user_ids(split):
    return split.log.events["user_id"].combine_chunks().take(split.timeline.first_rows()).to_pylist()


@pytest.mark.parametrize(
    "asked",
    [{}, {"num_unseen_events": 2, "extra_requests": ALL_EXTRAS[:1]}, {"extra_requests": ALL_EXTRAS}],
    ids=["plain", "unseen", "extras"],
)
def test_requests_of_partitions_are_those_of_the_log(shop, asked):
    split, parted, facts, processor, folder = shop
    catalog = processor.catalog
    negatives = ["uniform=2", "popularity=1", "bm25=1"]
    settings = RequestArguments(**asked, negatives=negatives, num_bm25_matches=5)
    shards = write_request_shards(parted, processor, facts, settings, folder / f"requests-{len(str(asked))}", seed=0)
    requests = training_requests(split, catalog, settings, max_history=4, seed=0)
    assert shards.num_rows == requests.count() and min(shards.num_rows.values()) > 20
    encoded = EncodedRequests(requests, processor)
    assert batches_of(shards, processor) == batches_of(encoded, processor)
    every = np.arange(len(shards))
    assert sorted(shards.lengths(every)) == sorted(encoded.lengths)

    # The same items are spared, and the same match a text.
    sampler = shards.sampler(settings, len(catalog), seed=0)
    users = [user for part in parted for user in user_ids(part)] + list(range(len(catalog)))
    names = user_ids(split) + list(range(len(catalog)))
    in_memory = negative_sampler(split, catalog, requests, settings, seed=0)
    spared, expected = (
        {(of[key // len(catalog)], key % len(catalog)) for key in one._known.tolist()}
        for one, of in ((sampler, users), (in_memory, names))
    )
    assert spared == expected and (np.diff(sampler._known) > 0).all()
    queries = sorted(set(facts.queries.to_pylist()))
    matches = HardMatches(catalog.items).table(queries, 5)
    assert (shards.texts[np.arange(len(queries))] == matches).all()
    titles = HardMatches(catalog.items).table(catalog.items["title"].to_pylist(), 5)
    assert (shards.texts[shards.num_queries + np.arange(len(catalog))] == titles).all()
    batch = GenSRCollator(shards, processor, sampler)(every.tolist())
    drawn = batch["candidate_rows"].tolist()
    assert all(
        (users[user], item) not in spared
        for user, row in zip(batch["user_ids"].tolist(), drawn, strict=True)
        for item in row[1:]
    )
    # Places that are free in a batch hold a code below 0.
    assert len(GenSRCollator(shards, processor, sampler)([3, -4])["user_ids"]) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_writes_the_same_shards(shop, tmp_path):
    _, parted, facts, processor, folder = shop
    settings = RequestArguments(extra_requests=ALL_EXTRAS, negatives=["bm25=1"], num_bm25_matches=5)
    expected = write_request_shards(parted, processor, facts, settings, folder / "local", seed=0)
    with two_nodes():
        found = write_request_shards(parted, processor, facts, settings, tmp_path, seed=0, engine="ray")
    assert found.shards == expected.shards and found.texts.shards == expected.texts.shards
    arrays = [np.load(one.folder / "acted.npy") for one in (found, expected)]
    assert (arrays[0] == arrays[1]).all()


def test_an_interrupted_writing_goes_on_and_other_settings_begin_anew(shop):
    _, parted, facts, processor, folder = shop
    target, settings = folder / "again", RequestArguments()
    first = write_request_shards(parted, processor, facts, settings, target, seed=0)
    kept = target / "shard-00000/search.arrow"
    stamp = kept.stat().st_mtime_ns
    (target / "shards.json").unlink()
    again = write_request_shards(parted, processor, facts, settings, target, seed=0)
    assert kept.stat().st_mtime_ns == stamp and again.fingerprint == first.fingerprint
    other = write_request_shards(parted, processor, facts, RequestArguments(num_unseen_events=1), target, seed=0)
    assert len(other) < len(first)
    assert not (target / "inputs").exists()


def test_tasks_are_mixed_by_weight_and_what_cannot_be_asked_is_refused(shop, tmp_path):
    _, parted, facts, processor, folder = shop
    shards = write_request_shards(parted, processor, facts, RequestArguments(), tmp_path / "some", seed=0)
    counts = shards.num_rows
    sampler = ShardSampler(
        shards, batch_size=4, seed=0, weights={"search": 3.0, "recommendation": 1.0}, epoch_size=40, buffer_size=16
    )
    assert sampler.rows_per_epoch == {"recommendation": 10, "search": 30}
    of_row = np.repeat([shard.task for shard in shards.shards], np.diff(shards.first))
    dealt = []
    for epoch in range(8):
        sampler.set_epoch(epoch)
        rows = np.array(list(sampler)) - epoch * len(shards)
        assert [(of_row[rows] == name).sum() for name in BEHAVIORS] == [10, 30]
        dealt.append(rows)
    # Dealt like cards: no search comes again before all came.
    searches = np.concatenate(dealt)[of_row[np.concatenate(dealt)] == "search"]
    for start in range(0, len(searches) - counts["search"], counts["search"]):
        assert len(set(searches[start : start + counts["search"]].tolist())) >= counts["search"] - 16
    totals = np.bincount(searches, minlength=len(shards))[of_row == "search"]
    assert totals.max() - totals.min() <= 1
    logged = replace(parted, log=replace(parted.log, query_source="logged"))
    with pytest.raises(ConfigurationError, match="makes queries from categories"):
        settings = RequestArguments(extra_requests=["search_recommended_items"])
        write_request_shards(logged, processor, facts, settings, tmp_path / "none", seed=0)
