# SPDX-License-Identifier: Apache-2.0
"""Format a model's answers as lines for people: a user's history, recommendations, and search results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seekrec.catalog import Catalog
from seekrec.schema import Event, Request

# What is written behind the item that a user chose in truth.
CHOSEN = "   <- the user chose this"


def describe_history(history: Sequence[Event], catalog: Catalog) -> list[str]:
    """Return a line for each event: the title, and what was searched for."""
    lines = []
    for event in history:
        title = "(no click)" if event.item_id is None else catalog.titles([event.item_id])[0]
        lines.append(f"{title}" if event.query is None else f"{title}   (searched for: {event.query})")
    return lines


def answer(
    model: Any,
    processor: Any,
    request: Request,
    *,
    top_k: int = 5,
    exclude_seen: bool | None = None,
    target: str | None = None,
) -> list[str]:
    """Return a line for each item found.

    Args:
        model (`PreTrainedModel`): A model of any family.
        processor (`ProcessorMixin`): Its processor.
        request ([`Request`]): History, and query of a search.
        top_k (`int`): Number of items.
        exclude_seen (`bool`, *optional*): Leave out items of the history; by default in recommendations only.
        target (`str`, *optional*): Id of the item that the user chose in truth; its line says so.
    """
    # Families that compare vectors search without beams.
    beams = {"num_beams": max(50, top_k)} if model.can_generate() else {}
    found = model.retrieve(processor([request]), top_k=top_k, exclude_seen=exclude_seen, **beams)[0]
    lines = []
    for place, item in enumerate(found, start=1):
        mark = CHOSEN if item.item_id == target else ""
        lines.append(f"{place:2d}. {item.title}   ({item.score:.2f}){mark}")
    return lines


__all__ = ["CHOSEN", "answer", "describe_history"]
