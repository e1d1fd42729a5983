# SPDX-License-Identifier: Apache-2.0
"""The data floor: simulated events from Parquet to an audited split, against the same steps in DuckDB alone.

```bash
OMP_NUM_THREADS=1 python recipes/benchmarks/data_floor.py --folder /tmp/floor
OMP_NUM_THREADS=1 python recipes/benchmarks/data_floor.py --folder /tmp/floor --sizes 500000 --compare
```

Every stage is a process of its own with one thread: its time counts from after the imports, its memory is the largest
resident size of the process with all that it has loaded.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

HERE = Path(__file__)
SIZES = (500_000, 5_000_000, 50_000_000)
MIN_EVENTS_PER_SECOND = 100_000
MAX_MEMORY = 4 * 2**30
MAX_SLOPE = 1.05
STAGES = ("partition", "split")

# The steps of `partition_log` and `split_partitions` (leave-one-out, strict, audited) in SQL.
DUCKDB_SCRIPT = """
CREATE TABLE items AS SELECT item_id FROM read_parquet('{source}/items.parquet');
COPY (
  SELECT e.*, (hash(user_id) % {num_partitions})::INT AS part
  FROM read_parquet('{source}/events/*.parquet', file_row_number = true, filename = true) e
  LEFT JOIN items i ON e.item_id = i.item_id
  WHERE NOT coalesce(
    coalesce(trim(user_id), '') = '' OR timestamp IS NULL OR timestamp < 0 OR timestamp > 100000000000
    OR behavior NOT IN ('search', 'recommendation') OR (behavior = 'search' AND coalesce(trim(query), '') = '')
    OR (behavior = 'recommendation' AND query IS NOT NULL) OR length(query) > 1000
    OR (behavior = 'recommendation' AND coalesce(trim(e.item_id), '') = '')
    OR (e.item_id IS NOT NULL AND i.item_id IS NULL) OR coalesce(trim(action), '') = ''
    OR (session_id IS NOT NULL AND trim(session_id) = ''), false)
) TO '{target}/scattered' (FORMAT parquet, PARTITION_BY (part), COMPRESSION lz4);
"""
DUCKDB_PARTITION = """
COPY (
  SELECT * EXCLUDE (file_row_number, filename), row_number() OVER () - 1 AS row FROM (
    SELECT * FROM read_parquet('{target}/scattered/part={part}/*.parquet', hive_partitioning = false)
    QUALIFY row_number() OVER (
      PARTITION BY user_id, item_id, timestamp, behavior, query, action ORDER BY filename, file_row_number) = 1
    ORDER BY user_id, timestamp, filename, file_row_number)
) TO '{target}/events-{part}.parquet' (FORMAT parquet, COMPRESSION zstd);
CREATE OR REPLACE TABLE e AS SELECT * FROM read_parquet('{target}/events-{part}.parquet');
CREATE OR REPLACE TABLE held AS
  SELECT user_id, item_id, timestamp, row, place, first_query FROM (
    SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY row DESC) AS place,
      count(*) OVER (PARTITION BY user_id) AS num
    FROM (
      SELECT user_id, item_id, timestamp, min(row) AS row,
        arg_min(query, row) FILTER (behavior = 'search') AS first_query
      FROM e WHERE item_id IS NOT NULL AND action <> 'impression' GROUP BY user_id, item_id, timestamp))
  WHERE num >= 3 AND place <= 2;
CREATE OR REPLACE TABLE train AS
  SELECT e.* FROM e LEFT JOIN (
    SELECT user_id, min(timestamp) AS until, list(item_id) AS items FROM held GROUP BY user_id) h USING (user_id)
  WHERE h.user_id IS NULL OR (e.timestamp < until AND NOT coalesce(list_contains(items, e.item_id), false));
CREATE OR REPLACE TABLE cases AS
  WITH asked AS (
    SELECT *, NULL AS query FROM held
    UNION ALL SELECT *, first_query AS query FROM held WHERE first_query IS NOT NULL),
  histories AS (
    SELECT h.row, list(e.row ORDER BY e.row) AS history FROM held h JOIN e ON e.user_id = h.user_id
      AND e.timestamp < h.timestamp AND e.action <> 'impression' AND e.item_id IS DISTINCT FROM h.item_id
    GROUP BY h.row)
  SELECT asked.*, history FROM asked LEFT JOIN histories USING (row);
COPY (SELECT row FROM train ORDER BY row) TO '{target}/train-{part}.parquet' (FORMAT parquet, COMPRESSION zstd);
COPY (SELECT * FROM cases ORDER BY place, query IS NOT NULL, row)
  TO '{target}/cases-{part}.parquet' (FORMAT parquet, COMPRESSION zstd);
CREATE OR REPLACE TABLE targets AS
  SELECT * FROM (
    SELECT *, row - min(row) OVER (PARTITION BY user_id) AS longest,
    FROM e) t SEMI JOIN train USING (row) WHERE action <> 'impression';
CREATE OR REPLACE TABLE chosen AS
  SELECT t.* FROM targets t JOIN (
    SELECT t.user_id, 20 * any_value(n.num) / greatest(sum(t.longest), 1) AS share FROM targets t JOIN (
      SELECT user_id, count(*) AS num FROM e GROUP BY user_id) n USING (user_id) GROUP BY t.user_id) s USING (user_id)
  WHERE hash(t.user_id, t.row) / 18446744073709551616.0 < share;
SELECT (SELECT count(*) FROM e), (SELECT count(*) FROM train), (SELECT count(*) FROM cases),
  (SELECT count(*) FROM cases c SEMI JOIN train t ON t.user_id = c.user_id AND t.item_id = c.item_id)
  + (SELECT count(*) FROM cases c SEMI JOIN train t ON t.user_id = c.user_id AND t.timestamp >= c.timestamp)
  + (SELECT count(*) FROM (SELECT user_id, item_id, timestamp, unnest(history) AS row FROM cases) c
     JOIN e USING (row) WHERE e.timestamp >= c.timestamp OR e.item_id = c.item_id)
  + (SELECT count(*) FROM (
      SELECT c.row, h.timestamp >= c.timestamp OR h.item_id = c.item_id AS leaks FROM chosen c JOIN train h
        ON h.user_id = c.user_id AND h.timestamp < c.timestamp AND h.action <> 'impression'
        AND h.item_id IS DISTINCT FROM c.item_id) WHERE leaks);
"""


def folder_bytes(folder: Path) -> int:
    """Sum the sizes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def count_events(source: Path) -> int:
    """Count the rows of a source."""
    return sum(pq.ParquetFile(path).metadata.num_rows for path in (source / "events").glob("*.parquet"))


def simulate_events(folder: Path, num_events: int) -> dict[str, object]:
    """Write simulated events and items."""
    from seekrec.events.simulator import simulate

    simulate(num_events).write(folder / "source")
    return {"bytes": folder_bytes(folder / "source")}


def partition_events(folder: Path, num_events: int) -> dict[str, object]:
    """Check the events and write them partitioned by user."""
    from seekrec.events.partitions import partition_log

    source = folder / "source"
    log = partition_log(source / "events", source / "items.parquet", folder / "log")
    return {"partitions": log.num_partitions, "bytes": folder_bytes(folder / "log")}


def split_events(folder: Path, num_events: int) -> dict[str, object]:
    """Split and audit each partition."""
    from seekrec.events.partitions import PartitionedLog, audit_partitions, split_partitions

    split = split_partitions(PartitionedLog.load(folder / "log"), folder / "split")
    report = audit_partitions(split)
    return {
        "train_events": split.counts.num_train_events,
        "cases": sum(sum(of_part.values()) for of_part in split.counts.num_cases.values()),
        "leaks": report.num_leaks,
        "targets_audited": report.training.num_targets,
        "bytes": folder_bytes(folder / "split"),
    }


def run_duckdb(folder: Path, num_events: int) -> dict[str, object]:
    """Do both stages in DuckDB alone."""
    import duckdb

    target = folder / "duckdb"
    target.mkdir()
    num_partitions = max(1, num_events // 2_500_000)
    connection = duckdb.connect(str(target / "work.db"))
    connection.execute(f"SET threads = 1; SET memory_limit = '3GB'; SET temp_directory = '{target}/spill'")
    connection.execute("SET preserve_insertion_order = false")
    names = {"source": folder / "source", "target": target, "num_partitions": num_partitions}
    connection.execute(DUCKDB_SCRIPT.format(**names))
    counts = [0, 0, 0, 0]
    for part in range(num_partitions):
        found = connection.execute(DUCKDB_PARTITION.format(**names, part=part)).fetchone()
        counts = [one + other for one, other in zip(counts, found, strict=True)]
    shutil.rmtree(target / "scattered")
    (target / "work.db").unlink()
    return {"train_events": counts[1], "cases": counts[2], "leaks": counts[3], "bytes": folder_bytes(target)}


def scatter_and_sort(folder: Path, num_events: int, engine: str) -> dict[str, object]:
    """Scan, check, scatter by user, sort by user, time and row, drop repeats: what an engine was chosen by."""
    source, target = folder / "source", folder / f"sorted-{engine}"
    num_partitions = max(1, num_events // 1_250_000)
    if engine == "seekrec":
        from seekrec.events.partitions import partition_log

        partition_log(source / "events", source / "items.parquet", target, num_partitions=num_partitions)
        return {"bytes": folder_bytes(target)}
    target.mkdir()
    if engine == "duckdb":
        import duckdb

        connection = duckdb.connect()
        connection.execute(f"SET threads = 1; SET memory_limit = '3GB'; SET temp_directory = '{target}/spill'")
        connection.execute("SET preserve_insertion_order = false")
        names = {"source": source, "target": target, "num_partitions": num_partitions}
        connection.execute(DUCKDB_SCRIPT.format(**names))
        for part in range(num_partitions):
            connection.execute(DUCKDB_PARTITION.split(";")[0].format(**names, part=part))
    else:
        sort_with_polars(source, target, num_partitions)
    shutil.rmtree(target / "scattered")
    return {"bytes": folder_bytes(target)}


def sort_with_polars(source: Path, target: Path, num_partitions: int) -> None:
    """Do the step in Polars."""
    import polars as pl

    def blank(column: str) -> pl.Expr:
        return pl.col(column).str.strip_chars().fill_null("") == ""

    is_search = pl.col("behavior") == "search"
    bad = (
        blank("user_id")
        | pl.col("timestamp").is_null()
        | (pl.col("timestamp") < 0)
        | (pl.col("timestamp") > 10**11)
        | ~pl.col("behavior").is_in(["search", "recommendation"])
        | (is_search & blank("query"))
        | (~is_search & pl.col("query").is_not_null())
        | (pl.col("query").str.len_chars() > 1000)
        | (~is_search & blank("item_id"))
        | (pl.col("item_id").is_not_null() & pl.col("known").is_null())
        | blank("action")
        | (pl.col("session_id").is_not_null() & blank("session_id"))
    )
    items = pl.scan_parquet(source / "items.parquet").select("item_id").with_columns(known=True)
    events = pl.scan_parquet(source / "events" / "*.parquet", row_index_name="row")
    checked = events.join(items, on="item_id", how="left").filter(~bad.fill_null(False)).drop("known")
    parts = pl.PartitionBy(str(target / "scattered"), key="part", include_key=False)
    marked = checked.with_columns(part=pl.col("user_id").hash() % num_partitions)
    marked.sink_parquet(parts, mkdir=True, compression="lz4", engine="streaming")
    repeats = ["user_id", "item_id", "timestamp", "behavior", "query", "action"]
    for part in range(num_partitions):
        some = pl.scan_parquet(target / "scattered" / f"part={part}" / "*.parquet", hive_partitioning=False)
        kept = some.sort("user_id", "timestamp", "row").unique(repeats, keep="first", maintain_order=True)
        kept.sink_parquet(target / f"events-{part}.parquet", engine="streaming", compression="zstd")


FUNCTIONS: dict[str, Callable[[Path, int], dict[str, object]]] = {
    "simulate": simulate_events,
    "partition": partition_events,
    "split": split_events,
    "duckdb": run_duckdb,
    **{
        f"sort_{engine}": lambda folder, num_events, engine=engine: scatter_and_sort(folder, num_events, engine)
        for engine in ("seekrec", "polars", "duckdb")
    },
}


def run_stage(stage: str, folder: Path, num_events: int) -> None:
    """Run one stage in this process and print what it took."""
    if stage in ("simulate", *STAGES, "sort_seekrec"):
        import seekrec.events.partitions  # noqa: F401  (imports are not part of the time)

    start, cpu = time.perf_counter(), time.process_time()
    found = FUNCTIONS[stage](folder, num_events)
    seconds = time.perf_counter() - start
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    memory = max(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024
    used = {"seconds": round(seconds, 2), "cpu_seconds": round(time.process_time() - cpu, 2), "peak_memory": memory}
    print(json.dumps({"line": stage, "events": num_events, **used, **found}), flush=True)


def measure(stage: str, folder: Path, num_events: int) -> dict[str, float]:
    """Run one stage in a process of its own."""
    threads = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE), "--stage", stage, "--folder", str(folder), "--sizes", str(num_events)]
    result = subprocess.run(command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True)
    line = result.stdout.strip().splitlines()[-1]
    print(line, flush=True)
    return json.loads(line)


def report(name: str, value: float, **limits: object) -> None:
    """Print a figure that follows from the measurements."""
    print(json.dumps({"line": name, "value": round(value, 3), **limits}), flush=True)


def measure_size(folder: Path, num_events: int, *, with_duckdb: bool, compare: bool) -> dict[str, float]:
    """Measure all stages at one size; returns seconds and the largest memory."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    measure("simulate", folder, num_events)
    found = [measure(stage, folder, num_events) for stage in STAGES]
    seconds = sum(one["seconds"] for one in found)
    memory = max(one["peak_memory"] for one in found)
    busy = sum(one["cpu_seconds"] for one in found)
    report("events a second a core", num_events / seconds, events=num_events, target=MIN_EVENTS_PER_SECOND)
    report("events a second of processor time", num_events / busy, events=num_events)
    report("peak memory, GiB", memory / 2**30, events=num_events, target=MAX_MEMORY / 2**30)
    if with_duckdb:
        for name in ("log", "split"):
            shutil.rmtree(folder / name)
        other = measure("duckdb", folder, num_events)
        same = [found[1][name] == other[name] for name in ("train_events", "cases", "leaks")]
        report("seconds: seekrec / DuckDB", seconds / other["seconds"], events=num_events, equal_counts=all(same))
        report("processor time: seekrec / DuckDB", busy / other["cpu_seconds"], events=num_events)
        shutil.rmtree(folder / "duckdb")
    if compare:
        for engine in ("seekrec", "polars", "duckdb"):
            measure(f"sort_{engine}", folder, num_events)
            shutil.rmtree(folder / f"sorted-{engine}")
    shutil.rmtree(folder)
    return {"seconds": seconds, "memory": memory}


def main() -> None:
    """Measure every size, and how time grows from one to the next."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where to work; about 150 bytes an event")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of events")
    parser.add_argument("--no_duckdb", action="store_true", help="leave DuckDB out")
    parser.add_argument("--compare", action="store_true", help="also the step that an engine was chosen by")
    parser.add_argument("--stage", choices=FUNCTIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        run_stage(arguments.stage, arguments.folder, arguments.sizes[0])
        return
    before: tuple[int, float] | None = None
    for num_events in arguments.sizes:
        found = measure_size(
            arguments.folder / f"{num_events}",
            num_events,
            with_duckdb=not arguments.no_duckdb,
            compare=arguments.compare,
        )
        if before:
            slope = math.log(found["seconds"] / before[1]) / math.log(num_events / before[0])
            report("slope of the time", slope, events=num_events, target=MAX_SLOPE)
        before = num_events, found["seconds"]


if __name__ == "__main__":
    main()
