# SPDX-License-Identifier: Apache-2.0
"""Windows and corpora of partitions against those of the whole log in memory."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_shop import make_aisles

from seekrec.corpora import build_stream
from seekrec.corpora.partitioned import write_streams
from seekrec.corpora.training_windows import build_training_windows, log_actions
from seekrec.events.partitions import partition_log, split_partitions
from seekrec.events.partitions.buckets import event_keys
from seekrec.events.sessions import guess_session_ids
from seekrec.models import GenSARConfig


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A split in memory, the same in three partitions, and the folders of catalogue and tokenizer."""
    split, catalog, tokenizer, vocabulary = make_aisles()
    folder = tmp_path_factory.mktemp("shop")
    pq.write_table(split.log.events, folder / "events.parquet")
    log = partition_log(folder / "events.parquet", split.log.items, folder / "log", num_partitions=3)
    parted = split_partitions(log, folder / "split")
    catalog.save(folder / "catalog")
    tokenizer.save_pretrained(folder / "tokenizer")
    return split, parted, catalog, tokenizer, vocabulary, folder


@pytest.mark.parametrize("shares", [None, {"nrip": 0.5, "nsip": 0.5, "nsqp": 0.3}], ids=["all", "drawn"])
def test_corpora_of_partitions_are_that_of_the_log(shop, shares):
    split, parted, catalog, tokenizer, vocabulary, folder = shop
    assert parted.num_partitions == 3
    files = write_streams(
        parted,
        folder / "catalog",
        folder / "tokenizer",
        vocabulary,
        GenSARConfig(),
        folder / f"corpus-{shares is None}",
        shares=shares,
    )
    found = [row for file in files for row in pq.read_table(file).to_pylist()]
    keys = event_keys(split.log.events, split.timeline)
    whole = build_stream(split, catalog, tokenizer, vocabulary, GenSARConfig(), shares=shares, draw_keys=keys)
    assert sorted(map(repr, found)) == sorted(map(repr, whole.to_list()))
    drawn_by_row = build_stream(split, catalog, tokenizer, vocabulary, GenSARConfig(), shares=shares)
    assert (sorted(map(repr, found)) == sorted(map(repr, drawn_by_row.to_list()))) == (shares is None)


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
