# SPDX-License-Identifier: Apache-2.0
"""Searches that are made and items that are held out in partitions, against the same in memory."""

import numpy as np
import pyarrow as pa
import pytest
from drawn_log import draw_events, draw_items

from seekrec.errors import ConfigurationError, DataError
from seekrec.evaluation.protocols import build_cases
from seekrec.events import audit, hold_out_items, read_tables, split_log, synthesize_searches
from seekrec.events.log import sort_events
from seekrec.events.partitions import audit_partitions, derived, partition_log, split_partitions
from seekrec.schema import IdMap


def categorized_items():
    """Two thirds of the items have one or two category paths."""
    items = draw_items()
    numbers = np.arange(items.num_rows)
    paths = [
        [["家居", f"Garden {one % 5}"], ["Tools", f"Kind {one % 3}"]][: one % 3] or None for one in numbers.tolist()
    ]
    return items.append_column("categories", pa.array(paths))


@pytest.fixture(scope="module")
def source():
    """A log without searches: impressions, equal times, users with half of all events and with one."""
    events = draw_events(2_000)
    events = events.filter(pa.compute.is_valid(events["item_id"])).drop_columns(["query", "behavior"])
    return events, categorized_items()


@pytest.fixture(scope="module")
def in_memory(source):
    return read_tables(*source, name="shop", max_refused=0.1)


@pytest.fixture(scope="module")
def logs(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    return [
        partition_log(*source, folder / str(number), name="shop", num_partitions=number, max_refused=0.1)
        for number in (1, 5)
    ]


def whole(log):
    return sort_events(pa.concat_tables([part.events for part in log]))


@pytest.mark.parametrize("construction", ["split", "copy"])
def test_searches_are_those_made_in_memory(logs, in_memory, tmp_path, construction):
    expected = synthesize_searches(in_memory, construction=construction, seed=7)
    fingerprints = set()
    for number, log in enumerate(logs):
        found = derived.construct_searches(log, tmp_path / str(number), construction=construction, seed=7)
        assert whole(found).equals(expected.events)
        assert found.query_source == "category" and found.notes[-1] == expected.notes[-1]
        assert found.num_events == expected.num_events and found.num_items == expected.num_items
        assert found.partition(0).query_source == "category"
        fingerprints.add(found.fingerprint)
        # Nothing of the work is left.
        assert {path.name for path in found.folder.iterdir()} == {
            "items.parquet",
            "partitions.json",
            *(one.folder for one in found.partitions),
        }
    assert len(fingerprints) == 1
    with pytest.raises(DataError, match="has searches already"):
        derived.construct_searches(found, tmp_path / "again")


def test_split_and_audit_of_made_searches_are_those_in_memory(logs, in_memory, tmp_path):
    names = ["user_id", "query", "item_id", "behavior", "action", "timestamp"]
    expected = split_log(synthesize_searches(in_memory, seed=3), seed=1)
    audit(expected).raise_if_leaking()
    searched = derived.construct_searches(logs[1], tmp_path / "log", seed=3)
    found = split_partitions(searched, tmp_path / "split", seed=1)
    assert found.counts == expected.counts()
    audit_partitions(found).raise_if_leaking()
    asked = [case for part in found for case in part.test.to_table().select(names).to_pylist()]
    assert sorted(asked, key=str) == sorted(expected.test.to_table().select(names).to_pylist(), key=str)


def test_items_held_out_and_who_asks_for_them_are_those_in_memory(logs, in_memory, tmp_path):
    log = synthesize_searches(in_memory, seed=3)
    rest, cold = hold_out_items(split_log(log, seed=1), 6, seed=2)
    for number, source in enumerate(logs):
        searched = derived.construct_searches(source, tmp_path / f"log{number}", seed=3)
        split = split_partitions(searched, tmp_path / f"split{number}", seed=1)
        left = derived.hold_out_partitioned(split, 6, tmp_path / f"rest{number}", seed=2)
        assert whole(left).equals(rest.events) and left.items.equals(rest.items)
        assert left.notes[-1] == rest.notes[-1] and left.query_source == rest.query_source
        again = split_partitions(left, tmp_path / f"split{number}r", seed=1)
        assert again.counts == split_log(rest, seed=1).counts()
        found = derived.partitioned_cold_start(split, left.folder)
        assert found.held_out and found.items.equals(cold.items)
        id_map = IdMap(log.items["item_id"].to_pylist())
        for behavior in ("recommendation", "search"):
            ours, theirs = (
                build_cases(one.split, id_map, behavior=behavior, only_targets=cold.item_ids, max_cases=9, seed=5)
                for one in (found, cold)
            )
            assert len(ours.requests) > 2 and ours.requests == theirs.requests
            assert (ours.target_rows == theirs.target_rows).all()
            assert (ours.seen.values == theirs.seen.values).all()
        with pytest.raises(ConfigurationError, match=r"`num_cold_items` is 99, but the test part of 'shop' has"):
            derived.hold_out_partitioned(split, 99, tmp_path / "no", seed=2)
        assert not (tmp_path / "no").exists()


def test_draws_are_taken_out_of_their_sequence(monkeypatch):
    monkeypatch.setattr(derived, "_DRAWS", 50)
    drawn = np.random.default_rng(11).random(1_000)
    places = np.array([0, 1, 3, 49, 50, 51, 52, 170, 171, 820, 999])
    assert (derived.draws_at(11, places) == drawn[places]).all()
    assert len(derived.draws_at(11, np.empty(0, np.int64))) == 0


def test_a_log_whose_items_have_no_categories_is_refused(source, tmp_path):
    log = partition_log(source[0], draw_items(), tmp_path / "log", max_refused=0.1, num_partitions=2)
    with pytest.raises(DataError, match="has a category path of two or more levels"):
        derived.construct_searches(log, tmp_path / "searched")
    assert not (tmp_path / "searched").exists()
