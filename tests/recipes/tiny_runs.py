"""Starting a recipe as a user does, on the data of `tiny_data.py`."""

import contextlib
import functools
import io
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ACCELERATE = ("-m", "accelerate.commands.launch")


def command(family, inputs, output_dir, *options, launcher=ACCELERATE):
    log, encoder = inputs
    return [
        sys.executable,
        *launcher,
        str(ROOT / "recipes" / f"train_{family}.py"),
        *("--config", str(ROOT / "recipes" / family / "tiny.yaml"), "--data_dir", str(log)),
        *("--semantic_encoder", str(encoder), "--output_dir", str(output_dir), "--use_cpu", "true", *options),
    ]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(arguments, *, seconds=280):
    """Run a command to its end; a script of ours in a fork of a process that has imported what it needs."""
    is_script = Path(arguments[1]).suffix == ".py"
    done = (run_forked if is_script else run_anew)(arguments, seconds)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def run_anew(arguments, seconds):
    return subprocess.run(
        arguments, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=seconds, check=False
    )


def run_forked(arguments, seconds):
    """Run `python script options` in a process of its own, without the ten seconds of its imports."""
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("stdout", "stderr")]
        process = fork_server().Process(target=_run_script, args=(arguments[1:], said))
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(arguments, seconds)
        return subprocess.CompletedProcess(arguments, process.exitcode, *(path.read_text() for path in said))


@functools.cache
def fork_server():
    """Start a process that imports the recipes once, with the environment of runs, and is forked for each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["forked"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()
    return context


def _run_script(words, said):
    for stream, path in zip((sys.stdout, sys.stderr), said, strict=True):
        with path.open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(ROOT)
    sys.argv = list(words)
    # As the interpreter does.
    sys.path.insert(0, str((ROOT / words[0]).parent))
    runpy.run_path(words[0], run_name="__main__")


def kill_in_training(arguments, output_dir, *, seconds=240):
    """Start a run, and kill it without warning once training has written a checkpoint."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(arguments, env=environment(), cwd=ROOT, start_new_session=True, **quiet)
    deadline = time.monotonic() + seconds
    while not list((output_dir / "trainer").glob("checkpoint-*/trainer_state.json")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (output_dir / "model").exists()


def run_script(name, *options):
    """Run a script of the recipes in this process, which has imported what it needs; return what it prints.

    Raises:
        SystemExit: With the line that the script ends with.
    """
    printed = io.StringIO()
    argv, sys.argv = sys.argv, [name, *map(str, options)]
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(str(ROOT / "recipes" / name), run_name="__main__")
    finally:
        sys.argv = argv
    return printed.getvalue()


def metrics(output_dir):
    """What was measured, without what may differ from run to run: seconds."""
    rows = json.loads((output_dir / "model" / "results.json").read_text())["results"]
    return {(row["system"], row["behavior"], row["protocol"]): row["metrics"] for row in rows}
