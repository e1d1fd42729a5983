# SPDX-License-Identifier: Apache-2.0
"""What a corpus is made with, apart from its data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from seekrec.errors import ConfigurationError


@dataclass(frozen=True)
class CorpusSettings:
    """How instructions are written. The defaults are those of the released GenSAR code.

    Args:
        tasks (`tuple[str, ...]`, *optional*): Names out of `TASKS`; `None` takes all that the identifiers allow.
        max_history_recommendations (`int`): Latest recommendations that a history keeps.
        max_history_searches (`int`): Latest searches that a history keeps.
        max_query_tokens (`int`): A longer query is cut.
        max_text_tokens (`int`): A longer title and description is cut.
        num_templates (`int`, *optional*): Use the first so many wordings of each kind; `None` uses all.
        seed (`int`): Of the choice of wordings.

    Raises:
        ConfigurationError: If a number is too small.
    """

    tasks: tuple[str, ...] | None = None
    max_history_recommendations: int = 5
    max_history_searches: int = 5
    max_query_tokens: int = 64
    max_text_tokens: int = 256
    num_templates: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tasks is not None:
            object.__setattr__(self, "tasks", tuple(self.tasks))
        smallest = {
            "max_history_recommendations": 0,
            "max_history_searches": 0,
            "max_query_tokens": 1,
            "max_text_tokens": 1,
            "num_templates": 1,
            "seed": 0,
        }
        for name, bound in smallest.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ConfigurationError(f"`{name}` is {value}; give {bound} or more.")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**asdict(self), "tasks": None if self.tasks is None else list(self.tasks)}
