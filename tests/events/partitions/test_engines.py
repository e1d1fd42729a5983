# SPDX-License-Identifier: Apache-2.0
"""The engines: whatever runs the jobs, the same bytes are written; a job that is done is not run again."""

import os
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from drawn_log import draw_events, draw_items

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
def test_a_cluster_that_loses_a_node_writes_the_same_bytes(tmp_path, source, monkeypatch, capsys):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    here = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", here)
    _, expected = make(tmp_path / "local", source)

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20}, connect=False
    )
    other = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    lost = []

    def lose_a_node():
        # Halfway: a third of the partitions of the split are written, and both nodes are at work.
        split = tmp_path / "ray" / "split"
        while len(done := list(split.glob("partition-*"))) < 8:
            time.sleep(0.02)
        nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        idle = ray.available_resources().get("CPU", 0)
        cluster.remove_node(other, allow_graceful=False)
        lost.append((len(nodes), len(done), idle))

    thread = threading.Thread(target=lose_a_node, daemon=True)
    thread.start()
    try:
        log, found = make(tmp_path / "ray", source, engine="ray")
        thread.join(60)
        deadline = time.monotonic() + 60
        while sum(node["Alive"] for node in ray.nodes()) > 1 and time.monotonic() < deadline:
            time.sleep(0.2)
        alive = sum(node["Alive"] for node in ray.nodes())
    finally:
        ray.shutdown()
        cluster.shutdown()
    with capsys.disabled():
        sys.stdout.write(
            f"\n2 nodes, {lost[0][2]:g} of 2 processors idle; one killed after {lost[0][1]} of {log.num_partitions} "
            f"partitions, {alive} left; split {found.fingerprint[:16]}, local {expected.fingerprint[:16]}\n"
        )
    assert lost[0][0] == 2 and lost[0][1] < log.num_partitions and alive == 1
    assert found.fingerprint == expected.fingerprint
    assert digests_of(tmp_path / "ray") == digests_of(tmp_path / "local")
    assert not list((tmp_path / "ray").rglob(".*.seekrec-tmp"))
