# SPDX-License-Identifier: Apache-2.0
"""MovieLens in all its layouts: 100K, 1M, 10M, 20M and later, latest, and RecBole's copy.

Every rating counts as one interaction (`action` "click"); the stars are kept in the extra column `rating`. Films get
natural text: "The Usual Suspects (1995)", "A crime thriller film of the 1990s. Genres: crime, thriller."

Films have genres, not category paths, so their queries are made here, in the column `queries`: what people type to
find a kind of film, "crime thriller" rather than "movies crime". They are as synthetic as those of
[`seekrec.events.category_queries`], which hands them on. The tags of 10M and later were typed by users: with
`queries="tags"` each becomes a search that found the film.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.checks import Finding, Source, check_choice, check_max_refused
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import to_ids, to_numbers, to_seconds
from seekrec.events.readers.delimited import read_delimited, read_double_colons, read_lines
from seekrec.events.readers.kept_rows import keep_events, keep_items
from seekrec.events.readers.movielens_files import MovieLensFiles, find_in_folder, find_ml_100k
from seekrec.events.readers.published import Queries, ReadTable, build_log, tag_searches, utf8_or_latin1
from seekrec.util.arrow import to_mask

# Genre as in the files: as a word of its own, and as it stands before another one. In the order in which they stand
# before each other: "romantic comedy", "animated children's comedy", "sci-fi action thriller".
GENRE_WORDS: dict[str, tuple[str, str]] = {
    "IMAX": ("imax", "imax"),
    "Animation": ("animation", "animated"),
    "Children's": ("children's", "children's"),
    "Children": ("children's", "children's"),
    "Romance": ("romance", "romantic"),
    "Sci-Fi": ("sci-fi", "sci-fi"),
    "Fantasy": ("fantasy", "fantasy"),
    "War": ("war", "war"),
    "Western": ("western", "western"),
    "Horror": ("horror", "horror"),
    "Crime": ("crime", "crime"),
    "Mystery": ("mystery", "mystery"),
    "Action": ("action", "action"),
    "Adventure": ("adventure", "adventure"),
    "Musical": ("musical", "musical"),
    "Film-Noir": ("film noir", "film noir"),
    "Comedy": ("comedy", "comedy"),
    "Drama": ("drama", "drama"),
    "Thriller": ("thriller", "thriller"),
    "Documentary": ("documentary", "documentary"),
}
_PLACES = {genre: place for place, genre in enumerate(GENRE_WORDS)}

# What the files say where they know no genre.
_NO_GENRE = ("unknown", "(no genres listed)", "")

# u.item has one column of 0 and 1 for each of these, after id, title, two dates and an address.
_U_ITEM_GENRES = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|"
    "Mystery|Romance|Sci-Fi|Thriller|War|Western"
).split("|")

_TAG_LINE = r"^(?P<user_id>[^:]+)::(?P<item_id>[^:]+)::(?P<tag>.*)::(?P<timestamp>[^:]+)$"

# Number of ratings that tells a release, whatever its folder is called.
_RELEASES = {
    100_000: "ml-100k",
    1_000_209: "ml-1m",
    10_000_054: "ml-10m",
    20_000_263: "ml-20m",
    25_000_095: "ml-25m",
    32_000_204: "ml-32m",
    100_836: "ml-latest-small",
}

# Titles are sorted by their first noun: "Postman, The (Postino, Il)". Only articles that end no English title.
_ARTICLES = "The|A|An|La|Le|Les|L'|Il|Der|Die|Das|El|Los|Las|Un|Une|Den|Det"


def read_movielens(
    data_dir: str | Path | None = None,
    *,
    queries: Queries = "none",
    cache_dir: str | Path | None = None,
    max_refused: float = 0.01,
) -> EventLog:
    """Read a MovieLens release.

    Args:
        data_dir (`str` or `Path`, *optional*): A folder with the files of any release (u.data and u.item, ratings.dat
            and movies.dat, ratings.csv and movies.csv, or one .inter and one .item file). If not given, MovieLens 100K
            is taken from the installed wheel `recbole`, else from the cache, else downloaded into the cache; notes and
            log say which, and the SHA-256 is checked.
        queries (`str`): `"tags"` makes a search of each tag; `"none"` leaves the tags out.
        cache_dir (`str` or `Path`, *optional*): Folder of downloads; `~/.cache/seekrec/movielens` if not given.
        max_refused (`float`): The largest share of rows of a file that may be left out with a warning.

    Returns:
        `EventLog`: One recommendation event a rating, with `rating` (stars; null for a tag) as an extra column; items
            with the extra columns `year` (int64, null if unknown) and `queries` (list of text).

    Raises:
        DataError: If files are missing, cannot be fetched, have the wrong SHA-256, or too many rows cannot be used.
    """
    check_max_refused(max_refused)
    check_choice("queries", queries, get_args(Queries))
    files = find_ml_100k(cache_dir) if data_dir is None else find_in_folder(data_dir)
    items, item_warning = _read_movies(files, max_refused)
    events, event_warning = _read_ratings(files, items, max_refused)
    files = replace(files, name=_RELEASES.get(events.num_rows, files.name))
    notes = [warning for warning in (item_warning, event_warning) if warning]
    if queries == "tags":
        searches, tag_notes = _read_tags(files, items, max_refused)
        events = pa.concat_tables([events, searches], promote_options="default")
        notes += tag_notes
    return build_log(
        files.name,
        f"MovieLens, release {files.name}, from {files.origin}.",
        events,
        items,
        notes,
        query_source="none" if queries == "none" else "logged",
    )


def genre_phrase(genres: list[str]) -> str:
    """Join genres into a phrase as people say it, in lower case.

    Example:
    ```python
    >>> genre_phrase(["Comedy", "Romance"])
    'romantic comedy'
    >>> genre_phrase(["Thriller", "Sci-Fi", "Action"])
    'sci-fi action thriller'

    ```
    """
    ordered = sorted(genres, key=lambda genre: _PLACES.get(genre, len(_PLACES)))
    words = [GENRE_WORDS.get(genre, (genre.lower(), genre.lower())) for genre in ordered]
    return " ".join([before for _, before in words[:-1]] + [alone for alone, _ in words[-1:]])


def film_queries(genres: list[str], decade: str | None) -> list[str]:
    """Return queries that people might type to find a film of this kind.

    All genres together, the same with the decade in front, and, where there are several, each genre alone.

    Args:
        genres (`list[str]`): Genres as in the files; none gives no query.
        decade (`str`, *optional*): Such as `"1990s"`.

    Example:
    ```python
    >>> film_queries(["Comedy", "Romance"], "1990s")
    ['romantic comedy', '1990s romantic comedy', 'comedy', 'romance']

    ```
    """
    if not genres:
        return []
    together = genre_phrase(genres)
    queries = [together] + ([f"{decade} {together}"] if decade else [])
    return queries + ([genre_phrase([genre]) for genre in genres] if len(genres) > 1 else [])


def _read_ratings(files: MovieLensFiles, items: pa.Table, max_refused: float) -> tuple[pa.Table, str | None]:
    names = ["user_id", "item_id", "rating", "timestamp"]
    if files.layout == "tab":
        raw, source = read_delimited(files.ratings, delimiter="\t", names=names, quoting="none")
    elif files.layout == "colons":
        raw, source = read_double_colons(files.ratings, names, encoding="utf8")
    else:
        delimiter = "," if files.layout == "csv" else "\t"
        raw, source = read_delimited(
            files.ratings, delimiter=delimiter, quoting=None if files.layout == "csv" else "none"
        )
        raw = _rename(raw, source, {"userId": "user_id", "movieId": "item_id"}, names)
    seconds, findings = to_seconds(raw["timestamp"], "timestamp", source)
    stars = to_numbers(raw["rating"])
    no_stars = np.flatnonzero(~((stars >= 0.5) & (stars <= 5.0)))
    if len(no_stars):
        findings.append(Finding("have a rating outside 0.5 to 5", no_stars, "rating", raw["rating"]))
    table = pa.table(
        {
            "user_id": to_ids(raw["user_id"], "user_id", source),
            "timestamp": seconds,
            "item_id": to_ids(raw["item_id"], "item_id", source),
            "rating": pa.array(stars),
        }
    )
    return keep_events(table, items, source, max_refused=max_refused, findings=findings)


def _read_tags(files: MovieLensFiles, items: pa.Table, max_refused: float) -> tuple[pa.Table, list[str]]:
    if files.tags is None:
        raise DataError(
            f"MovieLens, release {files.name}, has no tags; releases from 10M on have them. Leave `queries` at 'none' "
            "to make searches from genres."
        )
    names = ["user_id", "item_id", "tag", "timestamp"]
    unreadable = []
    if files.layout == "colons":
        lines, source = read_lines(files.tags)
        # A tag may contain what stands between fields.
        fields = pc.extract_regex(lines, _TAG_LINE)
        raw = pa.table({name: pc.struct_field(fields, name) for name in names})
        bad = np.flatnonzero(to_mask(pc.is_null(fields)))
        unreadable = [Finding("are not user, film, tag and time", bad, "tag", lines)] if len(bad) else []
    else:
        raw, source = read_delimited(files.tags, delimiter=",")
        raw = _rename(raw, source, {"userId": "user_id", "movieId": "item_id"}, names)
    seconds, findings = to_seconds(raw["timestamp"], "timestamp", source)
    columns = {
        "user_id": to_ids(raw["user_id"], "user_id", source),
        "timestamp": seconds,
        "item_id": to_ids(raw["item_id"], "item_id", source),
    }
    tagged = ReadTable(pa.table(columns), source, [*unreadable, *findings])
    return tag_searches(tagged, raw["tag"], items, max_refused=max_refused)


def _read_movies(files: MovieLensFiles, max_refused: float) -> tuple[pa.Table, str | None]:
    raw, source = _READERS[files.layout](files)
    titles = pc.utf8_trim_whitespace(pc.fill_null(raw["title"].combine_chunks(), ""))
    dated = pc.extract_regex(titles, r"^(?P<title>.*?)\s*\((?P<year>[0-9]{4})(?:[-–][0-9]{0,4})?\)$")
    years = pc.coalesce(pc.struct_field(dated, "year"), raw["year"].combine_chunks())
    years = pc.if_else(pc.match_substring_regex(years, "^[0-9]{4}$"), years, None).cast(pa.int64())
    bare = _put_articles_first(pc.coalesce(pc.struct_field(dated, "title"), titles))
    with_year = pc.binary_join_element_wise(bare, " (", years.cast(pa.string()), ")", "")
    genres = [[genre for genre in of_film or [] if genre not in _NO_GENRE] for of_film in raw["genres"].to_pylist()]
    decades = [None if year is None else f"{year // 10 * 10}s" for year in years.to_pylist()]
    # A hundred thousand films are of a few thousand kinds.
    kinds = list(zip(map(tuple, genres), decades, strict=True))
    described = {kind: _describe(list(kind[0]), kind[1]) for kind in set(kinds)}
    queries = {kind: film_queries(list(kind[0]), kind[1]) for kind in set(kinds)}
    table = pa.table(
        {
            "item_id": to_ids(raw["item_id"], "item_id", source),
            "title": pc.coalesce(with_year, bare),
            "description": pa.array([described[kind] for kind in kinds], pa.string()),
            "categories": pa.array(
                [[["Movies", genre] for genre in of_film] for of_film in genres], pa.list_(pa.list_(pa.string()))
            ),
            "year": years,
            "queries": pa.array([queries[kind] for kind in kinds], pa.list_(pa.string())),
        }
    )
    return keep_items(table, source, max_refused=max_refused)


def _put_articles_first(titles: pa.Array) -> pa.Array:
    moved = pc.replace_substring_regex(titles, rf"^([^()]+), ({_ARTICLES})(\s*\(.*)?$", r"\2 \1\3")
    moved = pc.replace_substring_regex(moved, rf"\(([^()]+), ({_ARTICLES})\)", r"(\2 \1)")
    return pc.replace_substring(moved, "L' ", "L'")


def _describe(genres: list[str], decade: str | None) -> str | None:
    if not genres and not decade:
        return None
    phrase = genre_phrase(genres)
    kind = phrase if phrase.endswith("film noir") else f"{phrase} film".strip()
    article = "An" if kind[0] in "aeiou" else "A"
    listed = f" Genres: {', '.join(genre_phrase([genre]) for genre in genres)}." if genres else ""
    return f"{article} {kind}{f' of the {decade}' if decade else ''}.{listed}"


def _read_tab_movies(files: MovieLensFiles) -> tuple[pa.Table, Source]:
    names = ["item_id", "title", "release_date", "video_date", "address", *_U_ITEM_GENRES]
    raw, source = read_delimited(files.movies, delimiter="|", names=names, encoding="latin-1", quoting="none")
    flags = np.stack([pc.equal(raw[genre], "1").to_numpy() for genre in _U_ITEM_GENRES], axis=1)
    genres = [[genre for genre, is_set in zip(_U_ITEM_GENRES, row, strict=True) if is_set] for row in flags.tolist()]
    return _with_genres(raw, genres), source


def _read_colon_movies(files: MovieLensFiles) -> tuple[pa.Table, Source]:
    # 1M is latin-1, 10M is UTF-8.
    names = ["item_id", "title", "genres"]
    raw, source = utf8_or_latin1(lambda encoding: read_double_colons(files.movies, names, encoding=encoding))
    return _with_genres(raw, pc.split_pattern(raw["genres"], "|").to_pylist()), source


def _read_csv_movies(files: MovieLensFiles) -> tuple[pa.Table, Source]:
    raw, source = read_delimited(files.movies, delimiter=",")
    raw = _rename(raw, source, {"movieId": "item_id"}, ["item_id", "title", "genres"])
    return _with_genres(raw, pc.split_pattern(raw["genres"], "|").to_pylist()), source


def _read_atomic_movies(files: MovieLensFiles) -> tuple[pa.Table, Source]:
    raw, source = read_delimited(files.movies, delimiter="\t", quoting="none")
    renamed = {"movie_title": "title", "release_year": "year", "class": "genres", "genre": "genres"}
    raw = _rename(raw, source, renamed, ["item_id", "title", "genres"])
    return _with_genres(raw, pc.split_pattern(raw["genres"], " ").to_pylist()), source


_READERS = {
    "tab": _read_tab_movies,
    "colons": _read_colon_movies,
    "csv": _read_csv_movies,
    "atomic": _read_atomic_movies,
}


def _with_genres(raw: pa.Table, genres: Sequence[list[str] | None]) -> pa.Table:
    # Three layouts have the year in the title only.
    year = raw["year"] if "year" in raw.column_names else pa.nulls(raw.num_rows, pa.string())
    lists = pa.array(genres, pa.list_(pa.string()))
    return pa.table({"item_id": raw["item_id"], "title": raw["title"], "year": year, "genres": lists})


def _rename(raw: pa.Table, source: Source, renamed: dict[str, str], needed: list[str]) -> pa.Table:
    """Rename the columns to ours, without the types that RecBole writes into its headers."""
    bare = [name.split(":")[0] for name in raw.column_names]
    table = raw.rename_columns([renamed.get(name, name) for name in bare])
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise DataError(
            f"{source.name} has no column {missing[0]!r}, only {', '.join(raw.column_names)}; use the released file."
        )
    return table
