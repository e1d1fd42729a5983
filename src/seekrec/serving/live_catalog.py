# SPDX-License-Identifier: Apache-2.0
"""A model's catalogue with the changes in the store: items put and deleted since it was made.

The process that puts new items computes their identifiers and vectors; the others read them from the store, so all
give the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from safetensors.numpy import load, save

from seekrec.catalog import Catalog
from seekrec.catalog.checks import TEXT_COLUMNS, check_new_items
from seekrec.catalog.masks import to_column_type
from seekrec.errors import RequestError, UnknownItemError
from seekrec.events.item_texts import strip_item
from seekrec.serving.store import ConflictError, ItemChange
from seekrec.util.growing import append_rows

# The row of a new item, and its identifiers and vectors.
Placement = tuple[int, bytes]


def merge_puts(catalog: Catalog, puts: Sequence[Mapping[str, object]]) -> list[ItemChange]:
    """Return what putting items changes.

    Args:
        catalog ([`Catalog`]): The items as they are.
        puts (`Sequence[dict]`): Columns of items by name, `item_id` among them; each item once.

    Returns:
        `list[ItemChange]`: The items that are new, were removed, or have other values in some column.

    Raises:
        RequestError: If an item is named twice, or has a column that the catalogue lacks.
        ConflictError: If the text of an item that is there would change: its vectors come from it.
    """
    names = catalog.items.schema.names
    seen: set[str] = set()
    changes = []
    for columns in puts:
        item_id = str(columns["item_id"])
        if item_id in seen:
            raise RequestError(f"`items` names {item_id!r} more than once; give each item once.")
        seen.add(item_id)
        if unknown := [name for name in columns if name not in names]:
            raise RequestError(
                f"`items` gives {item_id!r} a column {unknown[0]!r}; the catalogue has {', '.join(names)}."
            )
        given = {name: value for name, value in columns.items() if name != "item_id"}
        if item_id not in catalog.id_map:
            changes.append(ItemChange(item_id, given, False))
            continue
        row = catalog.id_map.rows[item_id]
        now = catalog.items.select([*given]).slice(row, 1).to_pylist()[0] if given else {}
        other = {
            name: value
            for name, value in strip_item(given).items()
            # As it was sent: a catalogue of an earlier release may hold HTML.
            if given[name] != now[name] and not _is_held(value, now[name], catalog.items.schema.field(name).type)
        }
        if text := [name for name in other if name in TEXT_COLUMNS]:
            raise ConflictError(
                f"`{text[0]}` of item {item_id!r} differs from the stored one; an item's text cannot change, since "
                "its vectors come from it. Delete the item and put it under another id."
            )
        if other or catalog.is_removed[row]:
            changes.append(ItemChange(item_id, other, False))
    return changes


def _is_held(value: object, held: object, kind: pa.DataType) -> bool:
    """Return whether a column holds a value already: of a number the nearest among its floats."""
    if pa.types.is_floating(kind) and isinstance(value, (int, float)):
        value = to_column_type(value, kind).as_py()
    return bool(value == held)


def removals(catalog: Catalog, item_ids: Sequence[str], *, argument: str = "item_ids") -> list[ItemChange]:
    """Return what deleting items changes: those of them that are not removed yet; `argument` names them in messages.

    Raises:
        UnknownItemError: If the catalogue does not contain an id.
    """
    for item_id in item_ids:
        if item_id not in catalog.id_map:
            raise UnknownItemError(f"`{argument}` names {item_id!r}, which the catalogue does not hold.")
    rows = catalog.id_map.rows
    return [
        ItemChange(item_id, {}, True) for item_id in dict.fromkeys(item_ids) if not catalog.is_removed[rows[item_id]]
    ]


def apply_changes(
    catalog: Catalog, changes: Sequence[ItemChange], placed: Mapping[str, Placement]
) -> tuple[Catalog, dict[str, Placement]]:
    """Return a catalogue with changes.

    Args:
        catalog ([`Catalog`]): The items as they are.
        changes (`Sequence[ItemChange]`): The items as they are from now on.
        placed (`Mapping`): Identifiers and vectors of new items, where they are known.

    Returns:
        `tuple[Catalog, dict]`: The catalogue, and the rows, identifiers and vectors of the items that had none yet.

    Raises:
        DataError: If a value does not fit its column, or a new item has no text.
        CatalogError: If new items need a text encoder that there is none of.
        UnknownItemError: If an item is changed that was never put.
    """
    known = [one for one in changes if one.item_id in catalog.id_map]
    new = [one for one in changes if one.item_id not in catalog.id_map]
    if updates := [_record(one, catalog) for one in known if _record(one, catalog).keys() - {"item_id"}]:
        catalog = catalog.update_items(updates)
    ready = sorted((one for one in new if one.item_id in placed), key=lambda one: placed[one.item_id][0])
    if ready:
        catalog = _with_placed(
            catalog, [_record(one, catalog) for one in ready], [placed[one.item_id] for one in ready]
        )
    first, others = len(catalog), [one for one in new if one.item_id not in placed]
    if others:
        catalog = catalog.add_items([_record(one, catalog) for one in others])
    made = {one.item_id: (first + number, _parts(catalog, first + number)) for number, one in enumerate(others)}
    for is_removed, change in ((True, Catalog.remove_items), (False, Catalog.restore_items)):
        ids = [one.item_id for one in changes if one.is_removed == is_removed]
        if ids and (catalog.is_removed[catalog.id_map.convert_to_rows(ids)] != is_removed).any():
            catalog = change(catalog, ids)
    return catalog, made


def _record(change: ItemChange, catalog: Catalog) -> dict[str, object]:
    """Return the columns of an item that this catalogue has; another model's may have fewer, and texts of its own."""
    known = catalog.items.schema.names
    kept = {name: value for name, value in change.columns.items() if name in known}
    if change.item_id in catalog.id_map:
        kept = {name: value for name, value in kept.items() if name not in TEXT_COLUMNS}
    return {"item_id": change.item_id, **kept}


def _parts(catalog: Catalog, row: int) -> bytes:
    """Return identifiers and vectors of an item."""
    arrays = {f"codes.{view}": codes[row] for view, codes in catalog.codes.items()}
    arrays |= {f"vectors.{view}": vectors[row] for view, vectors in catalog.embeddings.items()}
    arrays["is_predicted"] = catalog.is_predicted[row : row + 1]
    return save(arrays)


def _with_placed(catalog: Catalog, records: Sequence[Mapping[str, object]], placed: Sequence[Placement]) -> Catalog:
    """Return a catalogue with new items whose identifiers and vectors are known."""
    new = check_new_items(records, catalog.items.schema, catalog.id_map, catalog.is_removed, True)
    parts = [load(one) for _, one in placed]

    def joined(old: np.ndarray, name: str) -> np.ndarray:
        return append_rows(old, np.stack([part[name] for part in parts]).astype(old.dtype))

    return replace(
        catalog,
        items=pa.concat_tables([catalog.items, new]).combine_chunks(),
        codes={view: joined(codes, f"codes.{view}") for view, codes in catalog.codes.items()},
        embeddings={view: joined(vectors, f"vectors.{view}") for view, vectors in catalog.embeddings.items()},
        is_removed=np.concatenate([catalog.is_removed, np.zeros(len(parts), dtype=bool)]),
        is_predicted=np.concatenate([catalog.is_predicted, *(part["is_predicted"] for part in parts)]),
    )


__all__ = ["Placement", "apply_changes", "merge_puts", "removals"]
