# SPDX-License-Identifier: Apache-2.0
"""A recipe on a Ray cluster: who trains, and that all it writes is what two processes of accelerate write."""

import json
import sys

import pytest
from ray_cluster import two_nodes
from tiny_runs import ACCELERATE, ROOT, metrics, run, run_script

from seekrec.events.partitions import partition_log
from seekrec.events.simulator import simulate
from seekrec.recipes.cluster import Workers
from seekrec.recipes.command import _pop_num_processes
from seekrec.util.hashing import file_sha256

CPU = {"CPU": 8.0, "memory": 1e9}


def test_a_process_for_each_gpu_or_else_for_each_node():
    def choose(*nodes, use_cpu=False, has_gpu=False):
        return Workers.choose(nodes, use_cpu=use_cpu, has_gpu=has_gpu)

    # One machine: this process trains.
    assert choose(CPU) is None
    assert choose({**CPU, "GPU": 1.0}, has_gpu=True) is None
    # The head of a cluster often gives no processors away.
    assert choose({}, CPU) is None
    assert choose({}, CPU, {"CPU": 4.0}) == Workers(2, 4, use_gpu=False)
    assert choose(CPU, {**CPU, "GPU": 4.0}) == Workers(4, 2, use_gpu=True)
    assert choose(CPU, {"CPU": 1.0, "GPU": 1.0}) == Workers(1, 1, use_gpu=True)
    assert choose(CPU, {**CPU, "GPU": 4.0}, use_cpu=True) == Workers(2, 8, use_gpu=False)


def test_processes_share_what_is_left_of_a_cluster():
    workers = Workers(4, 8, use_gpu=False)
    assert workers.fit([CPU] * 4) == 8
    # Two nodes of eight, a node of eight, a node of two, and nodes of which only one has room for more than one.
    assert workers.fit([CPU] * 2) == 4
    assert workers.fit([CPU]) == 2
    assert workers.fit([{"CPU": 2.0}]) == 0.5
    assert workers.fit([CPU, {"CPU": 1.0}]) == 2
    assert Workers(3, 1, use_gpu=False).fit([{"CPU": 1.0}]) == 0.333
    # Without any there is nothing to share: the cluster is waited for.
    assert workers.fit([]) == 8


@pytest.mark.parametrize("engine", [["--engine", "ray"], ["--engine=ray"]])
def test_on_a_cluster_one_process_starts_the_others(engine, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert _pop_num_processes(["--seed", "1"]) == (4, ["--seed", "1"])
    assert _pop_num_processes(["--seed", "1", *engine]) == (1, ["--seed", "1", *engine])
    assert _pop_num_processes([*engine, "--num_processes", "2"]) == (2, engine)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_node_in_training_saves_the_model_of_two_processes(inputs, tmp_path):
    simulate(3_000, num_items=60, seed=5).write(tmp_path / "raw")
    partition_log(tmp_path / "raw/events", tmp_path / "raw/items.parquet", tmp_path / "log", num_partitions=3)

    def options(name, *more):
        return [
            *("--config", str(ROOT / "recipes/intsr/tiny.yaml"), "--dataset", "tables", "--num_cold_items", "0"),
            *("--events", str(tmp_path / "log"), "--semantic_encoder", str(inputs[1])),
            *("--output_dir", str(tmp_path / name), "--use_cpu", "true", "--disable_tqdm", "true", *more),
        ]

    script = str(ROOT / "recipes/train_intsr.py")
    launch = [sys.executable, *ACCELERATE, "--multi_gpu", "--num_processes", "2", script]
    run([*launch, *options("two", "--ddp_backend", "gloo")], seconds=1200)
    with two_nodes() as nodes:
        # What is wrong in one of the processes is said as it would be here.
        with pytest.raises(SystemExit, match="train_intsr: Training of IntSR.* diverged at step"):
            run_script("train_intsr.py", *options("wild", "--learning_rate", "1e38", "--engine", "ray"))
        nodes.lose_one_when(lambda: any((tmp_path / "ray/trainer").glob("checkpoint-*/trainer_state.json")))
        run_script("train_intsr.py", *options("ray", "--engine", "ray"))
        assert nodes.count_left() == 1 and nodes.lost == [0]

    def files(name):
        """SHA-256 of the model's files, but those with seconds and the command."""
        folder = tmp_path / name / "model"
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        kept = [path for path in paths if path.name not in ("results.json", "results_manifest.json", "run.json")]
        return {path.relative_to(folder).as_posix(): file_sha256(path) for path in kept}

    def stages(name):
        """What each stage wrote, by its name."""
        found = (tmp_path / name / "stages").glob("*/stage.json")
        return {path.parent.name: json.loads(path.read_text())["files"] for path in found}

    assert files("ray") == files("two") and "model.safetensors" in files("ray")
    written = stages("ray")
    assert written == stages("two") and {"windows", "split", "semantic"} <= {name.split("-")[0] for name in written}
    assert metrics(tmp_path / "ray") == metrics(tmp_path / "two")
    assert not list((tmp_path / "ray").glob(".ray*")) and not list((tmp_path / "ray").glob(".ranks*"))
