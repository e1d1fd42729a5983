# SPDX-License-Identifier: Apache-2.0
"""The settings of a recipe: groups, each a dataclass, that `util.parsing` fills from YAML and the command line."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import get_type_hints

from transformers import TrainingArguments

from seekrec.recipes.arguments import DataArguments, EmbeddingArguments, EvaluationArguments, RunArguments


@dataclass
class RecipeSettings:
    """The groups of settings that every recipe has; a family adds its own.

    Args:
        data ([`DataArguments`]): The log and its split.
        embedding ([`EmbeddingArguments`]): Vectors of the items.
        evaluation ([`EvaluationArguments`]): The evaluation.
        running ([`RunArguments`]): The stages, and how long they may take.
        training (`TrainingArguments`): Settings of the Trainer; `output_dir` is the folder of the run.
    """

    data: DataArguments
    embedding: EmbeddingArguments
    evaluation: EvaluationArguments
    running: RunArguments
    training: TrainingArguments

    @classmethod
    def argument_types(cls) -> list[type]:
        """Return the classes of the settings, in the order of the fields."""
        hints = get_type_hints(cls)
        return [hints[field.name] for field in fields(cls)]

    def refuse_ignored(self, given: Collection[str]) -> None:  # noqa: B027
        """Raise a `ConfigurationError` if other settings make one meaningless.

        Args:
            given (`Collection[str]`): Names of the settings that the file and the command line give.
        """

    @classmethod
    def family(cls) -> str:
        """Return the name of the family in scripts and folders: gensar, gensr, intsr or synergen."""
        return cls.__name__.removesuffix("Recipe").lower()

    def groups(self) -> list[object]:
        """Return the groups of settings."""
        return [getattr(self, field.name) for field in fields(self)]

    def settings(self) -> list[object]:
        """Return the groups of settings that are ours."""
        return [group for group in self.groups() if not isinstance(group, TrainingArguments)]


__all__ = ["RecipeSettings"]
