# SPDX-License-Identifier: Apache-2.0
"""Publish models and processors as Hub repositories: one complete commit, with a module that imports this package.

The model classes are in this package, so a repository contains only a few lines that import it. With them
`AutoModel.from_pretrained(repo, trust_remote_code=True)` works without importing `seekrec` first, and transformers
suggests `pip install seekrec` if it is not installed. A folder that `save_pretrained` writes has no such module,
because its author has the package.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol, Unpack

from huggingface_hub import CommitInfo
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForSeq2SeqLM, PreTrainedModel

from seekrec.catalog import CATALOG_FOLDER
from seekrec.models.manifest import (
    VIEWS_FOLDER,
    Part,
    Saveable,
    part_patterns,
    read_json,
    take_parts,
)
from seekrec.util.files import write_json
from seekrec.util.repositories import CommitArguments, upload

_MODULE = "modeling_seekrec"
MODULE_FILE = f"{_MODULE}.py"
MODULE_TEXT = '''# SPDX-License-Identifier: Apache-2.0
"""Where transformers finds the classes of this repository: in the package seekrec (`pip install seekrec`)."""

from seekrec import *  # noqa: F403
'''


class Publisher(Protocol):
    """Makes a folder to upload of a model folder: with its card and without what must not be published."""

    def __call__(
        self,
        folder: Path,
        target: Path,
        repo_id: str,
        *,
        system: str | None,
        license: str | None,
        dataset_id: str | None,
        base_model: str | None,
    ) -> object:
        """Write `target`, which does not exist."""


class InPackage:
    """A class that repositories import from this package; its code is not saved with what is."""

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "") -> None:
        """Do nothing: transformers would copy the file of this class, without the package around it."""


def add_module(folder: Path) -> None:
    """Write the module into a folder that is to be uploaded, and into its settings which classes it has.

    Args:
        folder (`Path`): Holds a model, a processor, or both.
    """
    maps: dict[str, dict[str, str]] = {}
    if (path := folder / "config.json").is_file():
        config_class = CONFIG_MAPPING[read_json(path)["model_type"]]
        maps[path.name] = {"AutoConfig": config_class.__name__}
        for auto_class in (AutoModel, AutoModelForSeq2SeqLM):
            model_class: object = auto_class._model_mapping.get(config_class, None)
            if isinstance(model_class, type):
                maps[path.name][auto_class.__name__] = model_class.__name__
    if (path := folder / "processor_config.json").is_file():
        maps[path.name] = {"AutoProcessor": read_json(path)["processor_class"]}
    for file, classes in maps.items():
        names = {auto_class: f"{_MODULE}.{name}" for auto_class, name in classes.items()}
        write_json(folder / file, {**read_json(folder / file), "auto_map": names})
    (folder / MODULE_FILE).write_text(MODULE_TEXT, encoding="utf-8")


def files_of(*parts: Part) -> list[str]:
    """Return patterns of the files that a commit of these parts of a checkpoint replaces."""
    folders = [f"{CATALOG_FOLDER}/*", *([f"{VIEWS_FOLDER}/*"] if "model" in parts else [])]
    return [*(pattern for part in parts for pattern in part_patterns(part)), *folders]


class RepositoryModel(InPackage, PreTrainedModel):
    """A model that is pushed to the Hub whole: with its processor, its catalogue, its results and its card."""

    # Cards are made by a package that stands above this one; it puts what does so here.
    publisher: ClassVar[Publisher]

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        processor: Saveable | None = None,
        system: str | None = None,
        license: str | None = None,
        dataset_id: str | None = None,
        base_model: str | None = None,
        max_shard_size: int | str | None = None,
        tags: list[str] | None = None,
        **commit: Unpack[CommitArguments],
    ) -> CommitInfo:
        """Upload the model as one commit: weights, catalogue, views, card, and the module that finds its classes.

        ```python
        model.push_to_hub("me/my-shop", processor=processor, license="apache-2.0", private=True)
        ```

        The processor comes along if it is given, or if it lies in the folder that the model was loaded from; so do the
        results of a run, which the card then shows, as long as the weights are those that were measured. Of a model
        with an adapter that is attached, the adapter alone is uploaded, as transformers saves it.

        Args:
            repo_id (`str`): `user/name`; made if it does not exist.
            processor (*optional*): The model's processor.
            system (`str`, *optional*): The model's name in the results; that of its family if not given.
            license (`str`, *optional*): License of the weights, as the Hub abbreviates it, for the card.
            dataset_id (`str`, *optional*): The data set it was trained on, if that is on the Hub.
            base_model (`str`, *optional*): The checkpoint it started from.
            max_shard_size (`int` or `str`): As in `save_pretrained`.
            tags (`list[str]`, *optional*): Not read: the card's tags say what the model is.
            commit: What the commit is and where it goes, as transformers names it; see [`upload`].

        Raises:
            ConfigurationError: If a text file would publish a secret.
        """
        commit["commit_message"] = commit.get("commit_message") or "Upload model"
        push = partial(upload, repo_id=repo_id, **commit)
        with tempfile.TemporaryDirectory() as place:
            folder, target = Path(place) / "model", Path(place) / "repository"
            self.save_pretrained(folder, max_shard_size=max_shard_size or "50GB")
            if getattr(self, "_hf_peft_config_loaded", False):
                return push(folder)
            if processor is not None:
                processor.save_pretrained(folder)
            if self.name_or_path and os.path.isdir(self.name_or_path):
                take_parts(Path(self.name_or_path), folder)
            type(self).publisher(
                folder,
                target,
                repo_id,
                system=system,
                license=license,
                dataset_id=dataset_id,
                base_model=base_model,
            )
            has_processor = (target / "processor_config.json").is_file()
            parts: tuple[Part, ...] = ("model", "results", "processor") if has_processor else ("model", "results")
            return push(target, replaces=files_of(*parts))


def push_processor(processor: Saveable, push: Callable[..., CommitInfo]) -> CommitInfo:
    """Upload a processor as one commit, with the module that finds its class; a model in the repository stays.

    Args:
        processor: Has `save_pretrained`.
        push (`Callable`): Gets the folder, and the files that it replaces; see [`upload`].
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "processor"
        processor.save_pretrained(folder)
        add_module(folder)
        return push(folder, replaces=files_of("processor"))


__all__ = ["MODULE_FILE", "InPackage", "RepositoryModel", "add_module", "files_of", "push_processor"]
