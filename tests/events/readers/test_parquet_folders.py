# SPDX-License-Identifier: Apache-2.0
"""Folders of Parquet as Spark writes them are read as one table, whole or in partitions."""

from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seekrec.errors import DataError
from seekrec.events.partitions import partition_log
from seekrec.events.readers import read_tables

ITEMS = pa.table({"sku": ["7", "8", "007"], "title": ["Kettle", "手机壳", "Lamp"]})
START = 1_700_000_000
NUM_EVENTS = 120


def read_both(folder, tmp_path, items=ITEMS, **settings):
    """Read a folder whole and in partitions, and check that both give the same rows; return them."""
    whole = read_tables(folder, items, **settings).events
    log = partition_log(folder, items, tmp_path / "log", num_partitions=2, **settings)
    parts = pa.concat_tables([part.events for part in log])
    rows, others = (sorted(map(repr, events.to_pylist())) for events in (whole, parts))
    assert rows == others
    return whole


def write_parts(folder, table, *, codec="snappy", int96=False):
    """Write two files with a half each and an empty one between them, with checksums, as a job of three tasks does."""
    folder.mkdir(parents=True, exist_ok=True)
    half = len(table) // 2
    for part, rows in enumerate((table.slice(0, half), table.slice(0, 0), table.slice(half))):
        name = f"part-{part:05d}-5c1f.c000.{codec}.parquet"
        pq.write_table(rows, folder / name, compression=codec, use_deprecated_int96_timestamps=int96)
        (folder / f".{name}.crc").write_bytes(b"\0")


@pytest.mark.parametrize(
    ("unit", "zone", "codec"),
    [("ns", None, "snappy"), ("us", "UTC", "zstd"), ("us", None, "gzip"), ("ms", "UTC", "none")],
)
def test_times_codecs_empty_parts_and_nested_folders(unit, zone, codec, tmp_path):
    """INT96 (unit ns) is what Spark writes by default, the others are its `outputTimestampType`."""
    rng = np.random.default_rng(3)
    times = np.sort(START + rng.integers(0, 3 * 86_400, NUM_EVENTS))
    actions = np.array(["click", "held up", "sent:on"])[rng.integers(0, 3, NUM_EVENTS)]
    table = pa.table(
        {
            "customer_id": rng.integers(1, 2**40, NUM_EVENTS),
            "sku": rng.choice(["7", "8", "007"], NUM_EVENTS),
            "q": [None if number % 3 else "手机 壳" for number in range(NUM_EVENTS)],
            "event_ts": pa.array(times, pa.timestamp("s", zone)).cast(pa.timestamp(unit, zone)),
        }
    )
    days = np.array([str(day) for day in times.astype("datetime64[s]").astype("datetime64[D]")])
    folder = tmp_path / "events"
    for day, action in sorted(set(zip(days, actions, strict=True))):
        rows = table.filter(pa.array((days == day) & (actions == action)))
        place = folder / f"dt={day}" / f"action={quote(action, safe=' ')}"
        write_parts(place, rows, codec=codec, int96=unit == "ns")
    for mark in ("_SUCCESS", "_committed_17", "_started_17"):
        (folder / mark).touch()
    (folder / "_temporary/0").mkdir(parents=True)
    (folder / "_temporary/0/part-00000.parquet").write_bytes(b"half a file")
    events = read_both(folder, tmp_path)
    expected = {
        (str(user), int(time), query, item, action)
        for user, time, query, item, action in zip(
            table["customer_id"].to_pylist(),
            times,
            table["q"].to_pylist(),
            table["sku"].to_pylist(),
            actions,
            strict=True,
        )
    }
    assert {
        (row["user_id"], row["timestamp"], row["query"], row["item_id"], row["action"]) for row in events.to_pylist()
    } == expected


def clicks(*items, users=None, **columns):
    number = len(items)
    users = users or [f"u{row}" for row in range(number)]
    return pa.table({"user_id": users, "timestamp": range(START, START + number), "sku": [*items], **columns})


def test_names_of_folders_are_text(tmp_path):
    """An item 007 is another one than 7; nothing is written for null."""
    folder = tmp_path / "events"
    for item in ("007", "7"):
        write_parts(folder / f"sku={item}" / "action=__HIVE_DEFAULT_PARTITION__", clicks("").drop_columns(["sku"]))
    events = read_both(folder, tmp_path)
    assert sorted(events["item_id"].to_pylist()) == ["007", "7"]
    assert events["action"].to_pylist() == ["click", "click"]


def test_columns_that_grew_are_one_column(tmp_path):
    """A column became wider, and times got their zone, after the first days were written."""
    old = clicks("7", "8", users=pa.array([1, 2], pa.int32()))
    naive = old["timestamp"].cast(pa.timestamp("s")).cast(pa.timestamp("ns"))
    write_parts(tmp_path / "events/day=1", old.set_column(1, "timestamp", naive), int96=True)
    new = clicks("8", "7", users=pa.array([2**40, 2]))
    aware = pa.array([START + 9, START + 10], pa.timestamp("s", "UTC")).cast(pa.timestamp("us", "UTC"))
    write_parts(tmp_path / "events/day=2", new.set_column(1, "timestamp", aware))
    events = read_both(tmp_path / "events", tmp_path)
    assert set(events["user_id"].to_pylist()) == {"1", "2", str(2**40)}
    assert sorted(events["timestamp"].to_pylist()) == [START, START + 1, START + 9, START + 10]
    write_parts(tmp_path / "events/day=3", clicks("8", users=pa.array([True])))
    for read in (read_tables, lambda *tables: partition_log(*tables, tmp_path / "other")):
        with pytest.raises(DataError, match="cannot be read as a folder of Parquet files of one table"):
            read(tmp_path / "events", ITEMS)


@pytest.mark.parametrize(
    ("mark", "kind"),
    [("_delta_log/0.json", "Delta Lake"), ("metadata/v1.metadata.json", "Iceberg"), (".hoodie/x", "Hudi")],
)
def test_tables_with_older_versions_beside_them_are_refused(mark, kind, tmp_path):
    write_parts(tmp_path / "events", clicks("7", "8"))
    (tmp_path / "events" / mark).parent.mkdir()
    (tmp_path / "events" / mark).touch()
    for read in (read_tables, lambda *tables: partition_log(*tables, tmp_path / "log")):
        with pytest.raises(DataError, match=f"is a table of .*{kind}: files of older versions lie next to"):
            read(tmp_path / "events", ITEMS)
