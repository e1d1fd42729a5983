# SPDX-License-Identifier: Apache-2.0
"""Read and check what a checkpoint contains besides weights: its catalogue and its configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils.hub import cached_file

from seekrec.catalog import CATALOG_FILE, CATALOG_FOLDER, Catalog
from seekrec.errors import CatalogError, CheckpointError, DataError
from seekrec.events.spelling import Spelling
from seekrec.models.manifest import IF_THERE, SPELLING_FILE, HubArguments, Part, part_files, read_json
from seekrec.util.repositories import CommitArguments

_WEIGHTS = "model.safetensors"
# Catalogues that something still holds, by their folder and the state of its files.
_LOADED: WeakValueDictionary[tuple[Path, tuple[object, ...]], Catalog] = WeakValueDictionary()


@contextmanager
def named_model(source: str | os.PathLike[str]) -> Iterator[None]:
    """Load a model of this name inside; what it cannot be is said by its name, and not by the Hub.

    Args:
        source (`str` or `Path`): Folder of a model, or name of a Hub repository.

    Raises:
        CheckpointError: If it is neither.
    """
    folder = Path(source)
    if folder.is_dir():
        refuse_no_model(folder)
    if not folder.is_dir() and not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(source)):
        raise CheckpointError(
            f"There is no folder {source}; pass the folder of a trained model, or a repository of the Hub: user/name."
        )
    try:
        yield
    except OSError as error:
        if folder.is_dir():
            raise
        said = " ".join(str(error).split())
        raise CheckpointError(
            f"{source} is not a local folder, and was not found on the Hub either: {said}"
        ) from error


def refuse_no_model(folder: Path) -> None:
    """Refuse a folder that holds no model; in that of a run it lies one folder further in.

    Raises:
        CheckpointError: If there is no configuration.
    """
    if not (folder / "config.json").is_file():
        inner = folder / "model"
        meant = f"did you mean {inner}?" if (inner / "config.json").is_file() else "name the folder of a trained one."
        raise CheckpointError(f"{folder} does not contain a model: there is no config.json; {meant}")


def load_bundled_catalog(name_or_path: str | os.PathLike[str], hub: HubArguments) -> Catalog:
    """Read the catalogue that was saved with a checkpoint; the one already loaded while the files are the same.

    Args:
        name_or_path (`str` or `Path`): A folder written by `save_pretrained`, or a Hub repository.
        hub ([`HubArguments`]): Where the files come from.

    Raises:
        CatalogError: If the checkpoint has no catalogue, or a damaged one.
    """
    folder = find_bundled(name_or_path, hub, CATALOG_FOLDER)
    if not folder.is_dir():
        raise CatalogError(
            f"{name_or_path} contains no folder {CATALOG_FOLDER!r}, but its configuration names identifiers; save the "
            "model with its catalogue, or pass one to `set_catalog`."
        )
    # A model and its processor that are loaded one after the other hold one object.
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    state = tuple((name, found.st_ino, found.st_size, found.st_mtime_ns) for name, found in files)
    catalog = _LOADED.get((folder, state))
    if catalog is None:
        catalog = _LOADED[folder, state] = Catalog.load(folder)
    return catalog


def find_bundled(name_or_path: str | os.PathLike[str], hub: HubArguments, name: str) -> Path:
    """Return a folder that was saved inside a checkpoint, fetched from the Hub if need be; it may not be there.

    Args:
        name_or_path (`str` or `Path`): A folder written by `save_pretrained`, or a Hub repository.
        hub ([`HubArguments`]): Where the files come from.
        name (`str`): The folder inside it.
    """
    folder, inside = Path(name_or_path), Path(hub.get("subfolder") or "", name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        found = snapshot_download(
            str(name_or_path),
            allow_patterns=f"{inside.as_posix()}/*",
            cache_dir=hub.get("cache_dir"),
            force_download=hub.get("force_download", False),
            local_files_only=hub.get("local_files_only", False),
            revision=hub.get("revision"),
            token=hub.get("token"),
        )
        folder = Path(found)
    return folder / inside


def save_bundled_catalog(catalog: Catalog, folder: str | Path) -> None:
    """Write a catalogue into a checkpoint folder; an older one there is replaced as a whole."""
    catalog.save(Path(folder) / CATALOG_FOLDER)


def refuse_other_catalog(catalog: Catalog | None, folder: str | os.PathLike[str], part: Part) -> None:
    """Refuse to save a model or a processor beside its other, whose catalogue it would replace by another one.

    A model may replace a model: the processor there is refused from then on, until that of the new model is saved.

    Args:
        catalog ([`Catalog`], *optional*): The catalogue of what is saved; without one, that in the folder stays.
        folder (`str` or `Path`): The checkpoint.
        part (`str`): What is saved: `"model"` or `"processor"`.

    Raises:
        CatalogError: If the other part lies there with another catalogue.
    """
    target, path = Path(folder), Path(folder, CATALOG_FOLDER, CATALOG_FILE)
    replaces_both = part == "model" and part_files(target, "model")
    other: Part = "processor" if part == "model" else "model"
    if catalog is None or replaces_both or not path.is_file() or not part_files(target, other):
        return
    try:
        found = read_json(path)
        kept, number = str(found["content_hash"]), int(found["settings"]["num_items"])
    except (CheckpointError, KeyError, TypeError, ValueError):
        return  # damaged: it is replaced
    if kept != catalog.content_hash:
        raise CatalogError(
            f"{target} holds a {other} and its catalogue of {number} items ({kept[:12]}), which that of this {part} "
            f"would replace: {len(catalog)} items ({catalog.content_hash[:12]}). Give both the one to be saved, by "
            "`processor.set_catalog(model.catalog)` or `model.set_catalog(processor.catalog)`, and save them by "
            "`save_checkpoint(model, processor, folder)`; nothing was written."
        )


def save_spelling(spelling: Spelling | None, folder: str | Path) -> None:
    """Write the words that queries are known by, into the folder of a checkpoint; nothing if there are none."""
    if spelling is not None:
        save_file(spelling.arrays(), Path(folder, SPELLING_FILE))


def load_spelling(name_or_path: str | os.PathLike[str], hub: HubArguments) -> Spelling | None:
    """Read the words that queries are known by, or `None` where a checkpoint has none.

    Raises:
        CheckpointError: If the file is damaged.
    """
    path = cached_file(name_or_path, SPELLING_FILE, **IF_THERE, **hub)
    try:
        return None if path is None else Spelling.from_arrays(load_file(path))
    except (SafetensorError, OSError, DataError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}). Save the processor again, or fetch it again."
        ) from error


def load_config(name_or_path: str | os.PathLike[str], hub: HubArguments) -> PreTrainedConfig | None:
    """Read the configuration of the model in a checkpoint; `None` where there is no model.

    Args:
        name_or_path (`str` or `Path`): A folder or a Hub repository.
        hub ([`HubArguments`]): Where the files come from.
    """
    found = cached_file(name_or_path, "config.json", **hub, **IF_THERE)
    if found is None:
        return None
    read_json(Path(found))
    return AutoConfig.from_pretrained(name_or_path, **hub)


def split_hub_arguments(arguments: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Take what only `push_to_hub` reads out of the arguments of `save_pretrained`; `None` if nothing is pushed.

    What is uploaded is saved again into a folder of its own, because a swapped folder tells nothing of what changed.
    """
    shared = {"token", "max_shard_size"}
    names = {"repo_id", "tags", *CommitArguments.__annotations__} - shared
    to_hub = {name: value for name, value in arguments.items() if name in names | shared}
    settings = {name: value for name, value in arguments.items() if name not in {*names, "push_to_hub"}}
    return (to_hub if arguments.get("push_to_hub") else None), settings


def check_depth(source: str | os.PathLike[str], hub: HubArguments) -> None:
    """Refuse a configuration of more layers than the weights have tensors, before anything is built of it."""
    found: dict[str, str | None] = {
        name: cached_file(source, name, **hub, **IF_THERE)
        for name in ("config.json", _WEIGHTS, f"{_WEIGHTS}.index.json")
    }
    settings, weights, index = found.values()
    if settings is None:
        return
    if weights is not None:
        try:
            with safe_open(weights, "np") as tensors:
                count = len(tensors.keys())
        except SafetensorError as error:
            raise CheckpointError(
                f"{weights} cannot be read ({error}): it is truncated or damaged. Save the model again or fetch the "
                "folder anew."
            ) from error
    elif index is not None:
        count = len(read_json(Path(index)).get("weight_map") or ())
    else:
        return
    pending = [read_json(Path(settings))]
    while pending:
        for name, value in pending.pop().items():
            if isinstance(value, dict):
                pending.append(value)
            elif name.endswith(("layers", "levels")) and isinstance(value, int) and value > count:
                raise CheckpointError(
                    f"{settings} has {name} {value}, but the weights next to it have {count} tensors: the file is "
                    "damaged or belongs to another model. Save the model again or fetch the folder again."
                )


__all__ = [
    "check_depth",
    "find_bundled",
    "load_bundled_catalog",
    "load_config",
    "load_spelling",
    "named_model",
    "refuse_no_model",
    "refuse_other_catalog",
    "save_bundled_catalog",
    "save_spelling",
    "split_hub_arguments",
]
