# SPDX-License-Identifier: Apache-2.0
"""How every model is saved and loaded: with its catalogue, as one, and checked."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils.hub import cached_file

from seekrec.catalog import CATALOG_FOLDER, Catalog
from seekrec.errors import CatalogError, CheckpointError
from seekrec.models.manifest import IF_THERE, check_part, hub_arguments, read_json, replace_part
from seekrec.models.snapshot import CatalogSnapshot
from seekrec.util.finite import check_weights

SnapshotT = TypeVar("SnapshotT", bound=CatalogSnapshot)

_WEIGHTS = "model.safetensors"


class CatalogModel(PreTrainedModel, Generic[SnapshotT]):
    """What all families share: a model has a catalogue, is saved with it and loaded with it."""

    # What the model answers from: the catalogue and what was made of it.
    _snapshot: SnapshotT | None = None

    @property
    def catalog(self) -> Catalog:
        """The items that can be answered.

        Raises:
            CatalogError: If none was set.
        """
        return self.current_snapshot().catalog

    def current_snapshot(self) -> SnapshotT:
        """Return what a call that begins now answers from; it stays the same whatever is set meanwhile.

        Raises:
            CatalogError: If no catalogue was set.
        """
        if self._snapshot is None:
            raise CatalogError("The model has no catalogue; load it from a complete checkpoint or call `set_catalog`.")
        return self._snapshot

    @abstractmethod
    def set_catalog(self, catalog: Catalog) -> None:
        """Answer from this catalogue from now on: after `add_items` or `remove_items`, or an earlier one again.

        Other threads may answer meanwhile. A call answers from one catalogue, that which was set when it began, and
        what begins after this has returned answers from the new one.
        """

    def save_pretrained(self, save_directory: Any, is_main_process: bool = True, *args: Any, **kwargs: Any) -> None:
        """Save weights, settings and the catalogue, if there is one, over what is there.

        Killed at any moment, the process leaves the whole old model or the whole new one. A processor in the folder
        stays, but is refused when loaded until that of the new model is saved; [`save_checkpoint`] saves both as one.
        Results of other weights are deleted.

        Args:
            save_directory (`str` or `Path`): The folder.
            is_main_process (`bool`): Of several processes one writes.
            *args: Further arguments of `PreTrainedModel.save_pretrained`.
            **kwargs: Further arguments of `PreTrainedModel.save_pretrained`.
        """
        # Adapters lie beside a model, and what several processes write into one folder cannot be swapped.
        is_part = getattr(self, "_hf_peft_config_loaded", False) or kwargs.get("distributed_checkpoint", False)
        if is_part or not is_main_process:
            super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
            return
        to_hub, settings = split_hub_arguments(kwargs)
        with replace_part(save_directory, "model") as folder:
            super().save_pretrained(folder, is_main_process, *args, **settings)
            if self._snapshot is not None:
                save_bundled_catalog(self._snapshot.catalog, folder)
        if to_hub is not None:
            to_hub.setdefault("repo_id", Path(save_directory).name)
            self.push_to_hub(**to_hub)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a model and, if it was saved with one, its catalogue.

        Raises:
            CheckpointError: If a file is damaged, or is not of the model that was saved.
            CatalogError: If the catalogue is damaged, or not the one the weights were trained for.
        """
        source = pretrained_model_name_or_path
        if source is not None:
            kwargs |= check_part(source, "model", **kwargs)
            _check_depth(source, kwargs)
        wants_info = kwargs.pop("output_loading_info", False)
        try:
            loaded: Any = super().from_pretrained(source, *args, output_loading_info=True, **kwargs)
            model, info = loaded
        except SafetensorError as error:
            raise CheckpointError(
                f"The weights in {source} cannot be read ({error}): they are cut or damaged. Save the model again or "
                "fetch the folder anew."
            ) from error
        check_weights(model, str(source))
        if any(getattr(model.config, name, None) is not None for name in ("identifier_hash", "items_hash")):
            missing = sorted(info["missing_keys"])
            if missing:
                raise CheckpointError(
                    f"The weights in {source} lack {len(missing)} tensors of {cls.__name__}, {missing[0]} among them: "
                    "they are those of another model. Save the model again or fetch the folder anew."
                )
            model.set_catalog(load_bundled_catalog(source, **kwargs))
        return (model, info) if wants_info else model


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


def _check_depth(source: str | Path, arguments: dict[str, Any]) -> None:
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


__all__ = ["CatalogModel", "load_bundled_catalog", "load_config", "save_bundled_catalog", "split_hub_arguments"]
