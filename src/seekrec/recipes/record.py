# SPDX-License-Identifier: Apache-2.0
"""Save a trained model with a record of its run: settings, versions and results."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from seekrec.evaluation import ResultRow, write_results
from seekrec.events import EventLog, Split, write_examples
from seekrec.events.partitions import PartitionedLog
from seekrec.events.split import LearnedAlso
from seekrec.identifiers import IdentifierQualityReport
from seekrec.models.manifest import Saveable, read_json, replace_part, save_checkpoint
from seekrec.recipes.stages import StageCache
from seekrec.schema import RECOMMENDATION, Request
from seekrec.util.files import write_json
from seekrec.util.redaction import publishable, publishable_command
from seekrec.util.settings import option_values

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
MODEL_FOLDER = "model"
# What a model whose results are those of the training before has learned from.
EVERYTHING: LearnedAlso = "everything"
_REQUESTS_AT_ONCE = 100


def save_trained(model: PreTrainedModel, processor: Saveable, split: Split, output_dir: str | Path) -> Path:
    """Save a trained model with its processor, and requests to ask it, and put it into evaluation mode.

    An older model in the folder is replaced as one, and its results are deleted.

    Returns:
        `Path`: The model's folder, `<output_dir>/model`.
    """
    folder = Path(output_dir) / MODEL_FOLDER
    save_checkpoint(model.eval(), processor, folder)
    write_examples(Path(output_dir) / "examples.json", _iterate_requests(split))
    logger.info("saved the model in %s", folder)
    return folder


def _iterate_requests(split: Split) -> Iterator[Request]:
    """Return what the test part recommends for, a few at a time: all of a large log are many objects."""
    number = len(split.targets("test", RECOMMENDATION))
    for begin in range(0, number, _REQUESTS_AT_ONCE):
        chosen = np.arange(begin, min(begin + _REQUESTS_AT_ONCE, number))
        yield from split.requests("test", RECOMMENDATION, chosen=chosen)


def save_run(
    folder: str | Path,
    *,
    command: str,
    log: EventLog | PartitionedLog,
    settings: Mapping[str, object],
    seconds: Mapping[str, float] | None = None,
    left_out: Mapping[str, str] | None = None,
    plan: Sequence[Mapping[str, object]] = (),
    refit: Mapping[str, object] | None = None,
) -> None:
    """Write `run.json` into a model folder: where its numbers come from, for the card.

    Args:
        folder (`str` or `Path`): The model folder.
        command (`str`): The command line that made the model.
        log ([`EventLog`]): Log that it was trained on; only counts are written, and its notes.
        settings (`Mapping`): The settings of the recipe, flat. Secrets are not written, paths as their last part.
        seconds (`Mapping[str, float]`, *optional*): Wall time of each stage.
        left_out (`Mapping[str, str]`, *optional*): By stage, what there was no time for.
        plan (`Sequence[Mapping]`): Settings that were chosen by log and machine: name, value, reason.
        refit (`Mapping`, *optional*): Of a second training, what it learned from and for how long.
    """
    content: dict[str, object] = {
        "command": command,
        "log": log.describe(),
        "settings": dict(settings),
        "seconds": dict(seconds or {}),
    }
    if left_out:
        content["left_out"] = dict(left_out)
    if plan:
        content["plan"] = [dict(choice) for choice in plan]
    if refit:
        content["refit"] = dict(refit)
    write_run(Path(folder) / RUN_FILE, content)


def read_refit(folder: str | Path) -> dict[str, object]:
    """Return what `run.json` of a model folder says of a second training; nothing where there was none."""
    path = Path(folder) / RUN_FILE
    found = read_json(path).get("refit") if path.is_file() else None
    return found if isinstance(found, dict) else {}


def write_run(path: Path, content: Mapping[str, object]) -> None:
    """Write a description of a run without secrets, and with paths as their last part."""
    write_json(path, publishable(content))


def record_run(
    folder: str | Path,
    rows: Sequence[ResultRow],
    *,
    command: Sequence[str],
    log: EventLog | PartitionedLog,
    arguments: Sequence[object],
    stages: StageCache,
    quality: IdentifierQualityReport | None = None,
    plan: Sequence[Mapping[str, object]] = (),
    refit: Mapping[str, object] | None = None,
) -> None:
    """Write what a recipe measured, with the rank of every case, and `run.json`.

    They replace older ones as one, and belong to the weights in the folder from now on.

    Args:
        folder (`str` or `Path`): The model folder.
        rows (`Sequence[ResultRow]`): Results.
        command (`Sequence[str]`): Words of the command that is running.
        log ([`EventLog`]): Log that the model was trained on.
        arguments (`Sequence`): The groups of the recipe's settings; their options are written flat.
        stages ([`StageCache`]): Knows how long each stage took, and what there was no time for.
        quality ([`IdentifierQualityReport`], *optional*): Quality of the identifiers, for `identifiers.json`.
        plan (`Sequence[Mapping]`): Settings that were chosen by log and machine: name, value, reason.
        refit (`Mapping`, *optional*): See [`save_run`].
    """
    settings = {name: value for part in arguments for name, value in option_values(part).items()}
    with replace_part(folder, "results") as new:
        write_results(new / "results.json", rows)
        if quality is not None:
            quality.save(new / "identifiers.json")
        save_run(
            new,
            command=publishable_command(command),
            log=log,
            settings=settings,
            seconds=stages.seconds,
            left_out=stages.left_out,
            plan=plan,
            refit=refit,
        )


__all__ = [
    "EVERYTHING",
    "MODEL_FOLDER",
    "RUN_FILE",
    "read_refit",
    "record_run",
    "save_run",
    "save_trained",
    "write_run",
]
