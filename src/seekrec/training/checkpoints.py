# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of `transformers.Trainer`: find those that are complete, and the one to resume from."""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from seekrec.util.files import write_json

logger = logging.getLogger(__name__)

STATE_FILE = "trainer_state.json"
# What a training needs to continue as if it had not stopped: the patterns of its files.
_WEIGHTS = ("*.safetensors", "*model*.bin", "*model_fsdp*")
_REST = (("optimizer*",), ("scheduler.pt",), ("rng_state*",))


def list_checkpoints(folder: str | Path) -> list[Path]:
    """Return the checkpoints of a folder, the oldest first, whole or not."""
    found = [path for path in Path(folder).glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def find_checkpoint(folder: str | Path, *, only_model: bool = False) -> str | None:
    """Return the newest checkpoint of a folder that is whole, with the best one before it; `None` if there is none.

    Damaged ones are removed: what went on from them would be another training.

    Args:
        folder (`str` or `Path`): Folder of the training, wherever it was when it was written.
        only_model (`bool`): `save_only_model` was set, so checkpoints hold no optimizer.
    """
    damages = {path: find_damage(path, only_model=only_model) for path in list_checkpoints(folder)}
    for checkpoint, damage in damages.items():
        if damage is not None:
            logger.warning("%s is damaged: %s. Removing it.", checkpoint, damage)
            shutil.rmtree(checkpoint)
    whole = [path for path, damage in damages.items() if damage is None]
    for checkpoint in reversed(whole):
        state = read_state(checkpoint)
        best = state.get("best_model_checkpoint")
        if best is None:
            return str(checkpoint)
        # Trainer writes the path as it was then.
        best_here = checkpoint.with_name(Path(best).name)
        if best_here in whole:
            if Path(best) != best_here:
                write_json(checkpoint / STATE_FILE, {**state, "best_model_checkpoint": str(best_here)})
            return str(checkpoint)
        logger.warning(
            "%s has its best weights in %s, which is missing; using an older checkpoint.", checkpoint, best_here
        )
    return None


def find_damage(checkpoint: Path, *, only_model: bool = False) -> str | None:
    """Return what is missing or cut of a checkpoint; `None` if it is whole.

    Every file that contains its own length is looked at: weights by their header, what torch wrote by its directory at
    the end. `trainer_state.json` is written last.
    """
    if not read_state(checkpoint):
        return f"{STATE_FILE} is missing or cut"
    for patterns in (_WEIGHTS,) if only_model else (_WEIGHTS, *_REST):
        if not any(True for pattern in patterns for _ in checkpoint.glob(pattern)):
            return f"{patterns[0]} is missing"
    for path in sorted(checkpoint.rglob("*")):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, "np"):
                    pass
            elif path.suffix in (".pt", ".pth", ".bin") and path.is_file() and path.name != "training_args.bin":
                with zipfile.ZipFile(path):
                    pass
            elif path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, SafetensorError, zipfile.BadZipFile) as error:
            return f"{path.name} cannot be read ({error})"
    return None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Read how far a checkpoint is; empty if that was not written to the end."""
    try:
        state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) and isinstance(state.get("global_step"), int) else {}


__all__ = ["find_checkpoint", "find_damage", "list_checkpoints", "read_state"]
