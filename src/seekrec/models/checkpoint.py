# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint holds beside weights: its catalogue and its configuration, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils.hub import cached_file

from seekrec.catalog import CATALOG_FOLDER, Catalog
from seekrec.errors import CatalogError, CheckpointError
from seekrec.models.manifest import IF_THERE, hub_arguments, read_json

_WEIGHTS = "model.safetensors"


def load_bundled_catalog(name_or_path: str | Path, **hub: Any) -> Catalog:
    """Read the catalogue that was saved with a checkpoint.

    Args:
        name_or_path (`str` or `Path`): A folder written by `save_pretrained`, or a Hub repository.
        hub: As for [`check_part`].

    Raises:
        CatalogError: If the checkpoint holds none, or a damaged one.
    """
    folder, inside = Path(name_or_path), Path(hub.get("subfolder") or "", CATALOG_FOLDER)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        arguments = {name: value for name, value in hub_arguments(hub).items() if name != "subfolder"}
        folder = Path(snapshot_download(str(name_or_path), allow_patterns=f"{inside.as_posix()}/*", **arguments))
    if not (folder / inside).is_dir():
        raise CatalogError(
            f"{name_or_path} holds no folder {CATALOG_FOLDER!r}, but its configuration names identifiers; save the "
            "model with its catalogue, or pass one to `set_catalog`."
        )
    return Catalog.load(folder / inside)


def save_bundled_catalog(catalog: Catalog, folder: str | Path) -> None:
    """Write a catalogue into a checkpoint folder; an older one there is replaced as a whole."""
    catalog.save(Path(folder) / CATALOG_FOLDER)


def load_config(name_or_path: str | Path, **hub: Any) -> PreTrainedConfig | None:
    """Read the configuration of the model in a checkpoint; `None` where there is no model.

    Args:
        name_or_path (`str` or `Path`): A folder or a Hub repository.
        hub: As for [`check_part`].
    """
    hub = hub_arguments(hub)
    found = cached_file(name_or_path, "config.json", **hub, **IF_THERE)
    if found is None:
        return None
    read_json(Path(found))
    return AutoConfig.from_pretrained(name_or_path, **hub)


def split_hub_arguments(arguments: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Take what only `push_to_hub` reads out of the arguments of `save_pretrained`; `None` if nothing is pushed.

    What is uploaded is saved anew into a folder of its own, because a swapped folder tells nothing of what changed.
    """
    names = ("repo_id", "commit_message", "commit_description", "private", "revision", "create_pr", "tags")
    to_hub = {name: arguments[name] for name in (*names, "token", "max_shard_size") if name in arguments}
    settings = {name: value for name, value in arguments.items() if name not in (*names, "push_to_hub")}
    return (to_hub if arguments.get("push_to_hub") else None), settings


def check_depth(source: str | Path, arguments: dict[str, Any]) -> None:
    """Refuse a configuration of more layers than the weights have tensors, before anything is built of it."""
    hub = hub_arguments(arguments)
    found: dict[str, Any] = {
        name: cached_file(
            source,
            name,
            **hub,
            **IF_THERE,
        )
        for name in ("config.json", _WEIGHTS, f"{_WEIGHTS}.index.json")
    }
    if found["config.json"] is None:
        return
    if found[_WEIGHTS] is not None:
        try:
            with safe_open(found[_WEIGHTS], "np") as tensors:
                count = len(tensors.keys())
        except SafetensorError as error:
            raise CheckpointError(
                f"{found[_WEIGHTS]} cannot be read ({error}): it is cut or damaged. Save the model again or fetch the "
                "folder anew."
            ) from error
    elif found[f"{_WEIGHTS}.index.json"] is not None:
        count = len(read_json(Path(found[f"{_WEIGHTS}.index.json"])).get("weight_map") or ())
    else:
        return
    pending: list[Any] = [read_json(Path(found["config.json"]))]
    while pending:
        for name, value in pending.pop().items():
            if isinstance(value, dict):
                pending.append(value)
            elif name.endswith(("layers", "levels")) and isinstance(value, int) and value > count:
                raise CheckpointError(
                    f"{found['config.json']} has {name} {value}, but the weights beside it are {count} tensors: the "
                    "file is damaged or another model's. Save the model again or fetch the folder anew."
                )


__all__ = ["check_depth", "load_bundled_catalog", "load_config", "save_bundled_catalog", "split_hub_arguments"]
