# SPDX-License-Identifier: Apache-2.0
"""A simulated marketplace of any size, whose true preferences are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seekrec.errors import ConfigurationError
from seekrec.events.log import ITEMS_FILE, EventLog
from seekrec.events.simulator.blocks import BlockMaker
from seekrec.events.simulator.items import item_ids, make_items
from seekrec.events.simulator.oracle import Oracle
from seekrec.events.simulator.people import BLOCK_EVENTS
from seekrec.events.simulator.queries import Language
from seekrec.events.simulator.shelves import MIN_ITEMS, Shelves
from seekrec.schema import EVENT_FEATURES
from seekrec.util.files import replace_file, replace_folder, write_table

EVENTS_FOLDER = "events"
_EVENTS_OF_ITEM = 50
_FEWEST_ITEMS, _MOST_ITEMS = 40, 100_000


@dataclass(frozen=True)
class SimulatedShop:
    """A shop and its log, made when it is asked for; see [`simulate`], which makes one.

    The log is made of blocks of 65,536 events, each of users of its own. A block depends on `seed`, `num_items`,
    `num_days` and the two shares alone: any block can be made without those before it, on any machine, and a longer
    log begins with a shorter one.
    """

    num_events: int
    num_items: int
    seed: int
    num_days: int
    search_fraction: float
    impression_fraction: float

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return -(-self.num_events // BLOCK_EVENTS)

    @cached_property
    def shelves(self) -> Shelves:
        """What is sold."""
        return Shelves.draw(self.num_items, self.seed, self.num_days)

    @cached_property
    def maker(self) -> BlockMaker:
        """What makes the blocks."""
        ids = item_ids(np.arange(self.num_items), self.num_items)
        language = Language(self.shelves)
        return BlockMaker(self.shelves, language, ids, self.seed, self.search_fraction, self.impression_fraction)

    @cached_property
    def items(self) -> pa.Table:
        """Rows of `ITEM_FEATURES`, and the columns `brand` and `price`."""
        return make_items(self.shelves, self.seed)

    @property
    def oracle(self) -> Oracle:
        """Who knows with which chances users choose."""
        return Oracle(self.maker)

    def block(self, number: int) -> pa.Table:
        """Make one block.

        Args:
            number (`int`): From 0 up to `num_blocks`.

        Returns:
            `pyarrow.Table`: Rows of `EVENT_FEATURES`, by user and time; fewer than 65,536 in the last block.

        Raises:
            IndexError: If the log has no such block.
        """
        if not 0 <= number < self.num_blocks:
            raise IndexError(f"Block {number} is outside 0..{self.num_blocks - 1}.")
        _, table = self.maker.make(number)
        return table.slice(0, self.num_events - number * BLOCK_EVENTS)

    def blocks(self) -> Iterator[pa.Table]:
        """Make the blocks one after the other, each when it is asked for."""
        return map(self.block, range(self.num_blocks))

    @cached_property
    def log(self) -> EventLog:
        """The whole log in memory."""
        return EventLog(
            "simulated",
            pa.concat_tables(self.blocks()),
            self.items,
            query_source="logged" if self.search_fraction else "none",
            notes=(self.note,),
            is_checked=True,
        )

    @property
    def note(self) -> str:
        """A sentence that says what the log is."""
        return (
            f"Simulated: {self.num_events} events with {self.num_items} items, seed {self.seed}; its users and their "
            "queries are made up."
        )

    def write(self, folder: str | Path, *, rows_per_file: int = 5_000_000) -> None:
        """Write `events/part-*.parquet` and `items.parquet`, one block in memory at a time.

        The events of a block stand in the order of time, as shops write them, not user by user as in `log`. Events of
        one user and second keep their order, so a log that is read from the files is the same.

        Args:
            folder (`str` or `Path`): Replaced as a whole, when all is written.
            rows_per_file (`int`): Events of each part but the last.

        Raises:
            ConfigurationError: If `rows_per_file` is below 1.
        """
        if rows_per_file < 1:
            raise ConfigurationError(f"`rows_per_file` is {rows_per_file}; use at least 1.")
        Path(folder).parent.mkdir(parents=True, exist_ok=True)
        with replace_folder(folder) as target:
            events = target / EVENTS_FOLDER
            events.mkdir()
            for part in range(self.num_parts(rows_per_file)):
                self.write_part(part, events, rows_per_file=rows_per_file)
            write_table(target / ITEMS_FILE, self.items)

    def num_parts(self, rows_per_file: int) -> int:
        """Return how many files of so many events the log fills."""
        return -(-self.num_events // rows_per_file)

    def write_part(self, part: int, folder: Path, *, rows_per_file: int) -> Path:
        """Write one of the files of [`write`]; it appears whole, and depends on no other.

        Args:
            part (`int`): Number of the file, from 0.
            folder (`Path`): Where to write it; must exist.
            rows_per_file (`int`): Events of each file but the last.

        Returns:
            `Path`: The file.
        """
        first = part * rows_per_file
        last = min(first + rows_per_file, self.num_events)
        path = folder / f"part-{part:05d}.parquet"
        with (
            replace_file(path) as temporary,
            pq.ParquetWriter(temporary, EVENT_FEATURES.arrow_schema) as writer,
        ):
            for number in range(first // BLOCK_EVENTS, -(-last // BLOCK_EVENTS)):
                table = self.block(number)
                table = table.take(pa.array(np.argsort(table["timestamp"].to_numpy(), kind="stable")))
                begin = number * BLOCK_EVENTS
                start, stop = max(first - begin, 0), min(last - begin, table.num_rows)
                writer.write_table(table.slice(start, stop - start))
        return path


def simulate(
    num_events: int,
    *,
    num_items: int | None = None,
    seed: int = 0,
    num_days: int = 180,
    search_fraction: float = 0.4,
    impression_fraction: float = 0.3,
) -> SimulatedShop:
    """Simulate a marketplace.

    Users and items have latent tastes, which words, brands and categories express. Users browse and search with typed
    words, click and buy; what was shown and not clicked is logged, too. Items appear and vanish, and their popularity
    drifts. A page view is one `session_id`.

    Args:
        num_events (`int`): Events of the log, impressions included.
        num_items (`int`, *optional*): Items of the shop; one for 50 events, 40 to 100,000, if not given.
        seed (`int`): Seed of everything.
        num_days (`int`): Length of the log.
        search_fraction (`float`): Share of page views that are searches, 0 to 1.
        impression_fraction (`float`): Share of events that are impressions, about; from 0 to 0.9. Fewer in a shop so
            small that its lists would repeat items.

    Returns:
        [`SimulatedShop`]: Nothing of it is made yet.

    Raises:
        ConfigurationError: If an argument is out of range.

    Example:
        >>> shop = simulate(1000, seed=1)
        >>> shop.log.num_events, shop.log.num_items
        (1000, 40)
    """
    if num_items is None:
        num_items = min(max(num_events // _EVENTS_OF_ITEM, _FEWEST_ITEMS), _MOST_ITEMS)
    for name, value, least in (
        ("num_events", num_events, 1),
        ("num_items", num_items, MIN_ITEMS),
        ("seed", seed, 0),
        ("num_days", num_days, 1),
    ):
        if value < least:
            raise ConfigurationError(f"`{name}` is {value}; use at least {least}.")
    for name, share, most in (
        ("search_fraction", search_fraction, 1.0),
        ("impression_fraction", impression_fraction, 0.9),
    ):
        if not 0.0 <= share <= most:
            raise ConfigurationError(f"`{name}` is {share!r}; give a share from 0 to {most:g}.")
    return SimulatedShop(num_events, num_items, seed, num_days, search_fraction, impression_fraction)


__all__ = ["SimulatedShop", "simulate"]
