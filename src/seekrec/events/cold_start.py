# SPDX-License-Identifier: Apache-2.0
"""Cold items: those without training events, and the test cases whose target they are.

There are two kinds:

- **Untrained items** of the log: no training event acts on them, but their text was available when identifiers and
  vectors were learned. Many logs have some; evaluating them needs no extra training.
- **Held-out items**: [`hold_out_items`] removes them and all their events from the log before training. They are then
  added to the trained model by `add_items`, and it is evaluated on the test questions of the whole log whose target
  they are. All training events of a user are earlier than the user's question, as in the split of the whole log; but a
  user who is left with too few interactions to be asked is trained on whole, events of the question's time included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from seekrec.errors import ConfigurationError
from seekrec.events.log import EventLog
from seekrec.events.split import Split
from seekrec.schema import item_texts


@dataclass(frozen=True, eq=False)
class ColdStart:
    """New items, and the split whose test cases have them as targets.

    Args:
        split ([`Split`]): Its test part has them as targets.
        items (`pyarrow.Table`): The items, rows of `split.log.items`; there may be none.
        held_out (`bool`): Whether they were taken out of the log before training, and have to be added.
    """

    split: Split
    items: pa.Table
    held_out: bool

    @classmethod
    def of_untrained(cls, split: Split) -> ColdStart:
        """Take the items that no training event acts on."""
        rows = np.flatnonzero(~has_training_events(split))
        return cls(split, split.log.items.take(pa.array(rows)), held_out=False)

    @property
    def item_ids(self) -> frozenset[str]:
        """The ids of the items."""
        return frozenset(self.items["item_id"].to_pylist())


def has_training_events(split: Split) -> np.ndarray:
    """Mark the items that training events act on: bool of shape `(num_items,)`, in the order of the log's items."""
    timeline = split.timeline
    rows = split.train_rows[timeline.is_interaction[split.train_rows]]
    known = np.zeros(timeline.num_items, dtype=bool)
    known[timeline.item[rows]] = True
    return known


def hold_out_items(split: Split, num_items: int, *, seed: int) -> tuple[EventLog, ColdStart]:
    """Take items that test questions look for out of a log, with all events on them.

    Args:
        split ([`Split`]): Split of the whole log.
        num_items (`int`): Number of items, drawn among the distinct targets of its test part that have text.
        seed (`int`): Seed of the draw.

    Returns:
        `tuple[EventLog, ColdStart]`: The log that is left, to be split again and trained on, and what was taken out.

    Raises:
        ConfigurationError: If fewer items can be taken out.
    """
    log = split.log
    texts = dict(zip(log.items["item_id"].to_pylist(), item_texts(log.items), strict=True))
    asked = [item_id for item_id in dict.fromkeys(split.targets("test")) if texts[item_id]]
    taken = draw_items(asked, num_items, seed=seed, name=log.name)
    is_taken = np.array([item_id in taken for item_id in log.items["item_id"].to_pylist()])
    is_left = np.array([item_id not in taken for item_id in log.events["item_id"].to_pylist()])
    events = log.events.filter(pa.array(is_left))
    rest = replace(
        log,
        events=events,
        # The last search may have gone with its item.
        query_source=log.query_source if events["query"].null_count < len(events) else "none",
        items=log.items.filter(pa.array(~is_taken)),
        notes=(*log.notes, f"{num_items} items and the {int((~is_left).sum())} events on them were held out."),
    )
    return rest, ColdStart(split, log.items.filter(pa.array(is_taken)), held_out=True)


def draw_items(asked: Sequence[str], num_items: int, *, seed: int, name: str) -> set[str]:
    """Draw items to hold out.

    Args:
        asked (`Sequence[str]`): Distinct ids of items that can be held out, in the order of the test cases.
        num_items (`int`): How many.
        seed (`int`): Seed of the draw.
        name (`str`): Name of the log, for the message.

    Raises:
        ConfigurationError: If there are fewer.
    """
    if not 1 <= num_items <= len(asked):
        raise ConfigurationError(
            f"`num_cold_items` is {num_items}, but the test part of {name!r} has {len(asked)} different targets with "
            f"text; choose 1 to {len(asked)}, or 0 to hold out none."
        )
    chosen = np.random.default_rng(seed).choice(len(asked), size=num_items, replace=False)
    return {asked[number] for number in chosen.tolist()}


__all__ = ["ColdStart", "draw_items", "has_training_events", "hold_out_items"]
