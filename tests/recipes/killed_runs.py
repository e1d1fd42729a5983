# SPDX-License-Identifier: Apache-2.0
"""Kill a tiny recipe at its file operations and say what is left: `python killed_runs.py intsr --every 20`.

A finished run stands in a folder, and a run with another seed is started into it. It is killed (as by `kill -9`)
before a file operation, for the operations 1, 1 + every, 1 + 2 every, ... After each kill the model folder must be
the whole old one or the whole new one, results only beside their own weights; and the same run, started again, must
end with the files of a run that was never stopped. Prints a JSON line of counts, and one for each operation that left
something else.

Processes are forked from this one, which has imported all that they need. What is written without Python (weights by
safetensors, tables by Arrow) is between two operations.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import re
import runpy
import shutil
import signal
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "recipes")]
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from tiny_data import write_encoder, write_log  # noqa: E402

import seekrec.evaluation  # noqa: E402
import seekrec.hub  # noqa: E402, F401
import seekrec.training  # noqa: E402, F401
from seekrec.training.checkpoints import find_damage, list_checkpoints  # noqa: E402

OPERATIONS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
OF_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
LEFTOVER = re.compile(r"\.partial|seekrec-tmp|seekrec-old|\.tmp$|^tmp-")
# Of these, seconds and commands differ from run to run.
RESULTS = ("results.json", "results.ranks.parquet", "run.json", "identifiers.json")


def start(
    family: str, inputs: tuple[Path, Path], folder: Path, seed: int, *, kill_at: int | None = None
) -> int | None:
    """Run a recipe in a process of its own; gives its exit status, `None` if it was killed.

    The number of file operations goes into `<folder>.operations`.
    """
    log, encoder = inputs
    command = [
        *(f"train_{family}.py", "--config", str(ROOT / "recipes" / family / "tiny.yaml"), "--data_dir", str(log)),
        *("--semantic_encoder", str(encoder), "--output_dir", str(folder), "--use_cpu", "true"),
        *("--disable_tqdm", "true", "--seed", str(seed), "--baselines", "none"),
    ]
    process = os.fork()
    if process:
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        return None if status == -signal.SIGKILL else status
    output = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    count = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & OF_WRITING:
                return
        elif event in OPERATIONS:
            path = arguments[0]
        else:
            return
        # Paths that are not absolute are relative to an open folder: deleting a tree.
        if isinstance(path, int) or (
            os.path.isabs(os.fsdecode(path)) and not os.fsdecode(path).startswith(str(folder))
        ):
            return
        count += 1
        if count == kill_at:
            Path(f"{folder}.killed").write_text(f"{event} {path}")
            os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        sys.argv = command
        sys.addaudithook(hook)
        runpy.run_path(str(ROOT / "recipes" / command[0]), run_name="__main__")
        status = 0
    except SystemExit as error:
        say({"exit": str(error.code)})
        status = error.code if isinstance(error.code, int) else 1
    finally:
        total = count
        Path(f"{folder}.operations").write_text(str(total))
        os._exit(status)


def digest_of_model(folder: Path) -> str | None:
    """Hash what makes a model answer as it does: every file but the results."""
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.name not in RESULTS and "results" not in path.name:
            digest.update(name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def metrics_of(folder: Path) -> object:
    """Give what was measured, `None` if there is nothing."""
    path = folder / "results.json"
    return [row["metrics"] for row in json.loads(path.read_text())["results"]] if path.exists() else None


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("family", choices=("gensar", "gensr", "intsr", "synergen"))
    parser.add_argument("--every", type=int, default=20, help="kill at every so manieth operation; 1: at each")
    parser.add_argument("--first", type=int, default=1, help="the first operation to kill at")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="seekrec-killed-"))
    try:
        report(arguments, work)
    finally:
        shutil.rmtree(work)


def report(arguments: argparse.Namespace, work: Path) -> None:
    inputs = write_log_apart(work)
    family = arguments.family
    assert start(family, inputs, work / "old", 1) == 0, (work / "old.log").read_text()[-2000:]
    # Always under one path: what a run writes may hold it.
    place = work / "run"
    shutil.copytree(work / "old", place)
    assert start(family, inputs, place, 2) == 0, (work / "run.log").read_text()[-2000:]
    num_operations = int((work / "run.operations").read_text())
    os.rename(place, work / "new")
    states = {digest_of_model(work / name / "model"): name for name in ("old", "new")}
    measured = {name: metrics_of(work / name / "model") for name in ("old", "new")}
    files = files_of(work / "new")
    counts: collections.Counter[str] = collections.Counter()
    for operation in range(arguments.first, num_operations + 1, arguments.every):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(work / "old", place)
        status = start(family, inputs, place, 2, kill_at=operation)
        problems = [] if status is None else [f"was not killed (exit {status})"]
        name = states.get(digest_of_model(place / "model"), "neither")
        found = metrics_of(place / "model")
        if name != "neither" and found is not None and found != measured[name]:
            name = "neither"
        if name == "old" and found is None:
            name = "neither"
        counts[name] += 1
        problems += ["the model folder is neither"] if name == "neither" else []
        status = start(family, inputs, place, 2)
        ending = []
        if status != 0:
            ending.append(f"started again: exit {status}: {(work / 'run.log').read_text()[-300:]}")
        elif digest_of_model(place / "model") != digest_of_model(work / "new" / "model"):
            ending.append("started again: another model")
        elif metrics_of(place / "model") != measured["new"]:
            ending.append("started again: other results")
        left = sorted(path for path in place.rglob("*") if LEFTOVER.search(path.name))
        left += [path for path in list_checkpoints(place / "trainer") if find_damage(path)]
        other = sorted(files_of(place) ^ files)
        counts["leftovers"] += len(left)
        counts["ended as never stopped"] += not ending and not other
        problems += ending
        if problems or left or other:
            names = [path.relative_to(place).as_posix() for path in left]
            killed_at = (work / "run.killed").read_text()
            say(
                {
                    "operation": operation,
                    "killed_at": killed_at,
                    "problems": problems,
                    "left": names,
                    "files": other[:8],
                }
            )
    kills = counts["old"] + counts["new"] + counts["neither"]
    named = {name: counts[name] for name in ("old", "new", "neither", "leftovers", "ended as never stopped")}
    say({"family": family, "file_operations": num_operations, "kills": kills, **named})


def say(line: dict) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def write_log_apart(work: Path) -> tuple[Path, Path]:
    """Write the inputs in a process of its own, so that this one has made no model before it forks."""
    process = os.fork()
    if not process:
        write_log(work / "log")
        write_encoder(work)
        os._exit(0)
    os.waitpid(process, 0)
    return work / "log", work / "encoder"


if __name__ == "__main__":
    main()
