# SPDX-License-Identifier: Apache-2.0
"""Checks and descriptions of a model folder before it is published."""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors import safe_open
from transformers import AutoConfig

from seekrec.catalog import CATALOG_FOLDER, Catalog
from seekrec.errors import CatalogError, ConfigurationError, DataError
from seekrec.identifiers import AssignmentResult, identifier_quality
from seekrec.models.checkpoint import refuse_no_model
from seekrec.models.manifest import Part, check_part, part_files, read_json, replace_part
from seekrec.models.repository import add_module
from seekrec.recipes.record import RUN_FILE, write_run
from seekrec.util.redaction import holds_secret, publishable

WEIGHTS_FILE = "model.safetensors"
_INDEX_FILE = "model.safetensors.index.json"
_NEEDED = ("processor_config.json", f"{CATALOG_FOLDER}/catalog.json")
# Families that write identifiers need these; those that compare vectors have none of them.
_NEEDED_TO_GENERATE = ("generation_config.json", "tokenizer.json", "tokenizer_config.json")
_TEXTS = (".json", ".md", ".yaml", ".txt", ".jinja")
# Never published: pickles, optimizer states, half-written and hidden files.
LEFT_OUT = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.tmp", "*.partial", "checkpoint-*", "__pycache__", ".*")


def check_model_folder(folder: str | Path, *, with_processor: bool = True) -> Catalog:
    """Refuse a model folder that could not be loaded from the Hub.

    Args:
        folder (`str` or `Path`): Folder that `save_pretrained` of model and processor wrote.
        with_processor (`bool`): Whether the processor has to be there.

    Returns:
        [`Catalog`]: Its catalogue, whose files were checked.

    Raises:
        ConfigurationError: If files are missing; all of them are named.
        CheckpointError: If it is the folder of a run, with that of the model in it; if files were changed, or are of
            different models; results of other weights too.
        CatalogError: If the catalogue is damaged or not the one the weights were trained for.
    """
    source = Path(folder)
    if not source.is_dir():
        raise ConfigurationError(f"{source} is not a folder; train a model, or pass the folder of a trained one.")
    path = source / "config.json"
    if (source / "model" / path.name).is_file():
        refuse_no_model(source)  # a run's folder
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    # Both kinds of family keep a hash of what their weights belong to: identifiers, or the rows of items.
    compares_vectors = config.get("items_hash") is not None
    needed = ["config.json", *(() if compares_vectors else _NEEDED_TO_GENERATE), *_NEEDED]
    if not with_processor:
        needed = [name for name in needed if not name.startswith(("tokenizer", "processor"))]
    missing = [name for name in needed if not (source / name).is_file()]
    missing += [name for name in _weight_files(source) if not (source / name).is_file()]
    if missing:
        raise ConfigurationError(
            f"{source} is not complete: it lacks {', '.join(missing)}. Save the model and its processor with "
            "`save_pretrained` into this folder."
        )
    parts: tuple[Part, ...] = ("model", "processor", "results")
    for part in parts:
        check_part(source, part)
    catalog = Catalog.load(source / CATALOG_FOLDER)
    if compares_vectors and catalog.items_hash(config["num_items"]) != config["items_hash"]:
        raise CatalogError(
            f"{source / CATALOG_FOLDER} does not begin with the {config['num_items']} items that the weights were "
            "trained for; save the model with its own catalogue."
        )
    trained_for = config.get("identifier_hash")
    if trained_for is not None and trained_for != catalog.identifier_hash:
        raise CatalogError(
            f"{source / CATALOG_FOLDER} has identifiers {catalog.identifier_hash[:12]}, the weights were trained for "
            f"{trained_for[:12]}; save the model with its own catalogue."
        )
    return catalog


def describe_model(
    folder: str | Path,
    *,
    repo_id: str,
    system: str | None = None,
    license: str,
    dataset_id: str | None = None,
    base_model: str | None = None,
    with_processor: bool = True,
) -> dict[str, object]:
    """Collect the facts that a model card shows, from the model folder.

    Args:
        folder (`str` or `Path`): A complete model folder; see [`check_model_folder`].
        repo_id (`str`): Repository on the Hub.
        system (`str`, *optional*): Its name in `results.json`; that of its family if not given.
        license (`str`): License of the weights, as the Hub abbreviates it.
        dataset_id (`str`, *optional*): The data set it was trained on, if that is on the Hub.
        base_model (`str`, *optional*): The checkpoint it started from.
        with_processor (`bool`): Whether the processor has to be there.

    Returns:
        `dict`: `repo_id`, `system`, `license`, `dataset_id`, `base_model`, `tags`, `seekrec_version`, `config` (of
        `config.json`), `num_parameters`, `catalog` (settings, `num_removed`, hashes), `identifiers` (an
        `IdentifierQualityReport` as a dictionary, or `None` without an identifier model or embeddings), `example` (two
        items of the catalogue and a query) and what [`save_run`] wrote: `command`, `log`, `settings`, `seconds`,
        `left_out`, `refit`; these are `None` without it.

    Raises:
        ConfigurationError: If files are missing.
        CatalogError: If the catalogue is damaged or not the one the weights were trained for.
    """
    source = Path(folder)
    catalog = check_model_folder(source, with_processor=with_processor)
    # Under the names of today, whichever version wrote it.
    config = AutoConfig.from_pretrained(source)
    settings = config.to_dict()
    run: dict[str, object] = dict.fromkeys(("command", "log", "settings", "seconds", "left_out", "refit"))
    if (source / RUN_FILE).is_file():
        run |= publishable(read_json(source / RUN_FILE))
    return {
        **run,
        "repo_id": repo_id,
        "system": system or type(config).__name__.removesuffix("Config"),
        "license": license,
        "dataset_id": dataset_id,
        "base_model": base_model,
        "tags": [
            *("seekrec", config.model_type, "generative-retrieval", "recommendation", "search"),
            *(("semantic-ids",) if catalog.views else ()),
        ],
        "seekrec_version": version("seekrec"),
        "config": settings,
        "num_parameters": _count_parameters(source),
        "catalog": {
            **catalog.settings(),
            "num_removed": int(catalog.is_removed.sum()),
            "content_hash": catalog.content_hash,
            "identifier_hash": catalog.identifier_hash,
        },
        "identifiers": _measure_identifiers(catalog),
        "example": _example(catalog),
    }


def copy_model(folder: str | Path, target: str | Path, *, card: str, eval_results: str | None = None) -> list[str]:
    """Copy a model folder as it will be published: with its card and the module that leads to this package.

    Pickles, checkpoints and hidden files stay behind.

    Secrets and paths that an older version wrote into `run.json` are left out.

    Args:
        folder (`str` or `Path`): The model folder; it is not changed.
        target (`str` or `Path`): A folder that does not exist.
        card (`str`): The text of `README.md`.
        eval_results (`str`, *optional*): The text of `.eval_results/seekrec.yaml`.

    Returns:
        `list[str]`: The paths of all files, sorted.

    Raises:
        ConfigurationError: If the folder contains a symbolic link, which could lead anywhere, or a text file that is
            to be published a secret.
    """
    destination = Path(target)
    ignore = shutil.ignore_patterns(*LEFT_OUT)
    for place, folders, files in os.walk(folder):
        left_out = ignore(place, [*folders, *files])
        folders[:] = [name for name in folders if name not in left_out]
        for name in (*folders, *files):
            if name not in left_out and os.path.islink(os.path.join(place, name)):
                raise ConfigurationError(
                    f"{os.path.join(place, name)} is a symbolic link; its target is not published. Replace it "
                    "by a copy, or remove it."
                )
    shutil.copytree(folder, destination, ignore=ignore)
    add_module(destination)
    if (destination / RUN_FILE).is_file():
        _republish_run(destination)
    (destination / "README.md").write_text(card, encoding="utf-8")
    if eval_results is not None:
        (destination / ".eval_results").mkdir()
        (destination / ".eval_results" / "seekrec.yaml").write_text(eval_results, encoding="utf-8")
    refuse_secrets(destination)
    return sorted(path.relative_to(destination).as_posix() for path in destination.rglob("*") if path.is_file())


def _republish_run(folder: Path) -> None:
    """Rewrite `run.json` without what must not be published, and its manifest if that changed it."""
    content = read_json(folder / RUN_FILE)
    if publishable(content) != content:
        with replace_part(folder, "results") as new:
            for name in part_files(folder, "results"):
                shutil.copyfile(folder / name, new / name)
            write_run(new / RUN_FILE, content)


def refuse_secrets(folder: Path) -> None:
    """Refuse to publish a folder that contains a secret in a text file.

    Raises:
        ConfigurationError: Naming the file, not the secret.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _TEXTS and holds_secret(path.read_text(encoding="utf-8")):
            raise ConfigurationError(
                f"{path.relative_to(folder)} contains what looks like a token, or the value of a secret environment "
                "variable; nothing was published. Remove it from the folder and the card."
            )


def _weight_files(folder: Path) -> list[str]:
    index = folder / _INDEX_FILE
    if not index.is_file():
        return [WEIGHTS_FILE]
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{index} is not an index of weight files ({error!r}); save the model again.") from error


def _count_parameters(folder: Path) -> int:
    count = 0
    for name in _weight_files(folder):
        with safe_open(folder / name, "np") as tensors:
            count += sum(int(np.prod(tensors.get_slice(key).get_shape())) for key in tensors.keys())  # noqa: SIM118
    return count


def _measure_identifiers(catalog: Catalog) -> dict[str, object] | None:
    if catalog.identifier_model is None or any(view not in catalog.embeddings for view in catalog.views):
        return None
    vectors = {view: catalog.embeddings[view] for view in catalog.views}
    encoded = catalog.identifier_model.encode(vectors.get("semantic"), vectors.get("collaborative"))
    codes = {view: np.asarray(own, dtype=np.int64) for view, own in catalog.codes.items()}
    moved = {view: (own != encoded.codes[view]) for view, own in codes.items()}
    assigned = AssignmentResult(
        codes=codes,
        num_colliding_before={},
        num_moved={view: int(own.any(axis=1).sum()) for view, own in moved.items()},
        moved_per_level={view: own.sum(axis=0).tolist() for view, own in moved.items()},
    )
    return identifier_quality(catalog.identifier_model, encoded, assigned, vectors).to_dict()


def _example(catalog: Catalog) -> dict[str, object]:
    """Return two items and a query that make sense in the card's code: the name of a category, else a title."""
    rows = np.flatnonzero(catalog.live)[:2]
    items = catalog.items.take(rows).select(["item_id", "title", "categories"]).to_pylist()
    names = [name for item in items for path in item["categories"] or [] for name in path[-1:] if name]
    titles = [item["title"] for item in items if item["title"]]
    query = " ".join((names + titles + ["something new"])[0].split())[:80]
    shown = catalog.titles_of_rows(rows)
    return {
        "items": [
            {"item_id": item["item_id"], "title": str(title)[:80]} for item, title in zip(items, shown, strict=True)
        ],
        "query": query,
    }
