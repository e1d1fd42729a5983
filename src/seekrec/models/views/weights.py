# SPDX-License-Identifier: Apache-2.0
"""The weight of each view in each task, as a setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Literal, TypeAlias, get_args

from seekrec.schema import BEHAVIORS

ViewName = Literal["collaborative", "item_knn", "lexical", "query_log", "semantic", "new", "unsearched"]
ANSWER_VIEWS: tuple[ViewName, ...] = get_args(ViewName)
# By task, then by view.
ViewWeights: TypeAlias = Mapping[str, Mapping[str, float]]

# What the setting `view_weights` says where a recipe chooses them.
BY_VALIDATION = "validation"
# What it says, alongside nothing, where nothing is added, as in the papers: an option needs a word.
_NONE = "none"
NO_VIEWS: tuple[str, ...] = ()


def read_view_weights(settings: Sequence[str]) -> ViewWeights:
    """Read `["search.lexical=0.5", "recommendation.collaborative=1"]`; nothing from `["validation"]` and `["none"]`.

    Raises:
        ValueError: If a task or a view is unknown, or a weight is not a finite number.
    """
    weights: dict[str, dict[str, float]] = {}
    for setting in [] if list(settings) in ([BY_VALIDATION], [_NONE]) else settings:
        name, _, number = setting.partition("=")
        task, _, view = name.partition(".")
        try:
            weight = float(number)
        except ValueError:
            weight = float("nan")
        if task not in BEHAVIORS or view not in ANSWER_VIEWS or not isfinite(weight):
            raise ValueError(
                f"`view_weights` has {setting!r}; write task.view=number with a task of {', '.join(BEHAVIORS)} and a "
                f"view of {', '.join(ANSWER_VIEWS)}, or {BY_VALIDATION} or {_NONE} alone."
            )
        if weight:
            weights.setdefault(task, {})[view] = weight
    return weights


def used_views(weights: ViewWeights) -> set[str]:
    """Return the views that have a weight in any task."""
    return {name for own in weights.values() for name, weight in own.items() if weight}


def write_view_weights(weights: ViewWeights) -> list[str]:
    """Write weights as the setting `view_weights` has them."""
    return [f"{task}.{view}={weight:g}" for task, own in weights.items() for view, weight in own.items() if weight]


__all__ = [
    "ANSWER_VIEWS",
    "BY_VALIDATION",
    "NO_VIEWS",
    "ViewName",
    "ViewWeights",
    "read_view_weights",
    "used_views",
    "write_view_weights",
]
