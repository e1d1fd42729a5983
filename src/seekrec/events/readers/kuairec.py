# SPDX-License-Identifier: Apache-2.0
"""KuaiRec (Gao et al., 2022): videos of Kuaishou with the share of each that a user watched.

A folder contains `big_matrix.csv` or `small_matrix.csv` and, optionally, `kuairec_caption_category.csv` (captions and
names of categories, in Chinese) and `item_categories.csv` (numbers of tags). If both matrices exist, the big one is
read; to read the small one, in which users were shown nearly every video, pass its path.

A row is a video that was played. Watched to its end or longer (`watch_ratio` of 1 or more) it is a "click", else an
"impression": the publication has no clicks. The extra column `watch_ratio` allows other rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.events.checks import Finding, check_max_refused
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import to_ids, to_numbers, to_seconds
from seekrec.events.readers.layouts import (
    column_or_nulls,
    find_table,
    name_items,
    one_line,
    read_columns,
    to_paths,
    written_numbers,
)
from seekrec.events.readers.published import ReadTable, build_log, find_release, usable_events, usable_items
from seekrec.schema import IMPRESSION
from seekrec.util.arrow import one_array, to_mask

_TEXTS = ("caption", "manual_cover_text", "topic_tag")
_LEVELS = [f"{level}_level_category_name" for level in ("first", "second", "third")]
_NOTHING = ("UNKNOWN", "[]", "nan")

# Watched to the end.
_WATCHED = 1.0


@dataclass(frozen=True)
class KuairecFiles:
    """The files of a folder.

    Args:
        name (`str`): Name of the matrix.
        matrix (`Path`): What was watched.
        captions (`Path`, *optional*): Captions and categories.
        tags (`Path`, *optional*): Numbers of tags.
    """

    name: str
    matrix: Path
    captions: Path | None
    tags: Path | None


def read_kuairec(folder: str | Path, *, max_refused: float = 0.01) -> EventLog:
    """Read a matrix of KuaiRec.

    Args:
        folder (`str` or `Path`): Folder of the files, see above; or the path of a matrix.
        max_refused (`float`): The largest share of rows of a table that may be left out; rows without a time, which
            the small matrix is known for, do not count.

    Returns:
        `EventLog`: Recommendation events with the extra column `watch_ratio`.

    Raises:
        DataError: If files are missing or too many rows cannot be used.
    """
    check_max_refused(max_refused)
    chosen = Path(folder) if Path(folder).is_file() else None
    files = find_release(
        chosen.parent if chosen else folder,
        lambda place: _files_of(place, chosen),
        what="KuaiRec",
        expected="big_matrix.csv or small_matrix.csv",
    )
    raw, source = read_columns(files.matrix, ["user_id", "video_id", "timestamp", "watch_ratio"])
    seconds, findings = to_seconds(raw["timestamp"], "timestamp", source)
    no_time = np.flatnonzero(to_mask(pc.is_null(raw["timestamp"])))
    ratio = to_numbers(raw["watch_ratio"])
    no_ratio = np.flatnonzero(np.isnan(ratio))
    if len(no_ratio):
        findings.append(
            Finding("have a watch_ratio that is not a number", no_ratio, "watch_ratio", raw["watch_ratio"])
        )
    table = pa.table(
        {
            "user_id": to_ids(raw["user_id"], "user_id", source),
            "timestamp": seconds,
            "item_id": to_ids(raw["video_id"], "video_id", source),
            "action": pc.if_else(pa.array(ratio >= _WATCHED), "click", IMPRESSION),
            "watch_ratio": pa.array(ratio),
        }
    )
    items, notes = _read_videos(files, table, max_refused)
    known = [Finding("have no time", no_time, "user_id")] if len(no_time) else []
    events, remarks = usable_events(ReadTable(table, source, findings, known), items, max_refused=max_refused)
    notes += [
        *remarks,
        f"A video watched to its end (watch_ratio of {_WATCHED:g} or more) is a click, any other an impression.",
    ]
    paths = [path.name for path in (files.matrix, files.captions, files.tags) if path is not None]
    return build_log(f"kuairec-{files.name}", f"KuaiRec: {', '.join(paths)}.", events, items, notes)


def _files_of(folder: Path, chosen: Path | None) -> KuairecFiles | None:
    matrix = chosen or find_table(folder, "big_matrix") or find_table(folder, "small_matrix")
    if matrix is None:
        return None
    name = matrix.name.split(".")[0].removesuffix("_matrix")
    captions, tags = (find_table(folder, one) for one in ("kuairec_caption_category", "item_categories"))
    return KuairecFiles(name, matrix, captions, tags)


def _read_videos(files: KuairecFiles, events: pa.Table, max_refused: float) -> tuple[pa.Table, list[str]]:
    """Return the videos of the events: text from the captions; tags, or else their number, for those without."""
    items: pa.Table | None = None
    notes: list[str] = []
    if files.captions is not None:
        raw, source = read_columns(files.captions, ["video_id"], optional=[*_TEXTS, *_LEVELS])
        texts = [one_line(column_or_nulls(raw, name), _NOTHING) for name in _TEXTS]
        levels = [one_line(column_or_nulls(raw, level), _NOTHING) for level in _LEVELS]
        described = one_line(
            pc.binary_join_element_wise(*(pc.fill_null(one, "") for one in (*texts[1:], *levels)), " ")
        )
        table = pa.table(
            {
                "item_id": to_ids(raw["video_id"], "video_id", source),
                "title": pc.coalesce(texts[0], texts[1]),
                "description": described,
                "categories": to_paths(levels, source),
            }
        )
        items, notes = usable_items(ReadTable(table, source), max_refused=max_refused)
    if files.tags is not None:
        raw, source = read_columns(files.tags, ["video_id", "feat"])
        ids = to_ids(raw["video_id"], "video_id", source)
        numbers = written_numbers(raw["feat"])
        tagged = pa.table({"item_id": ids, "title": pc.binary_join_element_wise("tags", numbers, " ")})
        if items is not None:
            tagged = tagged.filter(pc.invert(pc.is_in(ids, value_set=one_array(items["item_id"]))))
        if tagged.num_rows:
            tagged, remarks = usable_items(ReadTable(tagged, source), max_refused=max_refused)
            items = tagged if items is None else pa.concat_tables([items, tagged], promote_options="default")
            notes = [*notes, *remarks, f"{tagged.num_rows} videos have only the numbers of their tags for a title."]
    items, named = name_items(items, one_array(events["item_id"]), "video")
    return items, [*notes, *named]


__all__ = ["read_kuairec"]
