# SPDX-License-Identifier: Apache-2.0
"""Find the views that a model was saved with, including those of earlier versions."""

from __future__ import annotations

import os
from pathlib import Path

from transformers import PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file

from seekrec.errors import CheckpointError
from seekrec.models.checkpoint import find_bundled
from seekrec.models.manifest import IF_THERE, VIEWS_FOLDER, HubArguments, read_json
from seekrec.models.views.old import read_fused
from seekrec.models.views.views import Views
from seekrec.models.views.weights import read_view_weights


def load_views(config: PreTrainedConfig, source: str | os.PathLike[str], hub: HubArguments) -> Views | None:
    """Read the views that a model was saved with; `None` for none.

    Args:
        config (`PreTrainedConfig`): The configuration of the model.
        source (`str` or `Path`): A folder written by `save_pretrained`, or a Hub repository.
        hub ([`HubArguments`]): Where the files come from.

    Raises:
        CheckpointError: If they are missing, damaged or another model's.
    """
    if config.views_hash is None:
        return _load_old(config, source, hub) if read_view_weights(config.view_weights) else None
    views, found = Views.load(find_bundled(source, hub, VIEWS_FOLDER))
    if found != config.views_hash:
        raise CheckpointError(
            f"The views in {source} have digest {found[:12]}, the model was saved with {config.views_hash[:12]}: they "
            "are another model's. Save the model again or fetch the folder again."
        )
    return views


def _load_old(config: PreTrainedConfig, source: str | os.PathLike[str], hub: HubArguments) -> Views | None:
    settings, weights = (cached_file(source, name, **hub, **IF_THERE) for name in ("config.json", SAFE_WEIGHTS_NAME))
    if settings is None or weights is None or "view_weights" in (saved := read_json(Path(settings))):
        return None
    sizes = saved.get("recommender") if saved.get("recommender_weight") else None
    try:
        return read_fused(Path(weights), sizes, config.num_items)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"The recommender among the weights in {source} cannot be read ({error}): fetch the folder again."
        ) from error


__all__ = ["load_views"]
