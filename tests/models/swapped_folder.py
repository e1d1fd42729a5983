# SPDX-License-Identifier: Apache-2.0
"""Processes that load a folder while another saves into it: every load gives one of the two checkpoints, whole.

`PYTHONPATH=tests python tests/models/swapped_folder.py --seconds 30 --readers 3` prints a line of JSON: how often the
folder was saved, how often it was loaded, and how many loads gave neither checkpoint or raised.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from small_shop import make_aisles, make_gensar, make_intsr  # noqa: E402
from transformers import AutoModel, AutoProcessor  # noqa: E402

import seekrec  # noqa: E402
from seekrec.models.manifest import save_checkpoint  # noqa: E402

REQUESTS = [seekrec.Request([seekrec.Event("i3")]), seekrec.Request()]
MAKERS = {"gensar": lambda seed: make_gensar(make_aisles(), seed=seed), "intsr": lambda seed: make_intsr(seed)}


def pairs(family):
    """Two checkpoints that differ in their weights and in what is removed from their catalogues."""
    made = [MAKERS[family](seed) for seed in (0, 1)]
    for one in made[1]:
        one.set_catalog(made[1][0].catalog.remove_items(["i5"]))
    return made


def state_of(model):
    """What tells the checkpoints apart, of the model and of the processor."""
    weight = float(sum(weight.detach().double().sum() for weight in model.parameters()))
    return [round(weight, 6), model.catalog.content_hash[:8]]


def read(folder, seconds):
    """Load again and again; print what there was."""
    found, errors = [], []
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        try:
            state = state_of(AutoModel.from_pretrained(folder).eval())
            processor = AutoProcessor.from_pretrained(folder)
            found.append([state, processor.catalog.content_hash[:8]])
        except Exception as error:  # every kind is a failure here
            errors.append(f"{type(error).__name__}: {error}")
    sys.stdout.write(json.dumps({"found": found, "errors": errors}) + "\n")


def swap(family, *, seconds: float, num_readers: int) -> dict:
    """Save two checkpoints by turns while others load; count what they found."""
    made = pairs(family)
    states = [state_of(pair[0]) for pair in made]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        save_checkpoint(*made[0], folder)
        command = [sys.executable, __file__, "--read", str(folder), "--seconds", str(seconds)]
        readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(num_readers)]
        saves = 0
        while any(reader.poll() is None for reader in readers):
            saves += 1
            save_checkpoint(*made[saves % 2], folder)
            time.sleep(0.02)
        read = [json.loads(reader.communicate()[0]) for reader in readers]
    found = [state for one in read for state in one["found"]]
    errors = [error for one in read for error in one["errors"]]
    wrong = [state for state, items in found if state not in states]
    wrong += [items for _, items in found if items not in [state[1] for state in states]]
    return {
        "family": family,
        "saves": saves,
        "loads": len(found),
        "checkpoints_seen": len({tuple(state) for state, _ in found}),
        "wrong": len(wrong),
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--readers", type=int, default=3)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(options.read, options.seconds)
        return
    for family in MAKERS:
        counts = swap(family, seconds=options.seconds, num_readers=options.readers)
        sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    main()
