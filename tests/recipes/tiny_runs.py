"""Starting a recipe as a user does, on the data of `tiny_data.py`."""

import contextlib
import io
import json
import logging
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

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
    """Run a command to its end; a script without a launcher in this process, which has imported what it needs."""
    if Path(arguments[1]).suffix == ".py":
        return run_here(arguments)
    done = subprocess.run(
        arguments, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def run_here(arguments):
    """Run `python script options`; what is logged counts as stderr, and what ends it fails the test."""
    root, logged = logging.getLogger(), io.StringIO()
    handler, level = logging.StreamHandler(logged), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        printed = run_script(Path(arguments[1]).name, *arguments[2:])
    except SystemExit as stopped:
        raise AssertionError(str(stopped)) from stopped
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    return subprocess.CompletedProcess(arguments, 0, printed, logged.getvalue())


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
