# SPDX-License-Identifier: Apache-2.0
"""Check the parts of a catalogue, and new items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from seekrec.errors import CatalogError, DataError, IdentifierCollisionError
from seekrec.events.checks import Source, conform, find_item_problems, find_items_without_text, refuse
from seekrec.events.item_texts import strip_items
from seekrec.identifiers.assign import prefix_groups
from seekrec.identifiers.modeling_identifier import IdentifierModel
from seekrec.schema import ITEM_FEATURES, IdMap, View, shown
from seekrec.util.arrow import is_list
from seekrec.util.growing import empty_rows
from seekrec.util.memory_maps import row_blocks

VIEWS: tuple[View, ...] = ("semantic", "collaborative")
# What an item's vectors, identifiers and queries are made from.
TEXT_COLUMNS = ("title", "description", "categories")
# What Arrow raises for a value that does not fit a column.
_MISFITS = (pa.ArrowException, OverflowError, TypeError, UnicodeEncodeError)


def check_codes(
    codes: Mapping[View, np.ndarray], item_ids: pa.ChunkedArray, num_shared_levels: int, codebook_size: int
) -> dict[View, np.ndarray]:
    """Check identifiers and bring them to int32, in the order of `VIEWS`; see [`Catalog.build`]."""
    if not codes or any(view not in VIEWS for view in codes):
        raise CatalogError(f"`codes` has the views {list(codes)}; give one or both of {', '.join(VIEWS)}.")
    checked: dict[View, np.ndarray] = {}
    for view in VIEWS:
        if view not in codes:
            continue
        own = np.asarray(codes[view])
        if own.ndim != 2 or len(own) != len(item_ids) or not np.issubdtype(own.dtype, np.integer):
            raise CatalogError(
                f"`codes[{view!r}]` is {own.dtype} of shape {own.shape}; give integers with a row for each of the "
                f"{len(item_ids)} items and a column for each level."
            )
        if not 0 <= own.min() <= own.max() < codebook_size:
            raise CatalogError(
                f"`codes[{view!r}]` goes from {own.min()} to {own.max()}; with `codebook_size` {codebook_size} it "
                f"must stay within 0 to {codebook_size - 1}."
            )
        if not 0 <= num_shared_levels <= own.shape[1]:
            raise CatalogError(
                f"`num_shared_levels` is {num_shared_levels} and an identifier has {own.shape[1]} codes; give 0 to "
                f"{own.shape[1]}."
            )
        checked[view] = np.array(own, dtype=np.int32)
        groups = prefix_groups(checked[view], own.shape[1])
        if groups.max() + 1 < len(groups):
            twice = np.flatnonzero(np.bincount(groups)[groups] > 1)
            first, second = np.flatnonzero(groups == groups[twice[0]])[:2].tolist()
            raise IdentifierCollisionError(
                f"{len(twice)} of {len(own)} items share their {view} identifier with another; the first are "
                f"{item_ids[first].as_py()!r} and {item_ids[second].as_py()!r} with {tuple(own[first].tolist())}. "
                "Pass the codes through seekrec.identifiers.assign_unique."
            )
    if len(checked) == 2:
        left, right = checked.values()
        if left.shape != right.shape or (left[:, :num_shared_levels] != right[:, :num_shared_levels]).any():
            raise CatalogError(
                f"`codes` of the two views have shapes {left.shape} and {right.shape}, or differ in their first "
                f"{num_shared_levels} levels (`num_shared_levels`), which must be equal; pass the codes of both views "
                "from the same learner."
            )
    return checked


def check_flags(argument: str, flags: np.ndarray | None, num_items: int) -> np.ndarray:
    """Check a bool for each item; `None` is False for all. See [`Catalog.build`]."""
    checked = np.zeros(num_items, dtype=bool) if flags is None else np.array(flags)
    if checked.dtype != bool or checked.shape != (num_items,):
        raise CatalogError(
            f"`{argument}` is {checked.dtype} of shape {checked.shape}; give bool of shape ({num_items},), one for "
            "each item."
        )
    return checked


def check_model(model: IdentifierModel, expected: Mapping[str, object]) -> None:
    """Check that the settings of an identifier model agree with codes and embeddings. See [`Catalog.build`]."""
    for name, value in expected.items():
        own = getattr(model.config, name)
        if own != value:
            raise CatalogError(
                f"`identifier_model` has {name}={own}, but the codes and embeddings say {value}; pass the model that "
                "made the codes, and the embeddings it was given."
            )


def check_new_items(
    items: pa.Table | Sequence[Mapping[str, object]],
    schema: pa.Schema,
    known: IdMap,
    is_removed: np.ndarray,
    needs_text: bool,
) -> pa.Table:
    """Bring new items to the columns of a catalogue.

    Args:
        items (`pyarrow.Table` or a list of `dict`): The new items.
        schema (`pyarrow.Schema`): The catalogue's columns.
        known ([`IdMap`]): The catalogue's ids.
        is_removed (`np.ndarray`): bool mask of the removed items.
        needs_text (`bool`): Refuse items with neither title nor description.

    Returns:
        `pyarrow.Table`: The new items under `schema`.

    Raises:
        DataError: As [`Catalog.add_items`] says.
    """
    table = items if isinstance(items, pa.Table) else _table_of_records(items, schema)
    unknown = [name for name in table.column_names if name not in schema.names]
    if unknown:
        raise DataError(
            f"The new items have a column {unknown[0]!r}, the catalogue has {', '.join(schema.names)}; leave the "
            "column out or build the catalogue with it."
        )
    if "title" not in table.column_names:
        table = table.append_column("title", pa.nulls(table.num_rows, pa.string()))
    table = strip_items(conform(table, ITEM_FEATURES, "items", required=("item_id",)))
    findings = find_item_problems(table) + (find_items_without_text(table) if needs_text else [])
    refuse(table, findings, Source("the new items"))
    rows = known.convert_to_rows(table["item_id"].to_pylist(), strict=False)
    if (rows >= 0).any():
        first = int(np.flatnonzero(rows >= 0)[0])
        remedy = "restore_items brings it back" if is_removed[rows[first]] else "update_items changes its columns"
        raise DataError(
            f"Item {table['item_id'][first].as_py()!r} (row {first}, from 0, of the new items) is already in the "
            f"catalogue, at row {rows[first]}; leave it out ({remedy})."
        )
    columns = [
        _cast(table[field.name], field, "new")
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def update_columns(items: pa.Table | Sequence[Mapping[str, object]], known: pa.Table, id_map: IdMap) -> pa.Table:
    """Return a catalogue's items with other values in some columns of some rows; see [`Catalog.update_items`].

    Args:
        items (`pyarrow.Table` or a list of `dict`): `item_id` and the columns to change.
        known (`pyarrow.Table`): The catalogue's items.
        id_map ([`IdMap`]): Their ids.
    """
    given = strip_items(_table_of_records(items, known.schema) if not isinstance(items, pa.Table) else items)
    if "item_id" not in given.column_names:
        raise DataError("The updated items have no column 'item_id'; add it, so that each row names its item.")
    for name in given.column_names:
        if name not in known.column_names:
            raise DataError(
                f"The updated items have a column {name!r}, the catalogue has {', '.join(known.column_names)}; build "
                "the catalogue with the column to change it later."
            )
        if name in TEXT_COLUMNS:
            raise DataError(
                f"The updated items have a column {name!r}; an item's text cannot change, since its vector and "
                "identifier come from it. Leave the column out, or remove the item and add it under another id."
            )
    ids = given["item_id"].to_pylist()
    twice = [item_id for item_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(f"The updated items name {twice[0]!r} more than once; give each item one row.")
    places = id_map.convert_to_rows(ids)
    updated = known
    for number, field in enumerate(known.schema):
        if field.name not in given.column_names or field.name == "item_id":
            continue
        # A key that a record leaves out is not null.
        is_given = [True] * len(places) if isinstance(items, pa.Table) else [field.name in record for record in items]
        chosen = np.flatnonzero(is_given)
        values = _cast(given[field.name].take(pa.array(chosen)), field, "updated")
        source = np.arange(known.num_rows)
        source[places[chosen]] = known.num_rows + np.arange(len(chosen))
        both = pa.chunked_array([*known[field.name].chunks, *values.chunks], type=field.type)
        updated = updated.set_column(number, field, both.take(pa.array(source)))
    updated = updated.combine_chunks()
    if find_item_problems(updated.take(pa.array(places))):
        refuse(updated, find_item_problems(updated), Source("the catalogue as updated"))
    return updated


def _cast(column: pa.ChunkedArray, field: pa.Field, which: str) -> pa.ChunkedArray:
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise DataError(
            f"Column {field.name!r} of the {which} items has type {column.type}, the catalogue's {field.type}; "
            f"convert it: {error}"
        ) from error


def _table_of_records(records: Sequence[Mapping[str, object]], schema: pa.Schema) -> pa.Table:
    if isinstance(records, (str, Mapping)) or not isinstance(records, Sequence):
        raise DataError(f"`items` is {shown(records)}; give a list of dicts, one for each item, or a table.")
    for row, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise DataError(f"`items[{row}]` is {shown(record)}; give a dict of columns.")
    if not records:
        raise DataError("`items` is empty; give a dict for each item.")
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {}
    for name in names:
        kind = schema.field(name).type if name in schema.names else None
        values = [record.get(name) for record in records]
        try:
            columns[name] = _array(values, kind)
        except _MISFITS as error:
            wrong = [number for number, value in enumerate(values) if not _fits(value, kind)][:1]
            if not wrong:  # each by itself fits, as a number and a text
                raise DataError(f"`items` has values of several types in {name!r}: {error}") from error
            raise DataError(
                f"`items[{wrong[0]}]`, {shown(records[wrong[0]].get('item_id'))}, has {name} "
                f"{shown(values[wrong[0]])}, which does not fit type {kind}: {error}"
            ) from error
    return pa.table(columns)


def _array(values: Sequence[object], kind: pa.DataType | None) -> pa.Array:
    if kind is not None:
        _refuse_text_as_list(values, pa.list_(kind))
    return pa.array(values, type=kind)


def _fits(value: object, kind: pa.DataType | None) -> bool:
    try:
        _array([value], kind)
    except _MISFITS:
        return False
    return True


def _refuse_text_as_list(value: object, kind: pa.DataType) -> None:
    """Refuse text in place of a list of texts; Arrow would take it for the list of its characters."""
    if not is_list(kind):
        return
    if isinstance(value, str):
        raise pa.ArrowInvalid(f"{value!r} is text, not a list")
    for member in value if isinstance(value, Iterable) else ():
        _refuse_text_as_list(member, kind.value_type)


def check_vectors(argument: str, vectors: np.ndarray, num_items: int, dimension: int | None = None) -> np.ndarray:
    """Check item vectors and round them to half precision.

    Args:
        argument (`str`): The name for messages.
        vectors (`np.ndarray`): Floats of shape `(num_items, dimension)`.
        num_items (`int`): The rows there must be.
        dimension (`int`, *optional*): The columns there must be.

    Returns:
        `np.ndarray`: float32 of shape `(num_items, dimension)`, each value one that float16 holds.

    Raises:
        CatalogError: If the shape is another, or a value is not finite or above 65504, the largest float16.
    """
    array = np.asarray(vectors)
    if array.ndim != 2 or len(array) != num_items or (dimension is not None and array.shape[1] != dimension):
        raise CatalogError(
            f"`{argument}` has shape {array.shape}; there are {num_items} items"
            f"{'' if dimension is None else f', and the catalogue has vectors of {dimension} numbers'}: pass one row "
            "for each item, from the same encoder."
        )
    rounded = empty_rows(array.shape, np.float32)
    for start, block in row_blocks(array):
        # By torch, which converts about ten times faster than numpy; a value too large becomes infinite.
        part = torch.from_numpy(rounded[start : start + len(block)]).copy_(
            torch.tensor(np.ascontiguousarray(block), dtype=torch.float32).half()
        )
        is_finite = torch.isfinite(part).all(dim=1).numpy()
        if not is_finite.all():
            row = start + int(np.flatnonzero(~is_finite)[0])
            raise CatalogError(
                f"`{argument}` contains a value that is not finite or above 65504, first in row {row}; check that "
                "vector."
            )
    return rounded
