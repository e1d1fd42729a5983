# SPDX-License-Identifier: Apache-2.0
"""Windows and corpora of partitions against those of the whole log in memory."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from ray_cluster import two_nodes
from small_shop import make_aisles

from seekrec.corpora import build_corpus, build_item_queries, build_stream
from seekrec.corpora.instructions import write_history_tasks
from seekrec.corpora.partitioned import write_corpus_shards
from seekrec.corpora.stream import HISTORY_TASKS, write_stream
from seekrec.corpora.templates import choose_tasks
from seekrec.corpora.training_windows import build_training_windows, log_actions
from seekrec.events.partitions import partition_log, split_partitions
from seekrec.events.partitions.buckets import event_keys
from seekrec.events.sessions import guess_session_ids
from seekrec.models import GenSARConfig


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A split in memory, the same in three partitions, and what a corpus is made of."""
    split, catalog, tokenizer, vocabulary = make_aisles()
    folder = tmp_path_factory.mktemp("shop")
    pq.write_table(split.log.events, folder / "events.parquet")
    log = partition_log(folder / "events.parquet", split.log.items, folder / "log", num_partitions=3)
    parted = split_partitions(log, folder / "split")
    return split, parted, catalog, tokenizer, vocabulary, folder


def values_of(rows):
    """Rows of shards or of a corpus as values, without the columns that no batch reads."""
    kept = [{name: value for name, value in row.items() if name not in ("task", "user_id", "item_id")} for row in rows]
    return sorted(map(repr, kept))


def read(shards):
    """The rows of each task."""
    rows = shards.take(np.arange(len(shards)))
    found = {}
    for shard, first, end in zip(shards.shards, shards.first[:-1], shards.first[1:], strict=True):
        found.setdefault(shard.task, []).extend(rows[first:end])
    return {task: values_of(own) for task, own in found.items()}


@pytest.mark.parametrize("shares", [None, {"nrip": 0.5, "nsip": 0.5, "nsqp": 0.3}], ids=["all", "drawn"])
def test_streams_of_partitions_are_that_of_the_log(shop, shares):
    split, parted, catalog, tokenizer, vocabulary, folder = shop
    shared = (catalog, tokenizer, vocabulary, GenSARConfig())
    asked = dict.fromkeys(HISTORY_TASKS, 1.0) if shares is None else shares
    target = folder / f"stream-{shares is None}"
    found = read(write_corpus_shards(parted, *shared, target, shares=asked, item_queries=True))
    keys = event_keys(split.log.events, split.timeline)
    whole = build_stream(split, *shared, shares=shares, draw_keys=keys)
    assert found == {"histories": values_of(whole), "item_queries": values_of(build_item_queries(*shared))}
    drawn_by_row = build_stream(split, *shared, shares=shares)
    assert (found["histories"] == values_of(drawn_by_row)) == (shares is None)
    # Some users at a time, as a large partition is written.
    few = write_stream(split, *shared, shares=asked, seed=0, draw_keys=keys, num_events=7)
    assert values_of([row for table in few for row in table.to_pylist()]) == found["histories"]


def test_instructions_of_partitions_are_those_of_the_log(shop, monkeypatch):
    split, parted, catalog, tokenizer, vocabulary, folder = shop
    shared = (catalog, tokenizer, vocabulary, GenSARConfig())
    tasks = ["nrip", "nsip", "nsqp", "desc2id_semantic", "id2desc_collaborative"]
    monkeypatch.setattr("seekrec.corpora.instructions._TARGETS_AT_A_TIME", 50)
    # Wordings are drawn by the events, so that they do not depend on who else is there.
    drawn = read(write_corpus_shards(parted, *shared, folder / "instructions", tasks=tasks))
    keys = event_keys(split.log.events, split.timeline)
    chosen = choose_tasks(tasks, catalog.views)
    written = {task: [] for task in tasks[:3]}
    for task, batch in write_history_tasks(split, *shared, tasks=chosen, seed=0, draw_keys=keys):
        written[task] += batch.to_pylist()
    for task, rows in written.items():
        assert drawn[task] == values_of(rows) and len({row["input_ids"][0] for row in rows}) > 1
    # With one wording for all they are what the log in memory gives.
    monkeypatch.setattr("seekrec.corpora.instructions._draw_templates", lambda task, count, *_: np.zeros(count, int))
    found = read(write_corpus_shards(parted, *shared, folder / "worded", tasks=tasks))
    whole = build_corpus(split, *shared, tasks=tasks)
    assert found == {task: values_of(rows) for task, rows in whole.items()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_node_writes_the_same_shards(shop, tmp_path):
    _, parted, catalog, tokenizer, vocabulary, folder = shop
    shared = (catalog, tokenizer, vocabulary, GenSARConfig())
    asked = {"shares": dict.fromkeys(HISTORY_TASKS, 1.0), "tasks": ["nrip", "desc2id_semantic"], "item_queries": True}
    expected = write_corpus_shards(parted, *shared, folder / "local", **asked)
    with two_nodes() as nodes:
        nodes.lose_one_when(lambda: any(tmp_path.glob("shard-*")))
        found = write_corpus_shards(parted, *shared, tmp_path, engine="ray", **asked)
        assert nodes.count_left() == 1
    assert found.shards == expected.shards and found.fingerprint == expected.fingerprint


def rows_of(windows, queries):
    """Windows as values: the numbers of queries are those of the part of the log that they stand in."""
    batch = windows.batch(np.arange(len(windows)))
    rows = []
    for number in range(len(windows)):
        row = {name: value[number] for name, value in batch.items()}
        length = int(row["history_mask"].sum())
        values = [
            [queries[query] if query >= 0 else None for query in row.pop(name)[:length].tolist()]
            for name in ("history_query_rows", "question_query_rows")
        ]
        rows.append(repr([{name: np.trim_zeros(value.ravel() + 1).tolist() for name, value in row.items()}, values]))
    return rows


def test_windows_of_partitions_are_those_of_the_log(shop):
    split, parted, catalog, *_ = shop
    assert parted.sessions.guess() == guess_session_ids(split)
    whole = build_training_windows(split, catalog.id_map, actions=log_actions(split), max_history=5)
    parts = [
        build_training_windows(
            part, catalog.id_map, actions=parted.actions, max_history=5, session_ids=parted.session_ids
        )
        for part in parted
    ]
    found = [row for part in parts for row in rows_of(part, part.events.queries)]
    assert sum(map(len, parts)) == len(whole)
    assert sorted(found) == sorted(rows_of(whole, whole.events.queries))
