# SPDX-License-Identifier: Apache-2.0
"""What the configurations of the families of vectors check alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def check_settings(config: Any, at_least_one: Sequence[str], choices: Mapping[str, Sequence[str]]) -> None:
    """Check sizes, choices and that items have vectors.

    Args:
        config: Has the fields named, `hidden_size`, `num_attention_heads`, `use_ids`, `text_size` and those of the
            fusion.
        at_least_one (`Sequence[str]`): Fields that are whole numbers from 1 on, beside those of every family.
        choices (`Mapping[str, Sequence[str]]`): The values that fields may have.

    Raises:
        ValueError: If a field is out of range.
    """
    every = ("num_items", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_history", "query_size")
    for name in (*every, "num_actions", *at_least_one):
        if getattr(config, name) < 1:
            raise ValueError(f"`{name}` is {getattr(config, name)}; it must be at least 1.")
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"`hidden_size` is {config.hidden_size}, which {config.num_attention_heads} heads do not divide; change "
            "`hidden_size` or `num_attention_heads`."
        )
    for name, allowed in {**choices, "similarity": ("dot", "cosine")}.items():
        if getattr(config, name) not in allowed:
            raise ValueError(f"`{name}` is {getattr(config, name)!r}; use one of {', '.join(allowed)}.")
    for name in ("recommender_weight", "text_weight"):
        if getattr(config, name) < 0:
            raise ValueError(f"`{name}` is {getattr(config, name)}; it must not be negative.")
    if config.recommender_weight and config.recommender is None:
        raise ValueError(f"`recommender_weight` is {config.recommender_weight}, but `recommender` is None; give both.")
    if config.text_weight and not config.text_size:
        raise ValueError(f"`text_weight` is {config.text_weight}, but `text_size` is 0: the items have no texts.")
    if not config.use_ids and not config.text_size:
        raise ValueError("`use_ids` is False and `text_size` 0, so items would have no vectors; change one.")


__all__ = ["check_settings"]
