# SPDX-License-Identifier: Apache-2.0
"""How every recipe starts and what it leaves; of several processes one does the stages before training."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainingArguments

from seekrec.errors import ConfigurationError
from seekrec.events import Split, write_examples
from seekrec.models.manifest import save_checkpoint
from seekrec.schema import RECOMMENDATION
from seekrec.training.arguments import STAGES, EvaluationArguments
from seekrec.training.stages import StageCache
from seekrec.util.command_line import one_line_errors
from seekrec.util.files import lock_folder
from seekrec.util.parsing import parse_arguments

logger = logging.getLogger(__name__)

# What tells a process that it is one of several: names, and beginnings of names.
_IN_A_GROUP = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_OF_A_GROUP = ("RANK", "LOCAL_", "WORLD_", "MASTER_", "GROUP_", "ROLE_", "TORCHELASTIC_", "ACCELERATE_")


def run_recipe(script: str, argument_types: Sequence[type], main: Callable[..., None]) -> None:
    """Run a recipe with the settings of its command line, and log to the terminal.

    What its user can mend ends it with one line; see [`one_line_errors`].

    Args:
        script (`str`): Path of the recipe; it must know `--stop_after corpus`.
        argument_types (`Sequence[type]`): Dataclasses of its settings, [`EvaluationArguments`] among them.
        main (`Callable`): Takes one object of each.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in ("bm25s", "sentence_transformers", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Without a group of processes there is nothing that a backend could connect, and torch refuses one.
    ignored = () if any(name in os.environ for name in _IN_A_GROUP) else ("ddp_backend",)
    with one_line_errors(script):
        arguments = parse_arguments(argument_types, sys.argv[1:], ignored=ignored)
        _keep_from_hub(arguments)
        _prepare_once(script, sys.argv[1:], arguments)
        with _alone_in_folder(arguments):
            main(*arguments)


def open_stages(training: TrainingArguments, evaluation: EvaluationArguments) -> StageCache:
    """Open the folder of what is made before training."""
    return StageCache(evaluation.stages_dir or Path(str(training.output_dir)) / "stages")


def save_trained(model: Any, processor: Any, split: Split, output_dir: str | Path) -> Path:
    """Save a trained model with its processor, and requests to ask it, and put it into evaluation mode.

    An older model in the folder is replaced as one, and its results are deleted.

    Returns:
        `Path`: The model's folder, `<output_dir>/model`.
    """
    folder = Path(output_dir) / "model"
    save_checkpoint(model.eval(), processor, folder)
    write_examples(Path(output_dir) / "examples.json", split.requests("test", RECOMMENDATION))
    logger.info("saved the model in %s", folder)
    return folder


def _keep_from_hub(arguments: Sequence[object]) -> None:
    """Refuse the upload by the Trainer, and forget a token, which training would write into its checkpoints.

    Raises:
        ConfigurationError: If `push_to_hub` is set.
    """
    training = next(part for part in arguments if isinstance(part, TrainingArguments))
    if training.push_to_hub:
        raise ConfigurationError(
            "`push_to_hub` is set: the Trainer would upload weights without their catalogue, and a pickle. Train "
            "without it, then publish the whole model with its card by recipes/push_to_hub.py."
        )
    if training.hub_token is not None:
        training.hub_token = None
        logger.warning("hub_token is not used and was forgotten; log in with `hf auth login` before you publish.")


@contextmanager
def _alone_in_folder(arguments: Sequence[object]) -> Iterator[None]:
    """Keep other runs out of the folder; of several processes one holds it for all.

    Raises:
        FolderInUseError: If another run works there.
    """
    training = next(part for part in arguments if isinstance(part, TrainingArguments))
    if PartialState().is_main_process:
        with lock_folder(str(training.output_dir)):
            yield
    else:
        yield


def _prepare_once(script: str, argv: Sequence[str], arguments: Sequence[object]) -> None:
    """Let one process of several do the stages before training, outside the process group; the others wait."""
    state = PartialState()
    if state.num_processes > 1:
        if state.is_main_process:
            asked = next(part.stop_after for part in arguments if isinstance(part, EvaluationArguments))
            stop_after = min(asked, "corpus", key=STAGES.index)
            alone = {name: value for name, value in os.environ.items() if not name.startswith(_OF_A_GROUP)}
            done = subprocess.run([sys.executable, script, *argv, "--stop_after", stop_after], check=False, env=alone)
            if done.returncode:
                sys.exit(done.returncode)  # it has said why
        state.wait_for_everyone()


__all__ = ["open_stages", "run_recipe", "save_trained"]
