# SPDX-License-Identifier: Apache-2.0
"""Last.fm, as published for HetRec 2011 (hetrec2011-lastfm-2k): who listened to which artists, and who tagged them.

Only tags have a time. So an event is a user tagging an artist at some moment, with any number of tags; the user's
number of listens to the artist is in the column `weight`. Listening without a tag has no time and makes no event. With
`queries="tags"` each tag is a search that found the artist as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.checks import Source, check_choice, check_max_refused, repeats
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import to_ids, to_numbers, to_text
from seekrec.events.readers.delimited import open_delimited
from seekrec.events.readers.layouts import at_rows
from seekrec.events.readers.published import (
    Queries,
    ReadTable,
    build_log,
    find_release,
    tag_searches,
    usable_events,
    usable_items,
    utf8_or_latin1,
)
from seekrec.events.readers.times import read_times
from seekrec.util.arrow import one_array

_TAGGED = "user_taggedartists-timestamps.dat"
_ARTISTS = "artists.dat"
_TAGS = "tags.dat"
_LISTENED = "user_artists.dat"


@dataclass(frozen=True)
class _Folder:
    path: Path

    @property
    def name(self) -> str:
        return self.path.name


def read_lastfm(folder: str | Path, *, queries: Queries = "none", max_refused: float = 0.01) -> EventLog:
    """Read the Last.fm log of HetRec 2011.

    Args:
        folder (`str` or `Path`): Folder with `user_taggedartists-timestamps.dat`, `artists.dat`, `tags.dat` and
            `user_artists.dat`.
        queries (`str`): `"tags"` makes a search of each tag; `"none"` makes none.
        max_refused (`float`): The largest share of rows of a file that may be left out with a warning. Tags of artists
            that the publisher does not name are left out and do not count.

    Returns:
        `EventLog`: With `weight` (how often the user listened to the artist; null where unknown) as an extra column.

    Raises:
        DataError: If a file is missing or too many rows cannot be used.
    """
    check_max_refused(max_refused)
    check_choice("queries", queries, get_args(Queries))
    expected = f"{_TAGGED}, {_ARTISTS}, {_TAGS} and {_LISTENED}"
    place = find_release(folder, _files_of, what="Last.fm", expected=expected).path
    items, notes = usable_items(_read_artists(place / _ARTISTS), max_refused=max_refused)
    tagged, source = _read(place / _TAGGED, ("userID", "artistID", "tagID", "timestamp"))
    # Several tags of one moment are one act.
    first = np.flatnonzero(~repeats(tagged.select(["userID", "artistID", "timestamp"])))
    acts = _acts(tagged.take(pa.array(first)), at_rows(source, first))
    weights = _weights(place / _LISTENED, acts.table)
    acts = replace(acts, table=acts.table.append_column("weight", weights))
    events, event_notes = usable_events(acts, items, max_refused=max_refused)
    notes += [
        f"An event is that a user tagged an artist: {len(first)} moments with {tagged.num_rows} tags. Listening has "
        "no time: how often a user listened stands in the column weight, and makes no event.",
        *event_notes,
    ]
    if queries == "tags":
        names, _ = utf8_or_latin1(lambda encoding: _read(place / _TAGS, ("tagID", "tagValue"), encoding))
        row = pc.index_in(tagged["tagID"], value_set=one_array(names["tagID"]))
        texts = names["tagValue"].take(row)
        searches, tag_notes = tag_searches(_acts(tagged, source), texts, items, max_refused=max_refused)
        events = pa.concat_tables([events, searches], promote_options="default")
        notes += tag_notes
    found = f"Last.fm of HetRec 2011: {_TAGGED}, {_ARTISTS} and {_LISTENED}."
    return build_log(
        "lastfm-hetrec2011",
        found,
        events,
        items,
        notes,
        query_source="none" if queries == "none" else "logged",
    )


def _files_of(folder: Path) -> _Folder | None:
    return (
        _Folder(folder) if all((folder / name).is_file() for name in (_TAGGED, _ARTISTS, _TAGS, _LISTENED)) else None
    )


def _read(path: Path, names: Sequence[str], encoding: str = "utf8") -> tuple[pa.Table, Source]:
    file = open_delimited(path, delimiter="\t", encoding=encoding, quoting="none")
    for name in names:
        if name not in file.names:
            raise DataError(f"{path.name} has no column {name!r}, only {', '.join(file.names)}; fetch it again.")
    return file.read(names)


def _read_artists(path: Path) -> ReadTable:
    raw, source = utf8_or_latin1(lambda encoding: _read(path, ("id", "name"), encoding))
    columns = {"item_id": to_ids(raw["id"], "item_id", source), "title": to_text(raw["name"], "title", source)}
    return ReadTable(pa.table(columns), source)


def _acts(raw: pa.Table, source: Source) -> ReadTable:
    times = read_times(raw["timestamp"], "timestamp", source, unit="ms")
    columns = {
        "user_id": to_ids(raw["userID"], "user_id", source),
        "timestamp": times.seconds,
        "item_id": to_ids(raw["artistID"], "item_id", source),
    }
    return ReadTable(pa.table(columns), source, times.findings)


def _weights(path: Path, acts: pa.Table) -> pa.Array:
    """Return how often the user of each act listened to its artist: int64, null where the file does not say."""
    listened, _ = _read(path, ("userID", "artistID", "weight"))
    pairs = [
        pc.binary_join_element_wise(table[user], table[artist], "\t")
        for table, user, artist in ((acts, "user_id", "item_id"), (listened, "userID", "artistID"))
    ]
    weights = pa.array(to_numbers(listened["weight"]), from_pandas=True).cast(pa.int64())
    return weights.take(one_array(pc.index_in(pairs[0], value_set=one_array(pairs[1]))))


__all__ = ["read_lastfm"]
