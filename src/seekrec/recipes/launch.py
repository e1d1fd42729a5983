# SPDX-License-Identifier: Apache-2.0
"""Start a recipe: read the settings, lock the folder of the run, and run the first stages in one process."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from accelerate import PartialState
from transformers.utils.logging import disable_progress_bar

from seekrec.errors import ConfigurationError, SeekrecError
from seekrec.events import EventLog
from seekrec.events.partitions import PartitionedLog
from seekrec.events.report import LogSummary, summarize_log
from seekrec.recipes.answering import ModelT, ProcessorT
from seekrec.recipes.arguments import STAGES, RunArguments
from seekrec.recipes.cluster import train_on_cluster
from seekrec.recipes.compared_models import check_folders
from seekrec.recipes.logs import look_at_log, name_log, open_partitions, read_log
from seekrec.recipes.plan import describe_costs, describe_log, forget_noted, given_values, make_plan
from seekrec.recipes.ranges import check_ranges
from seekrec.recipes.recipe import Recipe
from seekrec.recipes.refit import run_twice
from seekrec.recipes.stages import open_stages
from seekrec.util.clock import run_environment
from seekrec.util.command_line import one_line_errors
from seekrec.util.files import lock_folder
from seekrec.util.package_data import find_settings
from seekrec.util.parsing import given_settings, is_given, parse_arguments

logger = logging.getLogger(__name__)

# What tells a process that it is one of several: names, and beginnings of names.
_IN_A_GROUP = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_OF_A_GROUP = ("RANK", "LOCAL_", "WORLD_", "MASTER_", "GROUP_", "ROLE_", "TORCHELASTIC_", "ACCELERATE_")


def run_recipe(
    script: str | Sequence[str], recipe_type: type[Recipe[ModelT, ProcessorT]], argv: Sequence[str] | None = None
) -> Recipe[ModelT, ProcessorT]:
    """Run a recipe with the settings of its command line, and log to the terminal.

    What its user can mend ends it with one line; see [`one_line_errors`].

    Args:
        script (`str` or `Sequence[str]`): Path of the script that calls this, or what follows `python` in its place
            (`-m`, a module, words of its own); with several processes it is run by itself, too.
        recipe_type (`type[Recipe]`): The recipe.
        argv (`Sequence[str]`, *optional*): Options of the recipe; those of this process if not given.

    Returns:
        [`Recipe`]: The recipe, which has run.
    """
    words = [script] if isinstance(script, str) else list(script)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in ("bm25s", "sentence_transformers", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    disable_progress_bar()  # of files read and written; a training shows its own
    with one_line_errors(script if isinstance(script, str) else " ".join(["seekrec", *script[2:]])):
        options = find_packaged_settings(recipe_type.family(), sys.argv[1:] if argv is None else argv)
        recipe = _make_apart_from_hub(recipe_type, options)
        if not isinstance(script, str):
            recipe.command = ["seekrec", *script[2:], *options]
        if not recipe.running.dry_run:
            _prepare_once(words, options, recipe.running)
            with _alone_in_folder(recipe.output_dir):
                if recipe.data.engine == "ray" and not _is_in_a_group():
                    train_on_cluster(recipe, partial(_make_apart_from_hub, recipe_type), options)
                if recipe.running.refit == "none":
                    recipe.run()
                else:
                    run_twice(recipe)
    return recipe


def find_packaged_settings(family: str, argv: Sequence[str]) -> list[str]:
    """Return options whose `--config NAME` names the packaged file, where it is the name of one."""
    options = list(argv)
    for place, option in enumerate(options):
        if option == "--config" and place + 1 < len(options):
            options[place + 1] = find_settings(family, options[place + 1])
        elif option.startswith("--config="):
            options[place] = f"--config={find_settings(family, option.partition('=')[2])}"
    return options


def make_recipe(recipe_type: type[Recipe[ModelT, ProcessorT]], argv: Sequence[str]) -> Recipe[ModelT, ProcessorT]:
    """Make a recipe from a command line; without a settings file the log and the machine choose what it leaves open.

    Args:
        recipe_type (`type[Recipe]`): The recipe.
        argv (`Sequence[str]`): The command line without the program's name.

    Raises:
        ConfigurationError: If a setting is wrong, or nothing can be learned from the log.
        DataError: If the log cannot be used.
    """
    # Without a group of processes there is nothing that a backend could connect, and torch refuses one.
    ignored = () if _is_in_a_group() else ("ddp_backend",)
    types, given = recipe_type.argument_types(), given_settings(argv)
    recipe = recipe_type(*parse_arguments(types, argv, ignored=ignored))
    check_ranges(recipe.groups())
    check_folders(recipe.evaluation.compare_with)
    began = recipe.cache.began
    if not recipe.running.dry_run:
        recipe.cache.set_reserve("all was loaded")
    recipe.refuse_ignored(given)
    chosen: dict[str, object] = {}
    if "output_dir" not in given:
        chosen["output_dir"] = f"runs/{recipe_type.family()}-{name_log(recipe.data)}"
    plan = None
    log = None
    if not is_given(argv, "config"):
        output_dir = Path(str(chosen.get("output_dir", recipe.output_dir)))
        log, parts = _look_at_log(recipe, output_dir)
        if not recipe.running.dry_run:
            recipe.cache.set_reserve("the log was read")
        values = given_values(sorted(given), recipe.groups())
        # One process makes the plan, the others find it.
        state = PartialState()
        with state.main_process_first():
            if state.is_main_process:
                summary = describe_log(log, with_notes=recipe.running.dry_run)
            else:
                summary = summarize_log(log)
            if parts is not None:
                summary = scale_summary(summary, parts)
            plan = make_plan(
                recipe_type.family(),
                log,
                values,
                recipe.running,
                output_dir,
                summary=summary,
                is_partitioned=parts is not None,
            )
            if state.is_main_process:
                print(plan, flush=True)
                if not recipe.running.dry_run:
                    plan.note(output_dir)
        chosen |= plan.values
    elif recipe.running.dry_run:
        log, parts = look_at_log(recipe.data)
        summary = describe_log(log, with_notes=True)
        if parts is not None:
            summary = scale_summary(summary, parts)
        print(
            describe_costs(
                recipe_type.family(),
                log,
                summary,
                recipe.groups(),
                recipe.output_dir,
                is_partitioned=parts is not None,
            ),
            flush=True,
        )
    if not chosen:
        return recipe
    recipe = recipe_type(*parse_arguments(types, argv, ignored=ignored, chosen=chosen))
    # Reading the log for the plan was reading it for the run.
    recipe.plan, recipe.log, recipe.cache.began = plan, log, began
    return recipe


def _is_in_a_group() -> bool:
    return any(name in os.environ for name in _IN_A_GROUP)


def _look_at_log(recipe: Recipe[ModelT, ProcessorT], output_dir: Path) -> tuple[EventLog, PartitionedLog | None]:
    """Read the log for a plan: of one in partitions the largest, whose users are a sample as a hash chose them."""
    if recipe.running.dry_run:
        return look_at_log(recipe.data)
    parts = open_partitions(recipe.data, open_stages(recipe.running, output_dir))
    return (read_log(recipe.data, output_dir), None) if parts is None else (parts.largest(), parts)


def scale_summary(summary: LogSummary, parts: PartitionedLog) -> LogSummary:
    """Return the summary of a partitioned log, of which one partition was summarised: counts grow with its events."""
    num_events = parts.sampled_from or parts.num_events
    times = num_events / summary.num_events
    num_users = parts.num_users if parts.sampled_from is None else round(times * parts.num_users)
    logger.info(
        "The log has %d events of %s%d users; the summary is of a sample of %d events.",
        num_events,
        "" if parts.sampled_from is None else "about ",
        num_users,
        summary.num_events,
    )
    return replace(
        summary,
        num_events=num_events,
        num_users=num_users,
        num_interactions=round(times * summary.num_interactions),
        num_users_to_hold_out=round(times * summary.num_users_to_hold_out),
        actions={name: round(times * count) for name, count in summary.actions.items()},
    )


def _make_apart_from_hub(
    recipe_type: type[Recipe[ModelT, ProcessorT]], argv: Sequence[str]
) -> Recipe[ModelT, ProcessorT]:
    """Make a recipe without the upload by the Trainer, and without a token, which it would write into checkpoints.

    Raises:
        ConfigurationError: If `push_to_hub` is set.
    """
    recipe = make_recipe(recipe_type, argv)
    training = recipe.training
    if training.push_to_hub:
        raise ConfigurationError(
            "`push_to_hub` is set, but the Trainer would upload weights without their catalogue, and a pickle. Train "
            "without it, then publish the complete model with its card using recipes/push_to_hub.py."
        )
    if training.hub_token is not None:
        training.hub_token = None
        logger.warning("`hub_token` is not used and was discarded; log in with `hf auth login` before you publish.")
    return recipe


@contextmanager
def _alone_in_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder; of several processes one holds it for all.

    Raises:
        FolderInUseError: If another run works there.
    """
    if PartialState().is_main_process:
        try:
            with lock_folder(folder):
                yield
        except (SeekrecError, OSError):
            forget_noted(folder)  # one that was killed goes on with its plan, and this one was refused
            raise
    else:
        yield


def _prepare_once(words: Sequence[str], argv: Sequence[str], running: RunArguments) -> None:
    """Let one process of several do the stages before training, outside the process group; the others wait."""
    state = PartialState()
    if state.num_processes > 1:
        if state.is_main_process:
            stop_after = min(running.stop_after, "corpus", key=STAGES.index)
            alone = {name: value for name, value in os.environ.items() if not name.startswith(_OF_A_GROUP)}
            alone |= run_environment()
            done = subprocess.run([sys.executable, *words, *argv, "--stop_after", stop_after], check=False, env=alone)
            if done.returncode:
                sys.exit(done.returncode)  # it has said why
        state.wait_for_everyone()


__all__ = ["find_packaged_settings", "make_recipe", "run_recipe"]
