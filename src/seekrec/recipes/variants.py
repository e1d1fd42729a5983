# SPDX-License-Identifier: Apache-2.0
"""Run variants of a recipe that differ in some options, each in its own folder, sharing the first stages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from seekrec.errors import ConfigurationError
from seekrec.util.files import write_json
from seekrec.util.hashing import file_sha256
from seekrec.util.package_data import data_folder
from seekrec.util.parsing import read_settings

# The model of a settings file, with what all variants of its family have.
FULL = "full"
# What `run_variant` writes next to a model: its options, which make the recipe again.
RECORD_FILE = "ablation.json"

Settings = dict[str, object]


def read_variants(family: str) -> tuple[Settings, dict[str, dict[str, Settings]]]:
    """Read the variants of a family from `recipes/variants`.

    Args:
        family (`str`): gensar, gensr, intsr or synergen.

    Returns:
        `tuple`: The settings that every variant has, and by group the settings of each variant.

    Raises:
        ConfigurationError: If the family has no variants.
    """
    path = data_folder("recipes") / "variants" / f"{family}.yaml"
    if not path.is_file():
        names = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise ConfigurationError(f"`recipe` is {family!r}; use one of {', '.join(names)}.")
    groups: dict[str, dict[str, Settings]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    shared: Settings = dict(groups.pop("all", {}))
    return shared, groups


def choose_variants(
    family: str, which: Sequence[str], settings: Mapping[str, object] | None = None
) -> dict[str, list[str]]:
    """Return the options of each variant, including those of all; the full model comes first.

    Options that `settings` already contain are left out, so a variant that changes nothing has the options of the full
    model.

    Args:
        family (`str`): gensar, gensr, intsr or synergen.
        which (`Sequence[str]`): Groups of variants.
        settings (`Mapping`, *optional*): What the settings file has.

    Raises:
        ConfigurationError: If the family has no variants, or a group is unknown.
    """
    shared, groups = read_variants(family)
    known = {**(settings or {}), **shared}
    everywhere = as_options(shared)
    variants: dict[str, list[str]] = {FULL: everywhere}
    for name in which:
        if name not in groups:
            raise ConfigurationError(f"`which` has the unknown group {name!r}; choose from {', '.join(groups)}.")
        for variant, changes in groups[name].items():
            variants[variant] = [*everywhere, *as_options(changed(changes, known))]
    return variants


def changed(changes: Mapping[str, object], known: Mapping[str, object]) -> Settings:
    """Return the settings that differ from what is known."""
    return {name: value for name, value in changes.items() if name not in known or known[name] != value}


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
    variant, are left out unless the options name some.

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
    record = target / RECORD_FILE
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
    given = iter(options)
    words = [config]
    for option in given:
        if option == "--stages_dir":
            next(given, None)  # what it holds is made here
        else:
            words.append(option.rpartition("=")[2])
    named = {Path(value) for value in (*values, *words) if isinstance(value, str) and value}
    files = [path for root in named for path in ((root,) if root.is_file() else sorted(root.rglob("*")))]
    return {str(path): file_sha256(path) for path in files if path.is_file()}


__all__ = [
    "FULL",
    "RECORD_FILE",
    "Settings",
    "as_options",
    "changed",
    "choose_variants",
    "read_variants",
    "run_variant",
]
