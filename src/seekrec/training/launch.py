# SPDX-License-Identifier: Apache-2.0
"""How every recipe starts and what it leaves; of several processes one does the stages before training."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from seekrec.events import Split, write_examples
from seekrec.schema import RECOMMENDATION
from seekrec.training.arguments import parse_arguments

logger = logging.getLogger(__name__)

# What tells a process that it is one of several.
_OF_A_GROUP = ("RANK", "LOCAL_", "WORLD_", "MASTER_", "GROUP_", "ROLE_", "TORCHELASTIC_", "ACCELERATE_")


def run_recipe(script: str, argument_types: Sequence[type], main: Callable[..., None]) -> None:
    """Run a recipe with the settings of its command line, and log to the terminal.

    Args:
        script (`str`): Path of the recipe; it must know `--stop_after corpus`.
        argument_types (`Sequence[type]`): Dataclasses of its settings.
        main (`Callable`): Takes one object of each.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in ("bm25s", "sentence_transformers", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    arguments = parse_arguments(argument_types, sys.argv[1:])
    _prepare_once(script, sys.argv[1:])
    main(*arguments)


def save_trained(model: Any, processor: Any, split: Split, output_dir: str | Path) -> Path:
    """Save a trained model with its processor, and requests to ask it, and put it into evaluation mode.

    Returns:
        `Path`: The model's folder, `<output_dir>/model`.
    """
    folder = Path(output_dir) / "model"
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    write_examples(Path(output_dir) / "examples.json", split.requests("test", RECOMMENDATION))
    logger.info("saved the model in %s", folder)
    return folder


def _prepare_once(script: str, argv: Sequence[str]) -> None:
    """Let one process of several do the stages before training, outside the process group; the others wait."""
    state = PartialState()
    if state.num_processes > 1:
        if state.is_main_process:
            alone = {name: value for name, value in os.environ.items() if not name.startswith(_OF_A_GROUP)}
            # A backend without a process group is an error.
            options = list(argv)
            if "--ddp_backend" in options:
                position = options.index("--ddp_backend")
                del options[position : position + 2]
            subprocess.run([sys.executable, script, *options, "--stop_after", "corpus"], check=True, env=alone)
        state.wait_for_everyone()


__all__ = ["run_recipe", "save_trained"]
