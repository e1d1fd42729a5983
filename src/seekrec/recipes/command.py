# SPDX-License-Identifier: Apache-2.0
"""The console command `seekrec`: train a family on a log, serve it, or try one on a simulated shop.

```bash
seekrec train intsr --events my/events.parquet --items my/items.csv
seekrec train gensar --config movielens-100k
seekrec serve --model runs/intsr/model
seekrec quickstart
```
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from seekrec.errors import ConfigurationError
from seekrec.serving import command as serving
from seekrec.util.clock import run_environment
from seekrec.util.command_line import one_line_errors
from seekrec.util.package_data import settings_names

FAMILIES = {
    "gensar": "writes identifiers of items, token by token; also suggests queries and describes items",
    "gensr": "says Yes or No to candidates: another system's, or those that views of the log find",
    "intsr": "one decoder over the history, both tasks; the fastest to train",
    "synergen": "one decoder, both tasks; the times of events, and click probabilities",
}
_MODULE = "seekrec.recipes.command"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv (`Sequence[str]`, *optional*): Words of the command line; those of this process if not given.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _make_parser()
    # The settings of a recipe are its own to read, its --help among them.
    if words[:1] == ["train"] and len(words) > 1 and words[1] in FAMILIES:
        train(words[1], words[2:])
        return
    arguments = parser.parse_args(words)
    if arguments.command == "quickstart":
        from seekrec.recipes.quickstart import run_quickstart

        with one_line_errors("seekrec quickstart"):
            run_quickstart(arguments.output_dir, seed=arguments.seed)
    elif arguments.command == "serve":
        with one_line_errors("seekrec serve"):
            serving.serve(arguments)
    elif arguments.command == "train":
        parser.parse_args(["train", "--help"])
    else:
        parser.print_help()


def train(family: str, options: list[str]) -> None:
    """Train a family, as `recipes/train_<family>.py` does; on several GPUs as that does under accelerate.

    Args:
        family (`str`): gensar, gensr, intsr or synergen.
        options (`list[str]`): Options of the recipe, and `--num_processes N`.
    """
    with one_line_errors("seekrec train"):
        num_processes, options = _pop_num_processes(options)
    # In a process that accelerate or torchrun started, the others are there already.
    if num_processes > 1 and "LOCAL_RANK" not in os.environ:
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
        launch += ["--num_processes", str(num_processes), "-m", _MODULE, "train", family, *options]
        sys.exit(subprocess.run(launch, check=False, env={**os.environ, **run_environment()}).returncode)
    # Only what is asked for is imported: help comes at once.
    from seekrec.recipes.gensar import GenSARRecipe
    from seekrec.recipes.gensr import GenSRRecipe
    from seekrec.recipes.intsr import IntSRRecipe
    from seekrec.recipes.launch import run_recipe
    from seekrec.recipes.recipe import Recipe
    from seekrec.recipes.synergen import SynerGenRecipe

    kinds: dict[str, type[Recipe[Any, Any]]] = {
        kind.family(): kind for kind in (GenSARRecipe, GenSRRecipe, IntSRRecipe, SynerGenRecipe)
    }
    # `argparse` names the program in its help by this.
    sys.argv[0] = f"seekrec train {family}"
    run_recipe(["-m", _MODULE, "train", family], kinds[family], options)


def _pop_num_processes(options: list[str]) -> tuple[int, list[str]]:
    """Take `--num_processes N` out of the options; all GPUs if it is not there, one process without a GPU.

    On a Ray cluster one process starts the others, here and on other nodes.
    """
    kept = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    kept.add_argument("--num_processes", type=int)
    found, rest = kept.parse_known_args(options)
    if found.num_processes is not None:
        if found.num_processes < 1:
            raise ConfigurationError(f"`num_processes` is {found.num_processes}; give a number of at least 1.")
        return found.num_processes, rest
    if "--engine=ray" in rest or ("--engine", "ray") in itertools.pairwise(rest):
        return 1, rest
    import torch

    return torch.cuda.device_count(), rest


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seekrec",
        description="One log of searches and clicks becomes one model that both searches and recommends.",
        epilog="examples:\n"
        "  seekrec quickstart\n"
        "  seekrec train intsr --events my/events.parquet --items my/items.csv --max_minutes 30\n"
        "  seekrec train intsr --events my/events.parquet --items my/items.csv --dry_run\n"
        "  seekrec train gensar --config movielens-100k\n"
        "  seekrec serve --model runs/intsr/model",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="command")
    lines = [f"  {name:<9} {what}" for name, what in FAMILIES.items()]
    lines += ["", "settings files by name (--config NAME):"]
    lines += [f"  {name:<9} {', '.join(settings_names(name))}" for name in FAMILIES]
    training = commands.add_parser(
        "train",
        help="train a model from a log of searches and clicks",
        usage="seekrec train FAMILY [--events FILE --items FILE] [--config NAME] [--max_minutes M] [--dry_run] ...",
        description="families:\n" + "\n".join(lines),
        epilog="`seekrec train FAMILY --help` lists all settings. Without --config they follow from the log and the\n"
        "machine, are printed with a reason each, and any can be given. With several GPUs one process runs on each\n"
        "(--num_processes N).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    training.add_argument("family", choices=FAMILIES, metavar="FAMILY")
    serving.add_arguments(
        commands.add_parser(
            "serve",
            help="answer over HTTP from a trained model, with a store of events and a catalogue that changes",
            description="Recommends, searches and ranks over HTTP; http://HOST:PORT/docs describes the routes.\n"
            f"Where the environment variable {serving.TOKEN_VARIABLE} is set, requests must contain it, and admin\n"
            "routes are on.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    quickstart = commands.add_parser(
        "quickstart",
        help="from nothing to answers in under two minutes, on a simulated shop",
        description="Simulates a shop, trains IntSR on its log for a minute, and shows what it recommends to one\n"
        "user and finds for a search, alongside what the user chose and what the simulator knows.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    quickstart.add_argument("--output_dir", default="runs/quickstart", help="folder of the shop and the model")
    quickstart.add_argument("--seed", type=int, default=0, help="seed of the shop")
    return parser


if __name__ == "__main__":
    main()
