# SPDX-License-Identifier: Apache-2.0
"""The page at `/`, and the routes that only it uses: filters, users, models, and why an item was returned."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter, Path, Response

from seekrec.catalog import Catalog
from seekrec.errors import UnknownItemError
from seekrec.events.matching import item_words
from seekrec.models.base import CatalogSnapshot
from seekrec.serving import messages as m
from seekrec.serving import replies
from seekrec.serving.http import Served
from seekrec.util.arrow import one_array
from seekrec.util.text import split_words

# The files of the page, by name; nothing else is read.
_TYPES = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml", "index.html": "text/html"}
# Nothing is loaded from elsewhere, and no other page may frame it.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_MAX_CATEGORIES = 40
_MAX_NEAREST = 4
_MAX_SIBLINGS = 6
_LATEST = 200

open_router = APIRouter()
router = APIRouter()


@open_router.get("/", include_in_schema=False)
async def index() -> Response:
    """Return the page."""
    return _file("index.html")


@open_router.get("/page/{name}", include_in_schema=False)
async def page_file(name: Annotated[str, Path(max_length=50)]) -> Response:
    """Return a file of the page."""
    if name not in _TYPES:
        raise UnknownItemError(f"The page does not have a file {name!r}.")
    return _file(name)


def _file(name: str) -> Response:
    content = files("seekrec.serving").joinpath("page", name).read_bytes()
    return Response(content, media_type=f"{_TYPES[name]}; charset=utf-8", headers=_HEADERS)


@router.get("/models")
async def list_models(service: Served) -> replies.Models:
    """Return the models that questions may name."""
    name = service.model.name
    return replies.Models(model=name, models=sorted({name, *service.models.beside}))


@router.get("/users")
async def list_users(service: Served) -> replies.Users:
    """Return the users whom the server was started with as examples; of others it tells no names."""
    return replies.Users(users=service.example_users)


@router.get("/facets")
async def list_facets(service: Served) -> replies.Facets:
    """Return what items can be filtered by: categories, and the ends of columns of numbers."""
    snapshot = service.model.model.current_snapshot()
    return snapshot.value("facets", lambda: _facets(snapshot.catalog))


@router.post("/why")
async def why(message: m.WhyMessage, service: Served) -> replies.Why:
    """Say what speaks for an item: what the user did that is most like it, words of the query, its identifier."""
    snapshot = service.models.named(message.model).model.current_snapshot()
    catalog = snapshot.catalog
    if message.item_id not in catalog.id_map:
        raise UnknownItemError(f"`item_id` is {message.item_id!r}, which the catalogue does not hold.")
    row = catalog.id_map.rows[message.item_id]
    kept = message.given_history() if message.user_id is None else (await service.history(message.user_id)).events
    acted = [event.item_id for event in kept[-_LATEST:] if event.item_id is not None and not event.is_impression]
    known = catalog.id_map.convert_to_rows(dict.fromkeys(acted), strict=False)
    history = known[(known >= 0) & (known != row)]
    item = catalog.items.slice(row, 1)
    own = set(item_words(item)[0]) if _has_text(item) else set()
    words = [] if message.query is None else [word for word in split_words(message.query) if word in own]
    return replies.Why(
        item=_item(catalog, row),
        categories=_leaves(item.column("categories")) if "categories" in item.column_names else [],
        words=list(dict.fromkeys(words)),
        nearest=[
            _nearest(catalog, history, vectors - mean, "text" if view == "semantic" else "behavior")
            for view, (vectors, mean) in _vectors(snapshot, np.append(history, row)).items()
        ],
        identifiers=[_path(catalog, row, codes, view) for view, codes in catalog.codes.items()],
    )


def _has_text(item: pa.Table) -> bool:
    return any(item.column(name)[0].as_py() for name in ("title", "description", "categories"))


def _item(catalog: Catalog, row: int) -> replies.ItemName:
    item_id = catalog.id_map.ids[row]
    return replies.ItemName(item_id=item_id, title=catalog.titles([item_id])[0])


def _vectors(snapshot: CatalogSnapshot, rows: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return, by view, the vectors of some items, and the mean of all: what all share tells of none."""
    return {
        view: (
            np.asarray(vectors[rows], np.float32),
            snapshot.value(("mean", view), partial(_mean, vectors)),
        )
        for view, vectors in snapshot.catalog.embeddings.items()
    }


def _mean(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors.mean(axis=0, dtype=np.float64), np.float32)


def _nearest(
    catalog: Catalog, history: np.ndarray, vectors: np.ndarray, by: Literal["text", "behavior"]
) -> replies.Nearest:
    """Return the items of a history by the cosine of their vectors and that of an item, which comes last."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    cosines = unit[:-1] @ unit[-1]
    best = np.argsort(-cosines, kind="stable")[:_MAX_NEAREST]
    items = [
        replies.NearItem(**_item(catalog, int(history[place])).model_dump(), similarity=float(cosines[place]))
        for place in best
        if cosines[place] > 0
    ]
    return replies.Nearest(by=by, items=items)


def _path(catalog: Catalog, row: int, codes: np.ndarray, view: str) -> replies.IdentifierPath:
    """Return the codes of an item, and how many items share each beginning; the last that are not alone next to it."""
    levels, siblings = [], np.empty(0, np.int64)
    sharing = np.flatnonzero(catalog.live)
    for level in range(codes.shape[1]):
        sharing = sharing[codes[sharing, level] == codes[row, level]]
        levels.append(replies.IdentifierLevel(code=int(codes[row, level]), num_items=len(sharing)))
        if len(sharing) > 1:
            siblings = sharing[sharing != row][:_MAX_SIBLINGS]
    return replies.IdentifierPath(
        view=view, levels=levels, siblings=[_item(catalog, int(other)) for other in siblings]
    )


def _leaves(categories: pa.ChunkedArray) -> list[str]:
    """Return the last name of each path of categories."""
    return [path[-1] for paths in categories.to_pylist() for path in paths or () if path and path[-1]]


def _count_categories(categories: pa.Array) -> tuple[list[tuple[str, int]], str | None]:
    """Count the items of each category, at any depth of their paths.

    Args:
        categories (`pyarrow.Array`): The paths of each item.

    Returns:
        `tuple`: The commonest names with their numbers of items, and the one that all paths of several names begin
        with, if there is one: it is not counted, as it leaves nothing out.
    """
    paths = pc.list_flatten(categories)
    item_of_path = pc.list_parent_indices(categories).to_numpy()
    lengths = pc.fill_null(pc.list_value_length(paths), 0).to_numpy(zero_copy_only=False)
    begins = np.cumsum(lengths) - lengths
    coded = pc.fill_null(pc.list_flatten(paths), "").dictionary_encode()
    codes, names = coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist()
    roots = np.unique(codes[begins[lengths > 1]])
    # Each name once per item.
    pairs = np.unique(np.repeat(item_of_path, lengths) * max(len(names), 1) + codes)
    counts = np.bincount(pairs % max(len(names), 1), minlength=len(names))
    root = int(roots[0]) if len(roots) == 1 else None
    if root is not None:
        counts[root] = 0
    if "" in names:
        counts[names.index("")] = 0
    # The commonest first; of equal ones that which the catalogue has first.
    order = [number for number in np.argsort(-counts, kind="stable")[:_MAX_CATEGORIES].tolist() if counts[number]]
    return [(names[number], int(counts[number])) for number in order], None if root is None else names[root]


def _facets(catalog: Catalog) -> replies.Facets:
    items = catalog.items.filter(pa.array(catalog.live))
    counts: list[tuple[str, int]] = []
    root = None
    if "categories" in items.column_names:
        counts, root = _count_categories(one_array(items.column("categories")))
    ranges = []
    for column in items.column_names:
        values = items.column(column)
        is_number = any(kind(values.type) for kind in (pa.types.is_integer, pa.types.is_float32, pa.types.is_float64))
        if column in ("available_from", "available_until") or not is_number:
            continue
        ends = pc.min_max(values.filter(pc.is_finite(values))).as_py()
        if ends["min"] is not None and ends["min"] < ends["max"]:
            ranges.append(replies.RangeFacet(column=column, lowest=ends["min"], highest=ends["max"]))
    lifetimes = [items.column(name) for name in ("available_from", "available_until") if name in items.column_names]
    return replies.Facets(
        categories=[replies.CategoryFacet(name=name, num_items=number) for name, number in counts],
        root=root,
        ranges=ranges,
        has_lifetimes=any(len(values) > values.null_count for values in lifetimes),
    )


__all__ = ["open_router", "router"]
