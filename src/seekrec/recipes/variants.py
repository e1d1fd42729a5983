# SPDX-License-Identifier: Apache-2.0
"""Runs of a recipe that differ in some options, each in its own folder, over the same first stages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from seekrec.errors import ConfigurationError
from seekrec.util.files import write_json
from seekrec.util.hashing import file_sha256
from seekrec.util.parsing import read_settings


def as_options(settings: Mapping[str, object]) -> list[str]:
    """Write settings as command line options."""
    options = []
    for key, value in settings.items():
        options += [f"--{key}", *(str(part) for part in (value if isinstance(value, list) else [value]))]
    return options


def run_variant(
    script: Path, config: str, folder: Path, name: str, options: Sequence[str], *, num_train_epochs: float
) -> Path:
    """Train and evaluate a variant, unless its results exist.

    The model is evaluated and saved after each epoch, whatever the file says. Baselines, which do not depend on the
    variant, are left out.

    Args:
        script (`Path`): Script of the recipe.
        config (`str`): YAML file of the recipe.
        folder (`Path`): Folder of all variants, and of the stages that they share.
        name (`str`): Name of the variant; its letters and digits name its folder.
        options (`Sequence[str]`): Options of the recipe, where a later one wins.
        num_train_epochs (`float`): Number of epochs of each variant.

    Returns:
        `Path`: Its results file.

    Raises:
        ConfigurationError: If the recipe ends with an error.
    """
    target = folder / "".join(letter if letter.isalnum() or letter == "." else "-" for letter in name)
    results = target / "model" / "results.json"
    fixed = {
        "output_dir": target,
        "num_train_epochs": num_train_epochs,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "baselines": "none",
        "stages_dir": folder / "stages",
    }
    command = [sys.executable, str(script), "--config", config, *as_options(fixed), *options]
    record = target / "ablation.json"
    wanted = {"command": command[2:], "files": _digests_of_paths(config, options)}
    if not results.is_file() or not record.is_file() or json.loads(record.read_text(encoding="utf-8")) != wanted:
        target.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
        with open(target / "log.txt", "w", encoding="utf-8") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise ConfigurationError(f"The variant {name!r} failed; see {target / 'log.txt'}.")
        write_json(record, wanted)
    return results


def _digests_of_paths(config: str, options: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of every file that the settings name, or that lies in a folder they name."""
    values = [one.value for one in read_settings(config) if one.name not in ("output_dir", "stages_dir")]
    words = [option.rpartition("=")[2] for option in (*options, config)]
    named = {Path(value) for value in (*values, *words) if isinstance(value, str) and value}
    files = [path for root in named for path in ((root,) if root.is_file() else sorted(root.rglob("*")))]
    return {str(path): file_sha256(path) for path in files if path.is_file()}


__all__ = ["as_options", "run_variant"]
