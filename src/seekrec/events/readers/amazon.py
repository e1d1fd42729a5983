# SPDX-License-Identifier: Apache-2.0
r"""Amazon reviews of 2014, 2018 and 2023 (McAuley et al.), with the product-search queries of Ai et al. (2017).

A folder contains the reviews of one category and its metadata, as downloaded, compressed or not:

| release | reviews | metadata |
|---|---|---|
| 2014 | `reviews_NAME_5.json.gz` (5-core), `reviews_NAME.json.gz` | `meta_NAME.json.gz`, a line a Python dictionary |
| 2018 | `NAME_5.json.gz`, `NAME.json.gz` | `meta_NAME.json.gz` |
| 2023 | `NAME.jsonl.gz`, `NAME.csv.gz`, or `NAME.train.csv.gz` and `valid`, `test` | `meta_NAME.jsonl.gz` |

The release is detected from the columns. Every review counts as one interaction (`action` "click"); the stars are kept
in the extra column `rating`. Only reviewed products become items: the metadata list many times more.

The queries of Ai et al. are made from category paths. Their files (`query_text.txt.gz`, `test.qrels.gz` and, where
published, `train.qrels.gz`) say which queries a product has; these become the item column `queries`, from which
[`seekrec.events.synthesize_searches`] takes them. Their split, at random and not by time, is not used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.checks import Finding, Source, check_max_refused, is_blank, refuse
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import (
    clean_text,
    to_category_paths,
    to_ids,
    to_numbers,
    to_text,
)
from seekrec.events.readers.delimited import open_delimited, read_delimited, read_lines
from seekrec.events.readers.json_lines import Kind, read_json_lines
from seekrec.events.readers.layouts import at_rows
from seekrec.events.readers.published import (
    ReadTable,
    build_log,
    find_release,
    put_together,
    usable_events,
    usable_items,
    with_events,
)
from seekrec.events.readers.python_lines import holds_python_lines, read_python_lines
from seekrec.events.readers.text_files import open_text
from seekrec.events.readers.times import read_times
from seekrec.util.arrow import one_array, to_lists, to_mask

_REVIEWS = re.compile(
    r"(?:reviews_|ratings_|meta_)?(?P<name>.+?)(?P<core>_5)?(?:\.(?:train|valid|test))?\.(?P<kind>jsonl?|csv)(?:\.gz)?"
)

# Our names of the columns, and theirs in the three releases; a product of 2023 is told by its parent.
_REVIEW_COLUMNS = {
    "user_id": ("reviewerID", "user_id"),
    "item_id": ("parent_asin", "asin"),
    "timestamp": ("unixReviewTime", "timestamp"),
    "rating": ("overall", "rating"),
}
_CATEGORIES = ("categories", "category")
_ROOTS = ("main_category", "main_cat")
_BRANDS = ("brand", "store")

# What the columns of JSON are to us.
_JSON_REVIEWS: dict[str, Kind] = {
    **dict.fromkeys((*_REVIEW_COLUMNS["user_id"], *_REVIEW_COLUMNS["item_id"]), "id"),
    **dict.fromkeys((*_REVIEW_COLUMNS["timestamp"], *_REVIEW_COLUMNS["rating"]), "value"),
}
_JSON_METADATA: dict[str, Kind] = {
    **dict.fromkeys(_REVIEW_COLUMNS["item_id"], "id"),
    **dict.fromkeys(("title", "description", *_BRANDS, *_ROOTS), "text"),
    **dict.fromkeys(_CATEGORIES, "value"),
}

# User, query, product and label of a line of TREC's.
_QREL = r"^\S+_(?P<query>[0-9]{1,9})\s+\S+\s+(?P<item>\S+)\s+(?P<relevance>\S+)\s*$"

# No name of a category holds it.
_NEVER = "\x1f"

# What a title of 2018 contains where a script of the page was taken for it.
_SCRIPT = "getTime"

# Types of 2014, where a line is a Python dictionary.
_PYTHON_REVIEWS = {
    "reviewerID": pa.string(),
    "asin": pa.string(),
    "overall": pa.float64(),
    "unixReviewTime": pa.int64(),
}
_PYTHON_METADATA = {
    "asin": pa.string(),
    "title": pa.string(),
    "description": pa.string(),
    "categories": pa.list_(pa.list_(pa.string())),
    "brand": pa.string(),
}


@dataclass(frozen=True)
class AmazonFiles:
    """The files of one category of one release.

    Args:
        name (`str`): Category, as in the file names.
        reviews (`tuple[Path, ...]`): Reviews, or ratings; several where the publisher has split them.
        metadata (`Path`): Products.
        queries (`Path`, *optional*): Folder of the files of Ai et al.
    """

    name: str
    reviews: tuple[Path, ...]
    metadata: Path
    queries: Path | None


def read_amazon(folder: str | Path, *, max_refused: float = 0.01) -> EventLog:
    """Read the reviews of one category.

    Products without title and description, and reviews of products without metadata, are left out with a warning; so
    are reviews that say again what the same user said of the same product in the same second.

    Args:
        folder (`str` or `Path`): Folder of the files, see above; or the file of the reviews, where the folder holds
            several.
        max_refused (`float`): The largest share of rows of a file, those above not counted, that may be left out.

    Returns:
        `EventLog`: One recommendation event a review, with `rating` (stars) as an extra column; items with the extra
            columns `brand`, and `queries` where the files of Ai et al. are there.

    Raises:
        DataError: If files are missing or too many rows cannot be used.
    """
    check_max_refused(max_refused)
    files = _find(Path(folder))
    reviews, release = _read_reviews(files)
    wanted = pc.unique(one_array(reviews.table["item_id"])).drop_null()
    products = _read_metadata(files.metadata, wanted)
    items, notes = usable_items(products, max_refused=max_refused)
    events, event_notes = usable_events(reviews, items, max_refused=max_refused)
    items, left = with_events(items, events, products.source)
    notes += [*event_notes, *left]
    if files.queries is not None:
        items, remarks = _add_queries(items, files.queries, max_refused)
        notes += remarks
    names = ", ".join(path.name for path in (*files.reviews, files.metadata))
    return build_log(f"amazon-{release}-{files.name}", f"Amazon reviews {release}: {names}.", events, items, notes)


def _find(path: Path) -> AmazonFiles:
    chosen = path if path.is_file() else None

    def files_of(folder: Path) -> AmazonFiles | None:
        return _files_of(folder, chosen)

    expected = "reviews (NAME_5.json.gz, NAME.jsonl.gz, NAME.csv.gz) and metadata (meta_NAME.json.gz or .jsonl.gz)"
    return find_release(path.parent if chosen else path, files_of, what="Amazon", expected=expected)


def _files_of(folder: Path, chosen: Path | None) -> AmazonFiles | None:
    metadata: dict[str, Path] = {}
    reviews: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(one for one in folder.iterdir() if one.is_file()):
        match = _REVIEWS.fullmatch(path.name)
        if match is None:
            continue
        if path.name.startswith("meta_"):
            metadata[match["name"]] = path
        elif chosen is None or path == chosen:
            # Train, valid and test are parts of one; any other two files contain the same reviews twice.
            whole = re.sub(r"\.(train|valid|test)\.", ".", path.name)
            reviews.setdefault((match["name"], whole), []).append(path)
    known = {key: paths for key, paths in reviews.items() if key[0] in metadata}
    if len(known) > 1:
        names = ", ".join(paths[0].name for paths in known.values())
        raise DataError(f"`data_dir` {folder} contains several files of reviews ({names}); give the path of one.")
    if known:
        (((name, whole), paths),) = known.items()
        return AmazonFiles(name, tuple(paths), metadata[name], _find_queries(folder, whole))
    if reviews and (metadata or chosen):
        (name, _), paths = next(iter(reviews.items()))
        raise DataError(
            f"{folder} contains {paths[0].name} but no meta_{name}.json.gz or meta_{name}.jsonl.gz; add it."
        )
    return None


def _find_queries(folder: Path, reviews: str) -> Path | None:
    """Find the files of Ai et al. alongside the reviews, or in a clone of their repository alongside them."""
    packed = f"{reviews.removesuffix('.gz')}.gz"
    for place in (folder, *sorted(folder.glob(f"*/{packed}"))):
        if _packed_or_not(place, "query_text.txt") is not None:
            return place
    return None


def _packed_or_not(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_reviews(files: AmazonFiles) -> tuple[ReadTable, str]:
    parts = []
    release = ""
    for path in files.reviews:
        raw, source = _read_review_file(path)
        release = _release_of(path, raw.column_names)
        columns = {}
        for name, theirs in _REVIEW_COLUMNS.items():
            found = _first(raw, theirs)
            if found is None:
                raise DataError(f"{path.name} has no column {' or '.join(theirs)}; fetch the published file.")
            columns[name] = raw[found]
        parts.append((pa.table(columns), source))
    raw, source = put_together(parts)
    times = read_times(raw["timestamp"], "timestamp", source, unit="ms" if release == "2023" else "s")
    findings = [*times.findings]
    stars = to_numbers(one_array(raw["rating"]).cast(pa.string()))
    wrong = np.flatnonzero(~((stars >= 0) & (stars <= 5)))
    if len(wrong):
        findings.append(Finding("have a rating outside 0 to 5", wrong, "rating", raw["rating"]))
    table = pa.table(
        {
            "user_id": to_ids(raw["user_id"], "user_id", source),
            "timestamp": times.seconds,
            "item_id": to_ids(raw["item_id"], "item_id", source),
            "rating": pa.array(stars),
        }
    )
    return ReadTable(table, source, findings), release


def _read_review_file(path: Path) -> tuple[pa.Table, Source]:
    if ".csv" not in path.suffixes:
        if holds_python_lines(path):
            return read_python_lines(path, _PYTHON_REVIEWS)
        return read_json_lines(path, _JSON_REVIEWS)
    file = open_delimited(path, delimiter=",", quoting="none")
    if "parent_asin" in file.names:
        # Not the column `history`, in which every row says again all that came before it.
        return file.read([name for names in _REVIEW_COLUMNS.values() for name in names if name in file.names])
    # Before 2023 without a header, and in 2018 with the product in front.
    names = ["asin", "reviewerID", "overall", "unixReviewTime"]
    if path.name.startswith("ratings_"):
        names[:2] = ["reviewerID", "asin"]
    return read_delimited(path, delimiter=",", names=names, quoting="none")


def _release_of(path: Path, columns: Sequence[str]) -> str:
    if "parent_asin" in columns:
        return "2023"
    return "2014" if path.name.startswith(("reviews_", "ratings_")) else "2018"


def _first(raw: pa.Table, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in raw.column_names), None)


def _read_metadata(path: Path, wanted: pa.Array) -> ReadTable:
    """Read the products that a review names: most of the others nobody needs."""
    if holds_python_lines(path):
        raw, whole = read_python_lines(path, _PYTHON_METADATA, key="asin", wanted=set(wanted.to_pylist()))
    else:
        raw, whole = read_json_lines(path, _JSON_METADATA)
    key = _first(raw, _REVIEW_COLUMNS["item_id"])
    if key is None:
        raise DataError(f"{path.name} has no column parent_asin or asin, only {', '.join(raw.column_names)}.")
    ids = to_ids(raw[key], "item_id", whole)
    rows = np.flatnonzero(to_mask(pc.or_kleene(pc.is_in(ids, value_set=wanted), pc.is_null(ids))))
    used = [name for name in ("title", "description", *_CATEGORIES, *_ROOTS, *_BRANDS) if name in raw.column_names]
    if not len(rows):
        raise DataError(
            f"{path.name} contains none of the {len(wanted)} products that are reviewed. Check that the metadata are "
            "of the same category and release: fetch the file of the same name."
        )
    raw = raw.select(used).take(pa.array(rows))
    source = at_rows(whole, rows)
    title = _text(raw, ("title",), source)
    is_script = pc.fill_null(pc.match_substring(title, _SCRIPT), False)
    table = pa.table(
        {
            "item_id": ids.take(pa.array(rows)),
            "title": pc.if_else(is_script, pa.scalar(None, pa.string()), clean_text(title)),
            "description": clean_text(_text(raw, ("description",), source)),
            "categories": _category_paths(raw, source),
            "brand": clean_text(_text(raw, _BRANDS, source)),
        }
    )
    return ReadTable(table, source)


def _text(raw: pa.Table, names: Sequence[str], source: Source) -> pa.Array:
    name = _first(raw, names)
    return pa.nulls(raw.num_rows, pa.string()) if name is None else to_text(raw[name], name, source)


def _category_paths(raw: pa.Table, source: Source) -> pa.Array:
    """Return the category paths; the main category alone where there are none."""
    name = _first(raw, _CATEGORIES)
    none = pa.nulls(raw.num_rows, pa.list_(pa.list_(pa.string())))
    paths = none if name is None else _clean_paths(to_category_paths(raw[name], name, source, separator=_NEVER))
    roots = to_category_paths(
        pa.chunked_array([clean_text(_text(raw, _ROOTS, source))]), "categories", source, separator=_NEVER
    )
    return pc.if_else(pc.is_valid(paths), paths, roots)


def _clean_paths(paths: pa.Array) -> pa.Array:
    """Strip markup from the names (2018 has "</span>" for one), and leave out names and paths without text."""
    flat = paths.flatten()
    names = clean_text(flat.flatten())
    has_text = to_mask(pc.is_valid(names))
    path_of_name = pc.list_parent_indices(flat).to_numpy()
    num_names = np.bincount(path_of_name[has_text], minlength=len(flat))
    row_of_path = pc.list_parent_indices(paths).to_numpy()
    num_paths = np.bincount(row_of_path[num_names > 0], minlength=len(paths))
    inner = to_lists(names.filter(pa.array(has_text)), num_names).filter(pa.array(num_names > 0))
    outer = to_lists(inner, num_paths)
    return pc.if_else(pa.array(num_paths > 0), outer, pa.scalar(None, outer.type))


def _add_queries(items: pa.Table, folder: Path, max_refused: float) -> tuple[pa.Table, list[str]]:
    """Add the column `queries` from the files of Ai et al."""
    path = _packed_or_not(folder, "query_text.txt")
    qrels = [found for name in ("train.qrels", "test.qrels") if (found := _packed_or_not(folder, name)) is not None]
    if path is None or not qrels:
        raise DataError(f"{folder} contains query_text.txt.gz but neither train.qrels.gz nor test.qrels.gz; add one.")
    # A query is named by the number of its line, from 0, so empty lines count.
    texts = pa.array([line.strip() for line in open_text(path).data.tobytes().decode().split("\n")])
    lines, source = put_together([(pa.table({"line": line}), one) for line, one in map(read_lines, qrels)])
    fields = pc.extract_regex(one_array(lines["line"]), _QREL)
    number = pc.struct_field(fields, "query").cast(pa.int64())
    text = texts.take(pc.if_else(pc.less(number, len(texts)), number, pa.scalar(None, pa.int64())))
    pairs = pa.table({"line": lines["line"], "item_id": pc.struct_field(fields, "item"), "number": number})
    bad = Finding("name no user, query and product", np.flatnonzero(to_mask(is_blank(text))), "line")
    relevant = pc.equal(pc.struct_field(fields, "relevance"), "1")
    pairs, keep, note = refuse(pairs, [bad] if len(bad.rows) else [], source, max_refused=max_refused)
    row = one_array(pc.index_in(pairs["item_id"], value_set=one_array(items["item_id"])))
    is_known = to_mask(pc.and_(pc.is_valid(row), relevant.filter(pa.array(keep))))
    rows = row.to_numpy(zero_copy_only=False)[is_known].astype(np.int64)
    row_of_pair, number_of_pair = np.divmod(
        np.unique(rows * len(texts) + pairs["number"].to_numpy()[is_known]), len(texts)
    )
    counts = np.bincount(row_of_pair, minlength=items.num_rows)
    queries = to_lists(texts.take(pa.array(number_of_pair)), counts)
    remark = (
        f"Queries of {int((counts > 0).sum())} of {items.num_rows} products are those of Ai et al. (2017), made from "
        "category paths: nobody typed them. Their split is not used."
    )
    return items.append_column("queries", queries), [remark, *([note] if note else [])]


__all__ = ["read_amazon"]
