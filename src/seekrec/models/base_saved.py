# SPDX-License-Identifier: Apache-2.0
"""Save a model with its catalogue and views, and load it.

`save_pretrained` writes the catalogue into the folder `catalog` next to the weights, and `from_pretrained` reads it
back and rejects one whose items are not those the weights were trained for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from seekrec.errors import CheckpointError
from seekrec.models.checkpoint import (
    check_depth,
    load_bundled_catalog,
    refuse_other_catalog,
    save_bundled_catalog,
    split_hub_arguments,
)
from seekrec.models.manifest import VIEWS_FOLDER, check_part, hub_arguments, read_whole, replace_part
from seekrec.models.views import ViewedModel, load_views
from seekrec.models.views.model import Snapshot
from seekrec.util.finite import check_weights
from seekrec.util.loading import LOADING


class SavedModel(ViewedModel):
    """A model with a catalogue, which is saved with it."""

    # What a call answers from. Each call reads it once, and setting a catalogue is one assignment.
    _snapshot: Snapshot | None = None

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Save weights, settings and the catalogue, if there is one, over what is there.

        Killed at any moment, the process leaves the whole old model or the whole new one. A processor in the folder
        stays, but is refused when loaded until that of the new model is saved; [`save_checkpoint`] saves both as one.
        Results of other weights are deleted.

        Args:
            save_directory (`str` or `Path`): The folder.
            is_main_process (`bool`): Whether this process writes; of several one does.
            *args: Further arguments of `PreTrainedModel.save_pretrained`.
            **kwargs: Further arguments of `PreTrainedModel.save_pretrained`.

        Raises:
            CatalogError: If a processor without a model lies there, with another catalogue.
        """
        # Adapters lie next to a model, and what several processes write into one folder cannot be swapped.
        is_part = getattr(self, "_hf_peft_config_loaded", False) or kwargs.get("distributed_checkpoint")
        if is_part or not is_main_process:
            super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
            return
        refuse_other_catalog(None if self._snapshot is None else self._snapshot.catalog, save_directory, "model")
        self.config.__dict__.pop("auto_map", None)  # of the repository that it came from
        to_hub, settings = split_hub_arguments(kwargs)
        with replace_part(save_directory, "model") as folder:
            self.config.views_hash = None if self._views is None else self._views.save(folder / VIEWS_FOLDER)
            super().save_pretrained(folder, is_main_process, *args, **settings)
            if self._snapshot is not None:
                save_bundled_catalog(self._snapshot.catalog, folder)
        if to_hub is not None:
            self.push_to_hub(**{"repo_id": Path(save_directory).name, **to_hub})

    @classmethod
    @read_whole
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: object, **kwargs: Any
    ) -> Any:
        """Load a model and, if it was saved with one, its catalogue.

        Raises:
            CheckpointError: If a file is damaged, or is not of the model that was saved.
            CatalogError: If the catalogue is damaged, or not the one the weights were trained for.
        """
        source = pretrained_model_name_or_path
        hub = hub_arguments(kwargs)
        if source is not None:
            hub = check_part(source, "model", hub)
            check_depth(source, hub)
        kwargs = {**kwargs, **hub}
        wants_info = kwargs.pop("output_loading_info", False)
        try:
            with LOADING:
                loaded: Any = super().from_pretrained(source, *args, output_loading_info=True, **kwargs)
        except SafetensorError as error:
            raise CheckpointError(
                f"The weights in {source} cannot be read ({error}): they are truncated or damaged. Save the model "
                "again or fetch the folder again."
            ) from error
        model, info = loaded
        check_weights(model, str(source))
        if source is not None and any(
            getattr(model.config, name, None) is not None for name in ("identifier_hash", "items_hash")
        ):
            missing = sorted(info["missing_keys"])
            if missing:
                raise CheckpointError(
                    f"The weights in {source} lack {len(missing)} tensors of {cls.__name__}, {missing[0]} among them: "
                    "they are those of another model. Save the model again or fetch the folder again."
                )
            model.set_catalog(load_bundled_catalog(source, hub))
            model.set_views(load_views(model.config, source, hub))
        return (model, info) if wants_info else model


__all__ = ["SavedModel"]
