# SPDX-License-Identifier: Apache-2.0
r"""Measure the data pipeline, from simulated Parquet events to an audited split, against the same steps in DuckDB.

```bash
OMP_NUM_THREADS=1 python recipes/benchmarks/data_floor.py --folder /tmp/floor
OMP_NUM_THREADS=1 python recipes/benchmarks/data_floor.py --folder /tmp/floor --sizes 500000 --compare
OMP_NUM_THREADS=1 python recipes/benchmarks/data_floor.py --folder /tmp/floor --sizes 500000000 --max_minutes 30 \
  --num_workers 2 --no_duckdb
```

Every stage runs in its own process with one thread, or in `--num_workers` processes. Its time starts after the
imports; its memory is the peak resident size of a process, libraries included.

With `--max_minutes` a size is reduced to what time and disk allow, by the speed of the size before it (of ten million
events if there is none). A stage that is not done in time is stopped and reports how far it got. With `--keep` the
simulated events stay, and another call continues with them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pyarrow.parquet as pq

HERE = Path(__file__)
SIZES = (500_000, 5_000_000, 50_000_000)
MIN_EVENTS_PER_SECOND = 100_000
MAX_MEMORY = 4 * 2**30
# What DuckDB counts itself; its process takes somewhat more.
DUCKDB_MEMORY = MAX_MEMORY - 2**29
MAX_SLOPE = 1.05
STAGES = ("partition", "split")
# Events of a file of the source, a whole number of the simulator's blocks; and of the run that others are planned by.
ROWS_PER_FILE = 76 << 16
NUM_PROBED = 2 * ROWS_PER_FILE
# Bytes an event that lie on the disk at the same time, with DuckDB's copies and without.
BYTES_PER_EVENT, BYTES_WITHOUT_DUCKDB = 150, 60
# Share of the time that is planned: speeds differ from size to size.
PLANNED = 0.95
# Share of the time in which events are simulated that others are planned by; they are a file or two.
PROBED = 0.02

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


@dataclass(frozen=True)
class Limits:
    """What a stage may use.

    Args:
        num_workers (`int`): Processes.
        seconds (`float`): Time; only simulating ends by itself.
    """

    num_workers: int = 1
    seconds: float = math.inf


def simulate_events(folder: Path, num_events: int, limits: Limits) -> dict[str, object]:
    """Write simulated events and items: those that are not there yet, as long as there is time."""
    from seekrec.events.simulator import simulate
    from seekrec.util.files import write_json, write_table

    source, started = folder / "source", time.monotonic()
    events, shop_file = source / "events", source / "shop.json"
    shop = simulate(num_events)
    if not shop_file.exists() or json.loads(shop_file.read_text()) != shop.num_items:
        shutil.rmtree(source, ignore_errors=True)
        events.mkdir(parents=True)
        write_table(source / "items.parquet", shop.items)
        write_json(shop_file, shop.num_items)
    num_parts = shop.num_parts(ROWS_PER_FILE)
    for path in sorted(events.glob("*.parquet"))[num_parts:]:
        path.unlink()
    missing = [part for part in range(num_parts) if not is_written(events, part, num_events)]
    if limits.num_workers == 1:
        for part in missing:
            if time.monotonic() - started > limits.seconds:
                break
            shop.write_part(part, events, rows_per_file=ROWS_PER_FILE)
        return {"written": count_events(source), "bytes": folder_bytes(source)}
    with ProcessPoolExecutor(limits.num_workers, get_context("spawn")) as pool:
        running: set[Future[None]] = set()
        for part in missing:
            if len(running) == limits.num_workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for one in done:
                    one.result()
            if time.monotonic() - started > limits.seconds:
                break
            running.add(pool.submit(write_part, num_events, part, events))
        for one in running:
            one.result()
    return {"written": count_events(source), "bytes": folder_bytes(source)}


def is_written(events: Path, part: int, num_events: int) -> bool:
    """Return whether a file of the source is there, with all of its events."""
    path = events / f"part-{part:05d}.parquet"
    expected = min(ROWS_PER_FILE, num_events - part * ROWS_PER_FILE)
    return path.exists() and pq.ParquetFile(path).metadata.num_rows == expected


def write_part(num_events: int, part: int, events: Path) -> None:
    """Write one file of the source."""
    if num_events not in SHOPS:
        from seekrec.events.simulator import simulate

        SHOPS[num_events] = simulate(num_events)
    SHOPS[num_events].write_part(part, events, rows_per_file=ROWS_PER_FILE)


# The shop of this process; its shelves are drawn once.
SHOPS: dict = {}


def partition_events(folder: Path, num_events: int, limits: Limits) -> dict[str, object]:
    """Check the events and write them partitioned by user."""
    from seekrec.events.partitions import partition_log

    source = folder / "source"
    log = partition_log(source / "events", source / "items.parquet", folder / "log", num_workers=limits.num_workers)
    return {"partitions": log.num_partitions, "bytes": folder_bytes(folder / "log")}


def split_events(folder: Path, num_events: int, limits: Limits) -> dict[str, object]:
    """Split and audit each partition."""
    from seekrec.events.partitions import PartitionedLog, audit_partitions, split_partitions

    split = split_partitions(PartitionedLog.load(folder / "log"), folder / "split", num_workers=limits.num_workers)
    report = audit_partitions(split)
    return {
        "train_events": split.counts.num_train_events,
        "cases": sum(sum(of_part.values()) for of_part in split.counts.num_cases.values()),
        "leaks": report.num_leaks,
        "targets_audited": report.training.num_targets,
        "bytes": folder_bytes(folder / "split"),
    }


def connect_duckdb(place: str, target: Path, num_workers: int):
    """Open DuckDB within the limit of memory; what is larger spills into a folder."""
    import duckdb

    connection = duckdb.connect(place)
    connection.execute(f"SET threads = {num_workers}; SET memory_limit = '{DUCKDB_MEMORY // 2**20}MiB'")
    connection.execute(f"SET temp_directory = '{target}/spill'; SET preserve_insertion_order = false")
    return connection


def run_duckdb(folder: Path, num_events: int, limits: Limits) -> dict[str, object]:
    """Do both stages in DuckDB alone."""
    target = folder / "duckdb"
    target.mkdir()
    num_partitions = max(1, num_events // 2_500_000)
    connection = connect_duckdb(str(target / "work.db"), target, limits.num_workers)
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
        connection = connect_duckdb(":memory:", target, 1)
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


FUNCTIONS: dict[str, Callable[[Path, int, Limits], dict[str, object]]] = {
    "simulate": simulate_events,
    "partition": partition_events,
    "split": split_events,
    "duckdb": run_duckdb,
    **{
        f"sort_{engine}": lambda folder, num_events, limits, engine=engine: scatter_and_sort(
            folder, num_events, engine
        )
        for engine in ("seekrec", "polars", "duckdb")
    },
}


def run_stage(stage: str, folder: Path, num_events: int, limits: Limits) -> None:
    """Run one stage in this process and print what it took."""
    if stage in ("simulate", *STAGES, "sort_seekrec"):
        import seekrec.events.partitions  # noqa: F401  (imports are not part of the time)

    start, cpu = time.perf_counter(), cpu_seconds()
    found = FUNCTIONS[stage](folder, num_events, limits)
    seconds = time.perf_counter() - start
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    memory = max(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024
    used = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds() - cpu, 2), "peak_memory": memory}
    print(json.dumps({"line": stage, "events": num_events, **used, **found}), flush=True)


def cpu_seconds() -> float:
    """Return the seconds that processors worked for this process and those it has started."""
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(stage: str, folder: Path, num_events: int, limits: Limits) -> dict[str, float]:
    """Run one stage in a process of its own.

    Raises:
        TimeoutError: If it was not done in time; what it came to is printed.
    """
    threads = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE), "--stage", stage, "--folder", str(folder), "--sizes", str(num_events)]
    command += ["--num_workers", str(limits.num_workers), "--max_minutes", str(limits.seconds / 60)]
    started = time.monotonic()
    process = subprocess.Popen(
        command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    # Simulating ends in time by itself, with the file that it is at.
    is_patient = stage == "simulate" or math.isinf(limits.seconds)
    try:
        output, _ = process.communicate(timeout=None if is_patient else max(1.0, limits.seconds))
    except BaseException as error:
        # Whatever ends this process ends the stage, with the processes that it has started.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        seconds = round(time.monotonic() - started, 2)
        done = describe_progress(stage, folder)
        print(json.dumps({"line": stage, "events": num_events, "stopped_after": seconds, "done": done}), flush=True)
        raise TimeoutError(stage) from None
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    line = output.strip().splitlines()[-1]
    print(line, flush=True)
    return json.loads(line)


def describe_progress(stage: str, folder: Path) -> str:
    """Say how far a stage came that was stopped."""
    if stage == "partition":
        target = next(folder.glob(".log.*/log"), folder)
        slices = len(list(target.glob("slices/slice-*")))
        return f"{slices} slices scattered, {len(list(target.glob('partition-*')))} partitions sorted"
    if stage == "split":
        found = len(list((folder / "split").glob("partition-*")))
        return f"{found} of {len(list((folder / 'log').glob('partition-*')))} partitions split"
    return f"{len(list((folder / stage).glob('events-*.parquet')))} partitions"


def report(name: str, value: float, **limits: object) -> None:
    """Print a figure that follows from the measurements."""
    print(json.dumps({"line": name, "value": round(value, 3), **limits}), flush=True)


@dataclass(frozen=True)
class Speed:
    """What a size took.

    Args:
        num_events (`int`): The size.
        simulating (`float`): Events a second of simulating.
        seconds (`float`): Seconds of partitioning and splitting.
    """

    num_events: int
    simulating: float
    seconds: float

    @property
    def share(self) -> float:
        """Share of the time that simulating takes."""
        return 1 / (1 + self.seconds / self.num_events * self.simulating)

    def fit(self, seconds: float, free_bytes: float) -> int:
        """Return how many events simulating, partitioning and splitting have time and room for, in whole files."""
        each = 1 / self.simulating + self.seconds / self.num_events
        number = min(PLANNED * seconds / each, free_bytes)
        return max(1, int(number // ROWS_PER_FILE)) * ROWS_PER_FILE


def measure_size(
    folder: Path,
    num_events: int,
    limits: Limits,
    *,
    simulating: float = 1.0,
    with_duckdb: bool = False,
    compare: bool = False,
    keep: bool = False,
) -> Speed:
    """Measure all stages at one size.

    Args:
        folder (`Path`): Where to work.
        num_events (`int`): The size.
        limits ([`Limits`]): Processes, and time.
        simulating (`float`): Share of the time that simulating may take.
        with_duckdb (`bool`): Whether DuckDB does the same.
        compare (`bool`): Whether the step is measured that the engine was chosen by.
        keep (`bool`): Whether the simulated events stay.

    Raises:
        TimeoutError: If a stage was not done in time.
    """
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + limits.seconds

    def left() -> Limits:
        return Limits(limits.num_workers, deadline - time.monotonic())

    try:
        made = measure("simulate", folder, num_events, Limits(limits.num_workers, simulating * limits.seconds))
        num_events = int(made["written"])
        found = [measure(stage, folder, num_events, left()) for stage in STAGES]
        seconds = sum(one["seconds"] for one in found)
        memory = max(one["peak_memory"] for one in found)
        busy = sum(one["cpu_seconds"] for one in found)
        rate = num_events / seconds / limits.num_workers
        report("events a second a core", rate, events=num_events, target=MIN_EVENTS_PER_SECOND)
        report("events a second of processor time", num_events / busy, events=num_events)
        report("peak memory, GiB", memory / 2**30, events=num_events, target=MAX_MEMORY / 2**30)
        if with_duckdb:
            for name in ("log", "split"):
                shutil.rmtree(folder / name)
            # The same minutes again.
            other = measure("duckdb", folder, num_events, limits)
            same = [found[1][name] == other[name] for name in ("train_events", "cases", "leaks")]
            report("seconds: seekrec / DuckDB", seconds / other["seconds"], events=num_events, equal_counts=all(same))
            report("processor time: seekrec / DuckDB", busy / other["cpu_seconds"], events=num_events)
        if compare:
            for engine in ("seekrec", "polars", "duckdb"):
                measure(f"sort_{engine}", folder, num_events, Limits())
                shutil.rmtree(folder / f"sorted-{engine}")
    finally:
        for path in [folder] if not keep else [one for one in folder.iterdir() if one.name != "source"]:
            shutil.rmtree(path, ignore_errors=True)
    return Speed(num_events, max(1.0, made["written"] / max(made["seconds"], 0.01)), seconds)


def main() -> None:
    """Measure every size, and how time grows from one to the next."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where to work; about 150 bytes an event")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of events")
    parser.add_argument("--no_duckdb", action="store_true", help="leave DuckDB out")
    parser.add_argument("--compare", action="store_true", help="also the step that an engine was chosen by")
    parser.add_argument("--max_minutes", type=float, default=math.inf, help="minutes of a size; and of DuckDB with it")
    parser.add_argument("--num_workers", type=int, default=1, help="processes of a stage")
    parser.add_argument("--keep", action="store_true", help="leave the simulated events, and go on with those there")
    parser.add_argument("--stage", choices=FUNCTIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    limits = Limits(arguments.num_workers, 60 * arguments.max_minutes)
    if arguments.stage:
        run_stage(arguments.stage, arguments.folder, arguments.sizes[0], limits)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    options = {"with_duckdb": not arguments.no_duckdb, "compare": arguments.compare, "keep": arguments.keep}
    before: Speed | None = None
    for asked in arguments.sizes:
        num_events, share = asked, 1.0
        try:
            if limits.seconds < math.inf and asked > NUM_PROBED:
                speed = before or measure_size(arguments.folder / "probe", NUM_PROBED, limits, simulating=PROBED)
                share = speed.share
                free = shutil.disk_usage(arguments.folder).free
                room = free / (BYTES_WITHOUT_DUCKDB if arguments.no_duckdb else BYTES_PER_EVENT)
                num_events = min(asked, speed.fit(limits.seconds, room))
                report(
                    "events that time and disk have room for", num_events, asked=asked, free_gb=round(free / 1e9, 1)
                )
            found = measure_size(arguments.folder / f"{asked}", num_events, limits, simulating=share, **options)
        except TimeoutError as error:
            print(json.dumps({"line": "stopped", "asked": asked, "events": num_events, "stage": str(error)}))
            break
        if before:
            slope = math.log(found.seconds / before.seconds) / math.log(found.num_events / before.num_events)
            report("slope of the time", slope, events=found.num_events, target=MAX_SLOPE)
        before = found


if __name__ == "__main__":
    main()
