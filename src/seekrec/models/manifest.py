# SPDX-License-Identifier: Apache-2.0
"""Checkpoint folders: each part is saved as a unit, with a manifest of the files that belong together.

A folder contains a model (configuration, weights), a processor (settings, tokenizer, query vectors), their catalogue
in `catalog/` and its results (`results.json`, `run.json`). Each part except the catalogue, which has its own hashes,
has a manifest with the SHA-256 of its files; the manifests of the processor and the results also name the model that
they were saved with. Loading checks them and reports a changed file, a part of another model or a swapped tokenizer. A
folder without manifests, from an older version or with hand-picked files, is loaded with the remaining checks.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypedDict, TypeVar, cast

from transformers.utils.hub import cached_file, cached_files, extract_commit_hash

from seekrec.catalog import CATALOG_FOLDER, Catalog
from seekrec.errors import CatalogError, CheckpointError
from seekrec.util.files import recover_folder, replace_folder
from seekrec.util.hashing import file_sha256, json_digest

Part = Literal["model", "processor", "results"]

# Words that queries are known by.
SPELLING_FILE = "spelling.safetensors"

# Files that are read as soon as they lie in a folder: one that the manifest of its part does not list is another's.
_FILES: dict[Part, tuple[str, ...]] = {
    "model": ("config.json", "generation_config.json", "model.safetensors*", "model-*.safetensors"),
    "processor": (
        *("processor_config.json", "query_vectors.safetensors", SPELLING_FILE),
        *("tokenizer.json", "tokenizer_config.json"),
        *("special_tokens_map.json", "added_tokens.json", "chat_template*", "spiece.model", "vocab.*", "merges.txt"),
    ),
    "results": ("results.json", "results.ranks.parquet", "run.json", "identifiers.json"),
}
MANIFEST_VERSION = 1
# A folder into which others save is read so often in the hope of a moment without.
_MAX_READS = 20
# Folder of the views of a model, which have a digest in its configuration; see `models.views`.
VIEWS_FOLDER = "views"
# `cached_file` then gives `None`.
IF_THERE: dict[str, bool] = {
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
}


ReadT = TypeVar("ReadT", bound=Callable[..., object])


class HubArguments(TypedDict, total=False):
    """The arguments of `from_pretrained` that say where files come from."""

    cache_dir: str | Path
    force_download: bool
    local_files_only: bool
    token: str | bool
    revision: str
    subfolder: str


class Manifest(NamedTuple):
    """What a manifest says: the SHA-256 of each file, and of the model that they were saved with."""

    files: dict[str, str]
    model: str | None


class Saveable(Protocol):
    """A model or a processor."""

    def save_pretrained(self, save_directory: str | os.PathLike[str], /) -> object:
        """Write files into a folder."""


def manifest_file(part: Part) -> str:
    """Return the name of a part's manifest."""
    return f"{part}_manifest.json"


@contextmanager
def replace_part(folder: str | os.PathLike[str], part: Part) -> Iterator[Path]:
    """Return an empty folder for the files of one part; they take their place in the checkpoint in one step.

    Other parts and files that belong to none stay, except results of other weights.

    Args:
        folder (`str` or `Path`): The checkpoint; made if it does not exist.
        part (`str`): `"model"`, `"processor"` or `"results"`.

    Yields:
        `Path`: Where to write.
    """
    target = Path(folder)
    old = {one: names for one in _FILES if (names := part_files(target, one))} if target.is_dir() else {}
    dropped = {manifest_file(part), *old.get(part, ())}

    with replace_folder(target, keep=lambda name: name not in dropped) as new:
        yield new
        own = {path.name for path in new.iterdir() if path.is_file()}
        files = {name: _digest(new / name) for name in sorted(own)}
        belongs_to = _model_digest(target)
        if part == "model":
            dropped.add(VIEWS_FOLDER)
            if "results" in old and files_digest(files) != belongs_to:
                dropped |= {manifest_file("results"), *old["results"]}
            if "processor" in old and not (target / manifest_file("processor")).is_file() and belongs_to is not None:
                # An older version's: it was made for the weights that are there now.
                theirs = {name: _digest(target / name) for name in old["processor"]}
                _write_manifest(new, "processor", theirs, belongs_to)
            belongs_to = None
        _write_manifest(new, part, files, belongs_to)


def save_checkpoint(model: Saveable, processor: Saveable, folder: str | Path) -> None:
    """Save a model and its processor as one: killed at any moment, the process leaves the old folder or the new one.

    Args:
        model: Has `save_pretrained`.
        processor: Has `save_pretrained`.
        folder (`str` or `Path`): An older checkpoint in it is replaced, with its results; other files stay.

    Raises:
        CatalogError: If they have different catalogues, of which the folder would keep one; nothing is written.
    """
    own, other = _catalog_of(model), _catalog_of(processor)
    if own is not None and other is not None and own is not other and own.content_hash != other.content_hash:
        raise CatalogError(
            f"{folder} would hold one catalogue, and the model's has {len(own)} items ({own.content_hash[:12]}), the "
            f"processor's {len(other)} ({other.content_hash[:12]}). Give both the one to be saved, by "
            "`processor.set_catalog(model.catalog)` or `model.set_catalog(processor.catalog)`, and save again; "
            "nothing was written."
        )
    target = Path(folder)
    parts = [name for part in _FILES for name in (manifest_file(part), *part_files(target, part))]
    with replace_folder(target, keep=lambda name: name not in (*parts, CATALOG_FOLDER, VIEWS_FOLDER)) as new:
        model.save_pretrained(new)
        processor.save_pretrained(new)


def _catalog_of(part: Saveable) -> Catalog | None:
    try:
        return getattr(part, "catalog", None)
    except CatalogError:
        return None


def read_whole(read: ReadT) -> ReadT:
    """Make a function that reads a checkpoint read it again where another process saved into its folder meanwhile.

    Args:
        read (`Callable`): Gets a class, and a folder or the name of a repository.

    Returns:
        `Callable`: Returns what one of the checkpoints that were there holds, never parts of two.
    """

    @functools.wraps(read)
    def whole(owner: object, *args: object, **kwargs: object) -> object:
        source = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        for _ in range(_MAX_READS):
            before = _folder_state(source)
            try:
                found = read(owner, *args, **kwargs)
            except Exception:
                if _folder_state(source) == before:
                    raise
                continue
            if _folder_state(source) == before:
                return found
        return read(owner, *args, **kwargs)

    return cast(ReadT, whole)


def _folder_state(source: object) -> tuple[int, int] | None:
    """Return what changes when a folder is replaced, or files in it are."""
    try:
        found = os.stat(source) if isinstance(source, str | os.PathLike) else None
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_mtime_ns)


def take_parts(source: Path, folder: Path) -> None:
    """Copy the processor and the results of a checkpoint to a model, where they were saved with that very model.

    Args:
        source (`Path`): The checkpoint.
        folder (`Path`): Holds the model; parts that it has already stay.
    """
    model = _model_digest(folder)
    parts: tuple[Part, ...] = ("processor", "results")
    for part in parts:
        path = source / manifest_file(part)
        if not path.is_file() or (folder / manifest_file(part)).exists() or _read_manifest(path).model != model:
            continue
        _check_files(source, part, _read_manifest(path))
        for name in (path.name, *_read_manifest(path).files):
            shutil.copyfile(source / name, folder / name)


def check_part(name_or_path: str | os.PathLike[str], part: Part, hub: HubArguments | None = None) -> HubArguments:
    """Refuse a part of a checkpoint that is not what was saved.

    Args:
        name_or_path (`str` or `Path`): A folder or a Hub repository.
        part (`str`): `"model"`, `"processor"` or `"results"`.
        hub ([`HubArguments`], *optional*): Where the files come from.

    Returns:
        [`HubArguments`]: `hub`, with the revision that was checked: what is loaded next is of the same commit.

    Raises:
        CheckpointError: If a file is missing, was changed, or belongs to another model; the message names it.
    """
    checked: HubArguments = {} if hub is None else {**hub}
    if Path(name_or_path).parent.is_dir() and not Path(name_or_path).exists():
        recover_folder(os.fspath(name_or_path))
    found = cached_file(name_or_path, manifest_file(part), **checked, **IF_THERE)
    if found is None:
        return checked
    is_local = Path(name_or_path).is_dir()
    if not is_local:
        commit = extract_commit_hash(found, None)
        if commit is not None:
            checked["revision"] = commit
    folder = Path(found).parent
    manifest = _read_manifest(Path(found))
    if not is_local:
        cached_files(name_or_path, list(manifest.files), **checked, _raise_exceptions_for_missing_entries=False)
        cached_file(name_or_path, manifest_file("model"), **checked, _raise_exceptions_for_missing_entries=False)
    _check_files(folder, part, manifest)
    return checked


def hub_arguments(arguments: Mapping[str, object]) -> HubArguments:
    """Take from the arguments of `from_pretrained` those that say where files come from."""
    found = {name: arguments[name] for name in HubArguments.__annotations__ if arguments.get(name) is not None}
    return cast(HubArguments, found)


def _check_files(folder: Path, part: Part, manifest: Manifest) -> None:
    title, listed = part, manifest.files
    for name, digest in listed.items():
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} has no {name}, which belongs to the {title} saved there; save the {title} again or fetch "
                "the folder again."
            )
        if _digest(folder / name) != digest:
            raise CheckpointError(
                f"{folder / name} is not the file that was saved with the {title}: it was changed or truncated, or "
                f"belongs to another model. Save the {title} again or fetch the folder again; to keep a manual "
                f"change, delete {manifest_file(part)}, which turns this check off."
            )
    others = sorted(set(_matching(folder, part)) - set(listed))
    if others:
        raise CheckpointError(
            f"{folder / others[0]} does not belong to the {title} saved there, but would be read with it; delete it, "
            f"or save the {title} again."
        )
    belongs_to = manifest.model
    # Without a manifest the model may have been changed by hand.
    model = _model_digest(folder) if (folder / manifest_file("model")).is_file() else belongs_to
    if belongs_to is not None and model is not None and belongs_to != model:
        raise CheckpointError(
            f"The {title} in {folder} {'were' if part == 'results' else 'was'} saved with another model "
            f"({belongs_to[:12]}; there now: {model[:12]}). "
            + (
                "Evaluate the model again, or delete them."
                if part == "results"
                else "Save this model's processor into the folder as well, or both with `save_checkpoint`."
            )
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: If the file does not contain one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read as JSON ({error}): it is damaged. Save it again or fetch it again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} contains {type(content).__name__}, not settings; save it again or fetch it again."
        )
    return content


def files_digest(files: dict[str, str]) -> str:
    """Compute the SHA-256 that names a part by the digests of its files."""
    return json_digest(files)


def _model_digest(folder: Path) -> str | None:
    """Name the model in a folder; `None` where there is none."""
    if (folder / manifest_file("model")).is_file():
        return files_digest(_read_manifest(folder / manifest_file("model")).files)
    files = {name: _digest(folder / name) for name in _matching(folder, "model")} if folder.is_dir() else {}
    return files_digest(files) if files else None


def part_patterns(part: Part) -> tuple[str, ...]:
    """Return patterns of the files that a part may have."""
    return (manifest_file(part), *_FILES[part])


def part_files(folder: Path, part: Part) -> list[str]:
    """Name the files of a part: those of its manifest, and those that would be read as its own."""
    if not folder.is_dir():
        return []
    path = folder / manifest_file(part)
    try:
        listed = list(_read_manifest(path).files) if path.is_file() else []
    except CheckpointError:
        listed = []  # damaged: it is replaced
    return sorted({*listed, *_matching(folder, part)})


def _matching(folder: Path, part: Part) -> list[str]:
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file() and any(fnmatch.fnmatchcase(path.name, pattern) for pattern in _FILES[part])
    )


def _digest(path: Path) -> str:
    """Compute the SHA-256 of a file; of JSON that of its content, however it is laid out."""
    if path.suffix != ".json":
        return file_sha256(path)
    content = read_json(path)
    # A repository adds where transformers finds its classes; what was saved is the same.
    content.pop("auto_map", None)
    return json_digest(content)


def _write_manifest(folder: Path, part: Part, files: dict[str, str], model: str | None) -> None:
    content = {"version": MANIFEST_VERSION, "files": files, **({} if model is None else {"model": model})}
    (folder / manifest_file(part)).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _read_manifest(path: Path) -> Manifest:
    content = read_json(path)
    files, model = content.get("files"), content.get("model")
    if (
        content.get("version") != MANIFEST_VERSION
        or not isinstance(files, dict)
        or not all(isinstance(digest, str) and Path(name).name == name for name, digest in files.items())
        or not isinstance(model, str | None)
    ):
        raise CheckpointError(
            f"{path} is not a manifest of version {MANIFEST_VERSION}; save the folder again, or delete this file to "
            "load the folder unchecked."
        )
    return Manifest(files, model)


__all__ = [
    "IF_THERE",
    "SPELLING_FILE",
    "VIEWS_FOLDER",
    "HubArguments",
    "Part",
    "check_part",
    "files_digest",
    "hub_arguments",
    "manifest_file",
    "part_files",
    "part_patterns",
    "read_json",
    "read_whole",
    "replace_part",
    "save_checkpoint",
    "take_parts",
]
