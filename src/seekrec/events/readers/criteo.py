# SPDX-License-Identifier: Apache-2.0
"""Logs of Criteo: TSV with one row per advertisement. Two publications are supported, distinguished by their columns.

- **Attribution Modeling for Bidding** (`criteo_attribution_dataset.tsv.gz`, with a header): a row is a banner that was
  shown. Items are campaigns. `action` is "click" or "impression", as the column `click` says; a conversion that the
  publication attributes to a banner (`attribution`) is one more event, a "purchase" at its time. Times are seconds
  since the log began.
- **Sponsored Search Conversion Log** (`CriteoSearchData`, 23 columns, no header): a row is a click on a product that
  was shown for a search. What was typed is not published, so it counts as a recommendation. A sale is one more event,
  a "purchase", the published delay after the click. Words of titles, brands and categories are hashed; -1 is missing.

For your own TSV of this kind, use [`read_tables`] and name its columns with `column_map`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.events.checks import Finding, Source, check_max_refused
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import to_ids, to_numbers, to_seconds
from seekrec.events.readers.layouts import at_rows, find_table, name_items, one_line, read_columns, to_paths
from seekrec.events.readers.published import ReadTable, build_log, find_release, usable_events
from seekrec.schema import IMPRESSION
from seekrec.util.arrow import one_array, to_mask

_ATTRIBUTION = "criteo_attribution_dataset"
_BANNERS = ("timestamp", "uid", "campaign", "click", "attribution", "conversion_timestamp", "conversion_id")

_SEARCH = "CriteoSearchData"
_LEVELS = [f"product_category_{level}" for level in range(1, 8)]
_CLICKS = (
    *("sale", "sales_amount", "conversion_delay", "click_timestamp", "num_clicks_week", "price", "age_group"),
    *("device", "audience_id", "gender", "brand", *_LEVELS, "country", "product_id", "title", "partner_id", "user_id"),
)
_NOTHING = ("-1",)


@dataclass(frozen=True)
class CriteoFiles:
    """The file of a folder.

    Args:
        name (`str`): Name of the folder.
        path (`Path`): The log.
        is_search (`bool`): Whether it is the sponsored search log.
    """

    name: str
    path: Path
    is_search: bool


def read_criteo(folder: str | Path, *, max_refused: float = 0.01) -> EventLog:
    """Read a log of Criteo.

    Args:
        folder (`str` or `Path`): Folder of the file, see above.
        max_refused (`float`): The largest share of rows that may be left out.

    Returns:
        `EventLog`: Recommendation events.

    Raises:
        DataError: If files are missing or too many rows cannot be used.
    """
    check_max_refused(max_refused)
    expected = f"{_ATTRIBUTION}.tsv.gz or {_SEARCH}"
    files = find_release(folder, _files_of, what="Criteo", expected=expected)
    read, items, notes = (_read_search if files.is_search else _read_attribution)(files.path)
    events, remarks = usable_events(read, items, max_refused=max_refused)
    kind = "search" if files.is_search else "attribution"
    return build_log(f"criteo-{kind}", f"Criteo: {files.path.name}.", events, items, [*notes, *remarks])


def _files_of(folder: Path) -> CriteoFiles | None:
    for name, is_search in ((_ATTRIBUTION, False), (_SEARCH, True)):
        path = find_table(folder, name, (".tsv", ".csv", ""))
        if path is not None:
            return CriteoFiles(folder.name, path, is_search)
    return None


def _read_attribution(path: Path) -> tuple[ReadTable, pa.Table, list[str]]:
    raw, source = read_columns(path, _BANNERS, delimiter="\t", quoting="none")
    is_click = to_mask(pc.equal(raw["click"], "1"))
    # A conversion counts once, at the first of the banners it is attributed to.
    bought = np.flatnonzero(to_mask(pc.equal(raw["attribution"], "1")))
    conversions = one_array(raw["conversion_id"]).take(pa.array(bought)).dictionary_encode().indices.to_numpy()
    bought = bought[np.unique(conversions, return_index=True)[1]]
    users, campaigns = to_ids(raw["uid"], "uid", source), to_ids(raw["campaign"], "campaign", source)
    table = pa.table(
        {
            "user_id": users,
            "timestamp": one_array(raw["timestamp"]),
            "item_id": campaigns,
            "action": pc.if_else(pa.array(is_click), "click", IMPRESSION),
        }
    )
    times = one_array(raw["conversion_timestamp"]).take(pa.array(bought))
    read = _with_purchases(table, source, bought, times, has_time=False)
    items, _ = name_items(None, campaigns, "campaign")
    notes = [
        "Items are campaigns, of which nothing is published: their title is their id.",
        "Times are seconds since the log began.",
    ]
    return read, items, notes


def _read_search(path: Path) -> tuple[ReadTable, pa.Table, list[str]]:
    used = ["sale", "conversion_delay", "click_timestamp", "product_id", "title", "brand", *_LEVELS, "user_id"]
    raw, source = read_columns(path, used, delimiter="\t", names=_CLICKS, quoting="none")
    products = one_line(raw["product_id"], _NOTHING)
    delay, clicked = to_numbers(raw["conversion_delay"]), to_numbers(raw["click_timestamp"])
    bought = np.flatnonzero(to_mask(pc.equal(raw["sale"], "1")) & (delay >= 0) & (clicked >= 0))
    times = pa.array((clicked + delay)[bought].astype(np.int64)).cast(pa.string())
    table = pa.table(
        {
            "user_id": one_line(raw["user_id"], _NOTHING),
            "timestamp": one_array(raw["click_timestamp"]),
            "item_id": products,
            "action": pa.repeat("click", raw.num_rows),
        }
    )
    read = _with_purchases(table, source, bought, times, has_time=True)
    distinct = pc.unique(products).drop_null()
    first = raw.take(pc.index_in(distinct, value_set=products))
    title = one_line(first["title"], _NOTHING)
    items = pa.table(
        {
            "item_id": distinct,
            "title": pc.coalesce(title, pc.binary_join_element_wise("product", distinct, " ")),
            "categories": to_paths([one_line(first[level], _NOTHING) for level in _LEVELS], source),
            "brand": one_line(first["brand"], _NOTHING),
        }
    )
    notes = [
        "What was typed is not published: a click on a sponsored product counts as a recommendation.",
        "Words of titles, brands and categories are hashed: a text encoder cannot read them.",
    ]
    return read, items, notes


def _with_purchases(
    table: pa.Table, source: Source, bought: np.ndarray, times: pa.Array, *, has_time: bool
) -> ReadTable:
    """Add a purchase, at its time, for each of the rows `bought`, and read the times."""
    purchases = table.take(pa.array(bought))
    purchases = purchases.set_column(1, "timestamp", times)
    purchases = purchases.set_column(3, "action", pa.repeat("purchase", len(bought)))
    whole = pa.concat_tables([table, purchases])
    seconds, problems = to_seconds(whole["timestamp"], "timestamp", source, has_time=has_time)
    whole = whole.set_column(1, "timestamp", seconds)
    nothing = np.flatnonzero(to_mask(pc.or_(pc.is_null(whole["item_id"]), pc.is_null(whole["user_id"]))))
    known = [Finding("name no product or no user", nothing, "action")] if len(nothing) else []
    return ReadTable(whole, at_rows(source, np.concatenate([np.arange(table.num_rows), bought])), problems, known)


__all__ = ["read_criteo"]
