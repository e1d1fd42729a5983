# SPDX-License-Identifier: Apache-2.0
"""Partitioned logs and splits against those in memory."""

import json
import logging
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import xxhash
from drawn_log import draw_events, draw_items
from pyarrow import csv
from small_shop import log_of

from seekrec.errors import ConfigurationError, DataError
from seekrec.events import audit, read_tables, split_log
from seekrec.events.partitions import (
    PartitionedLog,
    PartitionedSplit,
    audit_partitions,
    partition_log,
    partitioning,
    split_partitions,
)
from seekrec.events.splits import learn_held_out

EVENT_COLUMNS = ("user_id", "timestamp", "behavior", "query", "item_id", "action", "session_id")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    pq.write_table(draw_events(), folder / "events.parquet", row_group_size=700)
    pq.write_table(draw_items(), folder / "items.parquet")
    return folder


@pytest.fixture(scope="module")
def in_memory(source):
    return read_tables(source / "events.parquet", source / "items.parquet", max_refused=0.1)


@pytest.fixture(scope="module")
def logs(source, tmp_path_factory):
    """The same log in one, three and twelve partitions."""
    folder = tmp_path_factory.mktemp("logs")
    paths = source / "events.parquet", source / "items.parquet"
    return {
        number: partition_log(*paths, folder / str(number), num_partitions=number, max_refused=0.1)
        for number in (1, 3, 12)
    }


@contextmanager
def monkeypatched(module, **values):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(module, name, value)
        yield


def rows_of(cases, log):
    """Questions with their histories as values: what is asked, whatever the numbers of rows."""
    events = log.events.select(EVENT_COLUMNS).to_pylist()
    table = cases.to_table()
    histories = [[tuple(events[row].values()) for row in history] for history in cases.histories]
    names = [name for name in table.column_names if name != "history"]
    return sorted(zip(*(map(repr, table[name].to_pylist()) for name in names), map(repr, histories), strict=True))


def test_partitions_hold_what_a_reader_reads(logs, in_memory):
    expected = in_memory.events.to_pylist()
    for number, log in logs.items():
        parts = [part.events for part in log]
        assert log.num_partitions <= number
        assert sorted(map(repr, pa.concat_tables(parts).to_pylist())) == sorted(map(repr, expected))
        # Whole users, each as in memory: by time, and by order in the source at one time.
        seen = set()
        for part in parts:
            users = part["user_id"].unique()
            assert seen.isdisjoint(users.to_pylist())
            seen.update(users.to_pylist())
            assert part.equals(in_memory.events.filter(pc.is_in(in_memory.events["user_id"], value_set=users)))
        assert (log.num_events, log.num_users) == (in_memory.num_events, in_memory.num_users)
        assert log.query_source == "logged"
        assert log.notes[1:] == in_memory.notes[1:]
    assert len({log.fingerprint for log in logs.values()}) == 1
    assert logs[12].num_partitions > 6


def test_the_partition_of_a_user_is_its_xxhash(logs):
    for number, log in logs.items():
        for part, info in zip(log, log.partitions, strict=True):
            for user in part.events["user_id"].unique().to_pylist():
                bucket = xxhash.xxh64_intdigest(user.encode()) >> 54
                assert f"partition-{bucket * number // 1024:05d}" == info.folder


@pytest.mark.parametrize("protocol", ["strict", pytest.param("paper", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"method": "last_days", "num_test_days": 2},
        pytest.param({"max_history": 5, "keep_impressions": True}, marks=pytest.mark.slow),
    ],
    ids=["leave_one_out", "last_days", "short"],
)
def test_a_partitioned_split_is_the_split_in_memory(logs, in_memory, tmp_path, protocol, settings):
    whole = split_log(in_memory, protocol=protocol, **settings)
    train = sorted(map(repr, whole.train_events().to_pylist()))
    fingerprints = set()
    for number, log in logs.items():
        split = split_partitions(log, tmp_path / str(number), protocol=protocol, **settings)
        parts = list(split)
        assert sorted(repr(row) for part in parts for row in part.train_events().to_pylist()) == train
        for name in ("validation", "test"):
            found = sorted(row for part in parts for row in rows_of(part.cases(name), part.log))
            assert found == rows_of(whole.cases(name), in_memory)
        assert split.counts == whole.counts()
        assert [part.training_targets().size for part in parts] and sum(
            part.training_targets().size for part in parts
        ) == whole.training_targets().size
        fingerprints.add(split.fingerprint)
        # Cases are all audited; of the training targets of the one busy user a sample.
        report, expected = audit_partitions(split), audit(whole)
        if protocol == "strict":
            assert (report.validation, report.test) == (expected.validation, expected.test)
        assert report.num_training_targets == expected.num_training_targets
        assert report.training.num_targets <= expected.training.num_targets
    assert len(fingerprints) == 1


def test_few_events_are_audited_whole(tmp_path):
    lines = [(f"u{user}", time, f"i{(user + time) % 9}") for user in range(12) for time in range(1, 20)]
    log = log_of(lines)
    pq.write_table(log.events, tmp_path / "events.parquet")
    parted = partition_log(tmp_path / "events.parquet", log.items, tmp_path / "log", num_partitions=4)
    for protocol in ("strict", "paper"):
        split = split_partitions(parted, tmp_path / protocol, protocol=protocol)
        whole = audit(split_log(log, protocol=protocol)).to_dict()
        assert {**audit_partitions(split).to_dict(), "log_name": "small"} == whole


def test_what_is_noticed_in_rows_is_counted_over_all_parts_as_by_the_reader(tmp_path):
    events = draw_events()
    queries = [
        f"{query} &amp; more" if query and row % 7 == 0 else query
        for row, query in enumerate(events["query"].to_pylist())
    ]
    events = events.set_column(events.schema.get_field_index("query"), "query", pa.array(queries, pa.string()))
    pq.write_table(events, tmp_path / "events.parquet", row_group_size=300)
    pq.write_table(draw_items(), tmp_path / "items.parquet")
    whole = read_tables(tmp_path / "events.parquet", tmp_path / "items.parquet", max_refused=0.1)
    with monkeypatched(partitioning, _SLICE_ROWS=500, _MIN_BATCH=100):
        log = partition_log(tmp_path / "events.parquet", tmp_path / "items.parquet", tmp_path / "log", max_refused=0.1)
    (said,) = [note for note in whole.notes if "queries held HTML" in note]
    number = sum(bool(query and query.endswith("&amp; more")) for query in queries)
    assert said.startswith(f"events.parquet: {number} queries held HTML, which was read as the text it shows (first: ")
    assert said in log.notes
    assert sorted({query for part in log for query in part.events["query"].to_pylist() if query}) == sorted(
        {query for query in whole.events["query"].to_pylist() if query}
    )


def test_refused_rows_are_counted_and_said_as_by_the_reader(tmp_path, caplog):
    items = draw_items()
    pq.write_table(items, tmp_path / "items.parquet")
    pq.write_table(draw_events(num_bad=9), tmp_path / "events.parquet", row_group_size=500)
    paths = tmp_path / "events.parquet", tmp_path / "items.parquet"
    with caplog.at_level(logging.WARNING):
        read_tables(*paths, max_refused=0.1)
        partition_log(*paths, tmp_path / "log", num_partitions=3, max_refused=0.1, memory_limit=2**26)
    messages = [record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()]
    assert len(messages) == 2 and messages[0] == messages[1]
    assert "9 name an item that the items table does not hold" in messages[0]
    with pytest.raises(DataError, match=r"That is 1\.03%, and `max_refused` allows 0\.01%"):
        partition_log(*paths, tmp_path / "other", max_refused=0.0001)
    assert not (tmp_path / "other").exists()


def test_a_log_newest_first_is_turned_around_as_by_the_reader(tmp_path):
    # Days for seconds: many events of a user at one time.
    events = draw_events()
    days = pa.array(events["timestamp"].to_numpy() // 86_400 * 86_400)
    events = events.set_column(events.column_names.index("timestamp"), "timestamp", days)
    order = pc.sort_indices(events, sort_keys=[("timestamp", "descending")])
    pq.write_table(events.take(order), tmp_path / "events.parquet", row_group_size=500)
    pq.write_table(draw_items(), tmp_path / "items.parquet")
    paths = tmp_path / "events.parquet", tmp_path / "items.parquet"
    in_memory = read_tables(*paths, max_refused=0.1)
    log = partition_log(*paths, tmp_path / "log", num_partitions=3, max_refused=0.1)
    turned = "The rows of events.parquet are newest first; of events of one second the lower row came first."
    assert turned in in_memory.notes and turned in log.notes
    rows = pa.concat_tables(part.events for part in log).to_pylist()
    assert sorted(rows, key=lambda row: row["user_id"]) == in_memory.events.to_pylist()


def test_folders_as_spark_writes_them(tmp_path, source, in_memory, monkeypatch):
    # Ids as numbers, times as timestamps, days in the names of folders, marks and checksums beside the files.
    events = pq.read_table(source / "events.parquet")
    number = pc.cast(pc.utf8_slice_codeunits(events["user_id"], 1), pa.int32())
    times = pc.cast(pc.multiply(events["timestamp"], 1_000_000), pa.timestamp("us", "UTC"))
    events = (
        events.drop_columns(["user_id", "timestamp"])
        .append_column("customer", number)
        .append_column("event_time", times)
    )
    days = pc.strftime(pc.cast(times, pa.timestamp("us")), "%Y-%m-%d")
    folder = tmp_path / "export"
    for day in sorted(days.unique().to_pylist()):
        of_day = folder / f"day={day}"
        of_day.mkdir(parents=True)
        rows = events.filter(pc.equal(days, day))
        half = len(rows) // 2
        for part, some in enumerate((rows.slice(0, half), rows.slice(half))):
            pq.write_table(some, of_day / f"part-{part:05d}-8a1f.c000.snappy.parquet", compression="snappy")
            (of_day / f".part-{part:05d}-8a1f.c000.snappy.parquet.crc").write_bytes(b"\0")
    (folder / "_SUCCESS").touch()
    # Which column is what is recognised, as by `read_tables`; the folder may be named from where one is.
    monkeypatch.chdir(tmp_path)
    log = partition_log("export", source / "items.parquet", tmp_path / "log", num_partitions=2, max_refused=0.1)
    found = pa.concat_tables([part.events for part in log])
    assert any("user_id is 'customer'" in note and "timestamp is 'event_time'" in note for note in log.notes)
    expected = in_memory.events.select(["timestamp", "query", "item_id", "action"])
    assert sorted(map(repr, found.select(expected.column_names).to_pylist())) == sorted(
        map(repr, expected.to_pylist())
    )
    assert set(found["user_id"].to_pylist()) == {user[1:] for user in in_memory.events["user_id"].to_pylist()}
    by_day = partition_log(
        folder, source / "items.parquet", tmp_path / "days", column_map={"timestamp": "day"}, max_refused=0.1
    )
    times = {time for part in by_day for time in part.events["timestamp"].to_pylist()}
    assert len(times) == 7 and all(time % 86_400 == 0 for time in times)
    # Two acts of one day are no repeats: all of them are kept.
    assert by_day.num_events == len(events)


def test_fields_and_tables_are_read_as_parquet_is(tmp_path, source, logs):
    events = pq.read_table(source / "events.parquet")
    lines = events.drop_columns(["rating"])
    csv.write_csv(lines, tmp_path / "events.csv")
    found = partition_log(tmp_path / "events.csv", draw_items(), tmp_path / "csv", num_partitions=5, max_refused=0.1)
    assert found.fingerprint == logs[1].fingerprint
    assert "22 repeat" not in " ".join(found.notes) and "20 repeat an earlier row (first: line" in " ".join(
        found.notes
    )
    assert partition_log(lines, draw_items(), tmp_path / "table", max_refused=0.1).fingerprint == found.fingerprint


def test_a_column_is_read_one_way_in_all_parts(tmp_path):
    ids = [f"{number % 7}.0" for number in range(40)] + ["seven"] * 10
    table = pa.table({"user_id": ids, "item_id": ["a", "b"] * 25, "timestamp": range(1_600_000_000, 1_600_000_050)})
    pq.write_table(table, tmp_path / "events.parquet", row_group_size=10)
    items = pa.table({"item_id": ["a", "b"], "title": ["A", "B"]})
    with monkeypatched(partitioning, _MIN_BATCH=10, _MAX_BATCH=10), pytest.raises(DataError, match="end in '.0'"):
        partition_log(tmp_path / "events.parquet", items, tmp_path / "log")
    dates = table.set_column(2, "timestamp", pa.array(["13/01/2019", "01/02/2019"] * 25))
    with pytest.raises(DataError, match="day and month cannot be told apart where a log is read a part at a time"):
        partition_log(dates.set_column(0, "user_id", pa.array(["u"] * 50)), items, tmp_path / "log")


def test_an_interrupted_split_goes_on_and_another_is_redone(logs, tmp_path):
    log = logs[3]
    split = split_partitions(log, tmp_path / "split")
    kept, lost = (tmp_path / "split" / partition.folder / "facts.json" for partition in log.partitions[:2])
    (tmp_path / "split" / "split.json").unlink()
    lost.unlink()
    lost.parent.joinpath("train_rows.parquet").unlink()
    for rest in lost.parent.iterdir():
        rest.unlink()
    lost.parent.rmdir()
    with pytest.raises(DataError, match=r"contains no split\.json"):
        PartitionedSplit.load(tmp_path / "split")
    before = kept.stat().st_mtime_ns
    assert split_partitions(log, tmp_path / "split").fingerprint == split.fingerprint
    assert kept.stat().st_mtime_ns == before
    other = split_partitions(log, tmp_path / "split", max_history=3)
    assert kept.stat().st_mtime_ns != before
    assert other.fingerprint != split.fingerprint


def test_what_cannot_be_done_is_said(logs, source, tmp_path):
    log = logs[1]
    with pytest.raises(ConfigurationError, match="`num_partitions` is 0; give 1 to 512"):
        partition_log(source / "events.parquet", source / "items.parquet", tmp_path / "log", num_partitions=0)
    with pytest.raises(DataError, match="span 9 days; `num_test_days` 8 needs 10"):
        split_partitions(log, tmp_path / "split", method="last_days", num_test_days=8)
    with pytest.raises(DataError, match="is not a file; check the path"):
        partition_log(tmp_path / "none.parquet", source / "items.parquet", tmp_path / "log")
    two = log_of([("a", 1, "x"), ("a", 2, "y"), ("b", 1, "x")])
    pq.write_table(two.events, tmp_path / "two.parquet")
    short = partition_log(tmp_path / "two.parquet", two.items, tmp_path / "two", num_partitions=2)
    with pytest.raises(DataError, match=r"No user of the log has 3 distinct interactions \(the most is 2\)"):
        split_partitions(short, tmp_path / "split")
    path = short.folder / short.partitions[0].folder / "events.parquet"
    path.write_bytes(path.read_bytes()[:-9] + b"123456789")
    with pytest.raises(DataError, match="the file was changed"):
        PartitionedLog.load(short.folder).partition(0)
    description = json.loads((short.folder / "partitions.json").read_text())
    (short.folder / "partitions.json").write_text(json.dumps({**description, "version": 99}))
    with pytest.raises(DataError, match="has version 99, this package reads 1"):
        PartitionedLog.load(short.folder)


def test_sizes_of_partitions_follow_the_limit(source, tmp_path):
    log = partition_log(
        source / "events.parquet", source / "items.parquet", tmp_path / "log", memory_limit=2**26, max_refused=0.1
    )
    assert log.num_partitions == 1
    assert np.sum([part.num_events for part in log]) == log.num_events


@pytest.mark.parametrize(
    "method", ["leave_one_out", *(pytest.param(name, marks=pytest.mark.slow) for name in ("last_tenth", "last_days"))]
)
def test_what_was_held_out_is_learned_as_in_memory(logs, in_memory, tmp_path, method):
    split = split_log(in_memory, method=method)
    for also in ("validation", "everything"):
        learning = learn_held_out(split, also)
        parts = split_partitions(logs[3], tmp_path / also, method=method, also=also)
        trained = [part.train_events().select(EVENT_COLUMNS) for part in parts]
        assert sorted(map(repr, pa.concat_tables(trained).to_pylist())) == sorted(
            map(repr, learning.train_events().select(EVENT_COLUMNS).to_pylist())
        )
        asked = [case for part in parts for case in rows_of(part.test, part.log)]
        assert sorted(asked) == rows_of(learning.test, in_memory)
        assert parts.num_cases() == learning.num_cases()
        assert audit_partitions(parts).num_leaks == 0
    # They stand in a folder of their own: what is asked for decides, not what is there.
    again = split_partitions(logs[3], tmp_path / "everything", method=method)
    assert again.counts.num_train_events == len(split.train_rows)
