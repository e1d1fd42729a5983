# SPDX-License-Identifier: Apache-2.0
"""Diginetica, CIKM Cup 2016: views, purchases, and searches with their result lists.

A folder contains `train-item-views.csv` and, optionally, `train-queries.csv` with `train-clicks.csv`,
`train-purchases.csv`, `products.csv` and `product-categories.csv`, with semicolons between fields. The time of a row
is its day (`eventdate`) and the milliseconds since the session began (`timeframe`).

- A view has `action` "view", a purchase "purchase".
- A row of `train-queries.csv` is a list. Where words were typed it is a search, and the query is the numbers of the
  words, which are not published. Where a category was opened it is a recommendation. Products that were clicked have
  `action` "click" at the time of the click; those that stand above the lowest of them are impressions. It is unknown
  what was seen of a list without a click: such a search becomes an event without an item, an opened category is left
  out.
- A view of a product that was clicked in a list earlier in the session is the page that the click opened: it is left
  out.
- Lists whose clicks the challenge withholds (`is.test`) are left out.

`session_id` is the session. Most sessions have no user: they are users themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.events.checks import Finding, Source, check_max_refused
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import to_ids, to_numbers, to_seconds
from seekrec.events.readers.layouts import (
    at_rows,
    column_or_nulls,
    find_table,
    leave_out,
    most_frequent,
    name_items,
    one_line,
    read_columns,
    to_paths,
    written_numbers,
)
from seekrec.events.readers.published import (
    ReadTable,
    build_log,
    find_release,
    put_together,
    usable_events,
    usable_items,
)
from seekrec.schema import IMPRESSION, RECOMMENDATION, SEARCH
from seekrec.util.arrow import one_array, to_mask

_SESSION = ("sessionId", "userId", "timeframe", "eventdate")
_LIST = ("queryId", *_SESSION, "searchstring.tokens", "items")

# Some copies write names with underscores.
_RENAMED = {"session_id": "sessionId", "user_id": "userId", "item_id": "itemId"}
_NONE = ("NA",)


@dataclass(frozen=True)
class DigineticaFiles:
    """The files of a folder.

    Args:
        name (`str`): Name of the folder.
        views (`Path`): Views of products.
        purchases (`Path`, *optional*): Purchases.
        lists (`tuple[Path, Path]`, *optional*): Queries and clicks.
        products (`Path`, *optional*): Words and prices of products.
        categories (`Path`, *optional*): Categories of products.
    """

    name: str
    views: Path
    purchases: Path | None
    lists: tuple[Path, Path] | None
    products: Path | None
    categories: Path | None


def read_diginetica(folder: str | Path, *, max_refused: float = 0.01) -> EventLog:
    """Read views, purchases, searches and lists of Diginetica.

    Args:
        folder (`str` or `Path`): Folder of the files, see above.
        max_refused (`float`): The largest share of rows that may be left out.

    Returns:
        `EventLog`: `session_id` is the session; items have the extra column `price`.

    Raises:
        DataError: If files are missing or too many rows cannot be used.
    """
    check_max_refused(max_refused)
    files = find_release(folder, _files_of, what="Diginetica", expected="train-item-views.csv")
    parts = [_read_acts(files.views, "view")]
    parts += [_read_acts(files.purchases, "purchase")] if files.purchases else []
    notes: list[str] = []
    if files.lists is not None:
        lists, notes = _read_lists(*files.lists)
        parts += lists
    read = _as_events(*put_together(parts))
    items, item_notes = _read_products(files, read.table, max_refused)
    events, remarks = usable_events(read, items, max_refused=max_refused)
    notes = [*item_notes, *notes, *remarks]
    notes.append("Words of queries and titles are published as numbers. A session without a user is a user.")
    has_searches = bool(pc.any(pc.is_valid(events["query"])).as_py())
    paths = (files.views, files.purchases, *(files.lists or ()), files.products, files.categories)
    found = f"Diginetica: {', '.join(path.name for path in paths if path is not None)}."
    return build_log("diginetica", found, events, items, notes, query_source="logged" if has_searches else "none")


def _files_of(folder: Path) -> DigineticaFiles | None:
    names = ("item-views", "purchases", "queries", "clicks")
    views, purchases, queries, clicks = (find_table(folder, f"train-{name}") for name in names)
    products, categories = (find_table(folder, name) for name in ("products", "product-categories"))
    lists = (queries, clicks) if queries is not None and clicks is not None else None
    return DigineticaFiles(folder.name, views, purchases, lists, products, categories) if views is not None else None


def _read(path: Path, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> tuple[pa.Table, Source]:
    return read_columns(path, needed, optional=optional, delimiter=";", renamed=_RENAMED, quoting="none")


def _read_acts(path: Path, action: str) -> tuple[pa.Table, Source]:
    raw, source = _read(path, (*_SESSION, "itemId"))
    offset = pa.array(to_numbers(raw["timeframe"]))
    return _in_sessions(raw, offset, to_ids(raw["itemId"], "itemId", source), pa.repeat(action, raw.num_rows)), source


def _in_sessions(raw: pa.Table, offset: pa.Array, products: pa.Array, action: pa.Array) -> pa.Table:
    """Return events with the session, user, day and query of their rows, `offset` milliseconds into the session."""
    query = written_numbers(one_line(column_or_nulls(raw, "searchstring.tokens"), _NONE))
    return pa.table(
        {
            "user_id": one_line(raw["userId"], _NONE),
            "day": one_array(raw["eventdate"]),
            "offset": offset,
            "behavior": pc.if_else(pc.is_valid(query), SEARCH, RECOMMENDATION),
            "query": query,
            "item_id": products,
            "action": action,
            "session_id": one_line(raw["sessionId"], _NONE),
        }
    )


def _read_lists(path: Path, clicks_path: Path) -> tuple[list[tuple[pa.Table, Source]], list[str]]:
    """Return clicks, impressions and searches without a click as events, and what was left out."""
    raw, source = _read(path, _LIST, ("is.test",))
    is_test = pc.equal(pc.utf8_lower(column_or_nulls(raw, "is.test")), "true")
    raw, source, notes = leave_out(raw, source, [("are lists whose clicks are withheld", is_test, "queryId")])
    clicks, clicks_source = _read(clicks_path, ("queryId", "timeframe", "itemId"))
    row = pc.index_in(one_array(clicks["queryId"]), value_set=one_array(raw["queryId"]))
    clicks, clicks_source, left = leave_out(
        clicks, clicks_source, [("are clicks on a list that is not published", pc.is_null(row), "queryId")]
    )
    clicked_row = row.drop_null().to_numpy().astype(np.int64)
    products = to_ids(clicks["itemId"], "itemId", clicks_source)
    clicked = _in_sessions(
        raw.take(pa.array(clicked_row)),
        pa.array(to_numbers(clicks["timeframe"])),
        products,
        pa.repeat("click", len(clicked_row)),
    )

    lists = one_array(pc.split_pattern(pc.replace_substring_regex(one_array(raw["items"]), r"\s+", ""), ","))
    at, shown = pc.list_parent_indices(lists).to_numpy().astype(np.int64), lists.flatten()
    codes = pa.concat_arrays([shown, products]).dictionary_encode(null_encoding="encode").indices.to_numpy()
    width = int(codes.max(initial=0)) + 1
    is_clicked = np.isin(at * width + codes[: len(at)], clicked_row * width + codes[len(at) :])
    lowest = np.full(raw.num_rows, -1)
    np.maximum.at(lowest, at[is_clicked], np.flatnonzero(is_clicked))
    is_impression = ~is_clicked & (np.arange(len(at)) < lowest[at])
    at = at[is_impression]
    offset = pa.array(to_numbers(raw["timeframe"]))
    impressions = _in_sessions(
        raw.take(pa.array(at)),
        offset.take(pa.array(at)),
        shown.filter(pa.array(is_impression)),
        pa.repeat(IMPRESSION, len(at)),
    )

    is_typed = to_mask(pc.is_valid(one_line(raw["searchstring.tokens"], _NONE)))
    has_no_click = ~np.isin(np.arange(raw.num_rows), clicked_row)
    alone = np.flatnonzero(is_typed & has_no_click)
    rows = pa.array(alone)
    searches = _in_sessions(
        raw.take(rows), offset.take(rows), pa.nulls(len(alone), pa.string()), pa.repeat("search", len(alone))
    )
    num_left = int((~is_typed & has_no_click).sum())
    notes += [*left, f"{num_left} opened categories without a click are no events."]
    return [
        (clicked, clicks_source),
        (impressions, at_rows(source, at)),
        (searches, replace(at_rows(source, alone), num_unreadable=0, unreadable=None, remarks=())),
    ], notes


def _as_events(table: pa.Table, source: Source) -> ReadTable:
    """Bring users and times to ours; find the views that a click on a list opened."""
    sessions = one_array(table["session_id"])
    days, findings = to_seconds(table["day"], "eventdate", source)
    offset = table["offset"].to_numpy()
    no_offset = np.flatnonzero(np.isnan(offset))
    findings += [Finding("have a timeframe that is not a number", no_offset, "session_id")] if len(no_offset) else []
    times = np.array(pc.fill_null(days, 0)) + np.floor(np.nan_to_num(offset) / 1000).astype(np.int64)
    no_session = np.flatnonzero(np.asarray(sessions.is_null()))
    findings += [Finding("have no session", no_session, "session_id")] if len(no_session) else []

    has_user = pc.is_valid(table["user_id"])
    row = pc.index_in(sessions, value_set=sessions.filter(one_array(has_user)))
    named = one_array(table["user_id"]).filter(one_array(has_user)).take(row)
    user = pc.coalesce(
        pc.binary_join_element_wise("user", named, "-"), pc.binary_join_element_wise("session", sessions, "-")
    )
    columns = {name: table[name] for name in ("behavior", "query", "item_id", "action", "session_id")}
    table = pa.table({"user_id": user, "timestamp": pa.array(times, mask=np.asarray(days.is_null())), **columns})
    opened = _opened_by_click(table, times)
    known = [Finding("are pages that a click on a list opened", opened, "item_id")] if len(opened) else []
    return ReadTable(table, source, findings, known)


def _opened_by_click(table: pa.Table, times: np.ndarray) -> np.ndarray:
    """Return the rows of views of a product that the session clicked in a list no later: int64."""
    session, product = (
        one_array(table[name]).dictionary_encode(null_encoding="encode").indices.to_numpy().astype(np.int64)
        for name in ("session_id", "item_id")
    )
    pair = session * (int(product.max(initial=0)) + 1) + product
    is_click, is_view = (to_mask(pc.equal(table["action"], action)) for action in ("click", "view"))
    clicked, number = np.unique(pair[is_click], return_inverse=True)
    first = np.full(len(clicked) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, number, times[is_click])
    place = np.searchsorted(clicked, pair)
    is_same = np.append(clicked, -1)[place] == pair
    return np.flatnonzero(is_view & is_same & (times >= first[place]))


def _read_products(files: DigineticaFiles, events: pa.Table, max_refused: float) -> tuple[pa.Table, list[str]]:
    """Return the products: those that events name, and those that are published."""
    items: pa.Table | None = None
    notes: list[str] = []
    category, number = pa.array([], pa.string()), pa.array([], pa.string())
    if files.categories is not None:
        raw, source = _read(files.categories, ("itemId", "categoryId"))
        category, number = most_frequent(to_ids(raw["itemId"], "itemId", source), one_line(raw["categoryId"], _NONE))
    if files.products is not None:
        raw, source = _read(files.products, ("itemId", "product.name.tokens"), ("pricelog2",))
        ids = to_ids(raw["itemId"], "itemId", source)
        words = written_numbers(one_line(raw["product.name.tokens"], _NONE))
        path = number.take(pc.index_in(ids, value_set=category))
        price = np.exp2(to_numbers(column_or_nulls(raw, "pricelog2"))) - 1
        table = pa.table(
            {
                "item_id": ids,
                "title": pc.coalesce(words, pc.binary_join_element_wise("product", ids, " ")),
                "categories": to_paths([pc.binary_join_element_wise("category", path, " ")], source),
                "price": pa.array(price, mask=np.isnan(price)),
            }
        )
        items, notes = usable_items(ReadTable(table, source), max_refused=max_refused)
    items, named = name_items(items, one_array(events["item_id"]), "product")
    return items, [*notes, *named]


__all__ = ["read_diginetica"]
