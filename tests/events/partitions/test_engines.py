# SPDX-License-Identifier: Apache-2.0
"""The engines: whatever runs the jobs, the same bytes are written; a job that is done is not run again."""

import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from drawn_log import draw_events, draw_items
from ray_cluster import two_nodes

from seekrec.errors import ConfigurationError
from seekrec.events.partitions import Job, partition_log, run_partitions, split_partitions
from seekrec.util.hashing import file_sha256


def copy(job, folder):
    (folder / "copied").write_text(Path(job.inputs[0]).read_text() + job.settings.get("end", ""))


def fail(job, folder):
    (folder / "half").write_text("half")
    raise ConfigurationError("no")


def test_a_job_writes_its_folder_once_and_whole(tmp_path):
    (tmp_path / "in").write_text("one")
    jobs = [Job(str(tmp_path / f"out-{number}"), (str(tmp_path / "in"),), {"end": f"{number}"}) for number in range(3)]
    with pytest.raises(ConfigurationError, match="no"):
        run_partitions(fail, jobs)
    assert not list(tmp_path.glob("out-*")) and not list(tmp_path.glob(".out*"))
    run_partitions(copy, jobs[:2])
    (tmp_path / "in").write_text("two")
    run_partitions(copy, jobs)
    assert [(tmp_path / f"out-{number}" / "copied").read_text() for number in range(3)] == ["one0", "one1", "two2"]
    with pytest.raises(ConfigurationError, match="`engine` is 'spark'; use one of 'local', 'ray'"):
        run_partitions(copy, jobs, engine="spark")
    with pytest.raises(ConfigurationError, match="`num_workers` is 0; give 1 or more"):
        run_partitions(copy, jobs, num_workers=0)


def digests_of(folder):
    """SHA-256 of every file, but for the two that name the folder they are in."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: file_sha256(folder / name) for name in names if not name.endswith(("split.json", "plan.json"))}


def make(folder, source, **engine):
    log = partition_log(
        source / "events.parquet",
        source / "items.parquet",
        folder / "log",
        num_partitions=24,
        max_refused=0.1,
        **engine,
    )
    return log, split_partitions(log, folder / "split", **engine)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    pq.write_table(draw_events(40_000, 4_000), folder / "events.parquet", row_group_size=10_000)
    pq.write_table(draw_items(), folder / "items.parquet")
    return folder


@pytest.mark.slow
def test_several_processes_write_the_same_bytes(tmp_path, source):
    _, one = make(tmp_path / "one", source)
    _, two = make(tmp_path / "two", source, num_workers=2)
    assert one.fingerprint == two.fingerprint
    assert digests_of(tmp_path / "one") == digests_of(tmp_path / "two")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_node_writes_the_same_bytes(tmp_path, source, capsys):
    _, expected = make(tmp_path / "local", source)
    with two_nodes(Path(__file__).parent) as nodes:
        # Halfway: a third of the partitions of the split are written, and both nodes are at work.
        parts = tmp_path / "ray" / "split"
        nodes.lose_one_when(lambda: len(list(parts.glob("partition-*"))) >= 8)
        log, found = make(tmp_path / "ray", source, engine="ray")
        left = nodes.count_left()
    with capsys.disabled():
        sys.stdout.write(
            f"\n2 nodes, {nodes.lost[0]:g} of 2 processors idle; one killed on the way, {left} left; split "
            f"{found.fingerprint[:16]}, local {expected.fingerprint[:16]}\n"
        )
    assert left == 1
    assert found.fingerprint == expected.fingerprint
    assert digests_of(tmp_path / "ray") == digests_of(tmp_path / "local")
    assert not list((tmp_path / "ray").rglob(".*.seekrec-tmp"))


class CopyTo:
    """Copies a file under a name that it holds the ending of."""

    def __init__(self, ending):
        self.ending = ending

    def __call__(self, job, folder):
        (folder / f"copied{self.ending}").write_text(Path(job.inputs[0]).read_text())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_function_may_hold_what_all_jobs_need_and_paths_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").write_text("one")
    jobs = [Job(f"out-{number}", ("in",)) for number in range(4)]
    with two_nodes(Path(__file__).parent):
        run_partitions(CopyTo(".txt"), jobs, engine="ray")
        with pytest.raises(ConfigurationError, match="no"):
            run_partitions(fail, [Job("failed")], engine="ray")
    run_partitions(CopyTo(".txt"), [replace(job, output=f"{job.output}-local") for job in jobs], num_workers=2)
    found = sorted(path.as_posix() for path in Path().rglob("copied.txt"))
    assert found == sorted(f"out-{number}{end}/copied.txt" for number in range(4) for end in ("", "-local"))
