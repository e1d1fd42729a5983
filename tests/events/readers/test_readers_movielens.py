# SPDX-License-Identifier: Apache-2.0
"""MovieLens: four layouts of the same films, and where the files come from."""

import hashlib
import logging
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from seekrec.errors import DataError
from seekrec.events import category_queries, read_movielens, synthesize_searches
from seekrec.events.readers import movielens, movielens_files
from seekrec.events.readers.movielens import film_queries, genre_phrase
from seekrec.events.readers.movielens_files import (
    MovieLensFiles,
    fetch_archive,
    fetch_wheel,
    find_in_folder,
    find_ml_100k,
)

# (user, film, stars, time); the order of the files is not that of time.
RATINGS = [(1, 1, 5, 300), (1, 2, 3, 100), (2, 1, 4, 200), (2, 3, 1, 250)]
# (film, title, genres)
FILMS = [
    (1, "Usual Suspects, The (1995)", ["Crime", "Thriller"]),
    (2, "City of Lost Children, The (Cité des enfants perdus, La) (1995)", ["Children's", "Fantasy"]),
    (3, "unknown", []),
]
U_ITEM_GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
    "Mystery Romance Sci-Fi Thriller War Western"
).split()


def lines(rows, separator):
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


def write_tab(folder):
    films = []
    for film, title, genres in FILMS:
        flags = [int(genre in (genres or ["unknown"])) for genre in U_ITEM_GENRES]
        films.append((film, title, "01-Jan-1995", "", "http://x", *flags))
    (folder / "u.data").write_text(lines(RATINGS, "\t"))
    (folder / "u.item").write_text(lines(films, "|"), encoding="latin-1")


def write_colons(folder, encoding="latin-1"):
    (folder / "ratings.dat").write_text(lines(RATINGS, "::"))
    films = [(film, title, "|".join(genres) or "(no genres listed)") for film, title, genres in FILMS]
    (folder / "movies.dat").write_text(lines(films, "::"), encoding=encoding)


def write_csv(folder):
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + lines(RATINGS, ","))
    films = [(film, f'"{title}"', "|".join(genres) or "(no genres listed)") for film, title, genres in FILMS]
    (folder / "movies.csv").write_text("movieId,title,genres\n" + lines(films, ","), encoding="utf8")


def write_atomic(folder):
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (folder / "toy.inter").write_text(header + lines(RATINGS, "\t"))
    films = []
    for film, title, genres in FILMS:
        bare, year = (title[:-7], title[-5:-1]) if title.endswith(")") else (title, "unkonwn")
        films.append((film, bare, year, " ".join(genres) or "unknown"))
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    (folder / "toy.item").write_text(header + lines(films, "\t"), encoding="utf8")


WRITERS = {"tab": write_tab, "colons": write_colons, "csv": write_csv, "atomic": write_atomic}


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_same_log(tmp_path, layout):
    WRITERS[layout](tmp_path)
    assert find_in_folder(tmp_path).layout == layout
    log = read_movielens(tmp_path)
    assert (log.has_time, log.query_source) == (True, "none")
    assert log.events.select(["user_id", "item_id", "timestamp", "action", "rating"]).to_pylist() == [
        {"user_id": "1", "item_id": "2", "timestamp": 100, "action": "click", "rating": 3.0},
        {"user_id": "1", "item_id": "1", "timestamp": 300, "action": "click", "rating": 5.0},
        {"user_id": "2", "item_id": "1", "timestamp": 200, "action": "click", "rating": 4.0},
        {"user_id": "2", "item_id": "3", "timestamp": 250, "action": "click", "rating": 1.0},
    ]
    suspects, city, unknown = log.items.to_pylist()
    assert suspects["title"] == "The Usual Suspects (1995)"
    assert suspects["description"] == "A crime thriller film of the 1990s. Genres: crime, thriller."
    assert suspects["categories"] == [["Movies", "Crime"], ["Movies", "Thriller"]]
    assert suspects["year"] == 1995
    assert city["title"] == "The City of Lost Children (La Cité des enfants perdus) (1995)"
    assert (unknown["title"], unknown["description"], unknown["year"]) == ("unknown", None, None)
    assert (unknown["categories"], unknown["queries"]) == ([], [])
    assert category_queries(log.items)[0] == ["crime thriller", "1990s crime thriller", "crime", "thriller"]
    assert synthesize_searches(log, construction="copy").describe()["num_events_by_behavior"]["search"] == 3


# (user, film, tag, time): a Chinese one, one with both quotes and colons, one of a film that is not there.
TAGS = [(1, 2, "奇幻 dreams", 150), (2, 1, " Kevin's ::twist:: ", 210), (2, 1, "twist", 210), (1, 99, "x", 1)]


def test_tags_are_searches(tmp_path, caplog):
    write_colons(tmp_path, encoding="utf8")
    (tmp_path / "tags.dat").write_text(lines(TAGS, "::") + "1::2::3\n", encoding="utf8")
    bad = "tags.dat: 1 of 4 rows .* 1 are not user, film, tag and time .first: line 5"
    with pytest.raises(DataError, match=bad):
        read_movielens(tmp_path, queries="tags")
    (tmp_path / "tags.dat").write_text(lines(TAGS[:3], "::"), encoding="utf8")
    with caplog.at_level(logging.INFO):
        log = read_movielens(tmp_path, queries="tags")
    assert (log.num_events, log.query_source) == (7, "logged")
    searches = [event for event in log.events.to_pylist() if event["behavior"] == "search"]
    assert [(event["user_id"], event["item_id"], event["query"], event["timestamp"]) for event in searches] == [
        ("1", "2", "奇幻 dreams", 150),
        ("2", "1", "Kevin's ::twist::", 210),
        ("2", "1", "twist", 210),
    ]
    assert searches[0]["rating"] is None
    assert any(note.startswith("3 searches are tags: texts that users typed to describe") for note in log.notes)
    assert "7 events of 2 users, 3 of them searches; 3 items." in caplog.text
    # The same in the later layout, and none without the file.
    folder = tmp_path / "later"
    folder.mkdir()
    write_csv(folder)
    with pytest.raises(DataError, match="release later, has no tags; releases from 10M on"):
        read_movielens(folder, queries="tags")
    quoted = [(user, film, f'"{tag}"', time) for user, film, tag, time in TAGS[:3]]
    (folder / "tags.csv").write_text("userId,movieId,tag,timestamp\n" + lines(quoted, ","), encoding="utf8")
    assert read_movielens(folder, queries="tags").events.equals(log.events)


def test_the_number_of_ratings_names_the_release(tmp_path, monkeypatch):
    write_csv(tmp_path)
    monkeypatch.setitem(movielens._RELEASES, 4, "ml-tiny")
    assert read_movielens(tmp_path).name == "ml-tiny"


def test_films_of_10m_are_in_utf8(tmp_path):
    write_colons(tmp_path, encoding="utf8")
    assert "Cité" in read_movielens(tmp_path).items["title"][1].as_py()


def test_genres_are_put_the_way_people_say_them():
    assert genre_phrase(["Comedy", "Romance"]) == "romantic comedy"
    assert genre_phrase(["Action", "Adventure", "Sci-Fi", "Thriller"]) == "sci-fi action adventure thriller"
    assert genre_phrase(["Animation", "Children's", "Musical"]) == "animated children's musical"
    assert genre_phrase(["Children", "Animation"]) == "animated children's"
    assert genre_phrase(["Comedy", "Kung Fu"]) == "comedy kung fu"
    assert genre_phrase([]) == ""
    assert film_queries(["War"], None) == ["war"]
    assert film_queries(["War"], "1940s") == ["war", "1940s war"]
    assert film_queries([], "1940s") == []


def test_texts(tmp_path):
    write_csv(tmp_path)
    films = {
        "Amélie (Fabuleux destin d'Amélie Poulain, Le) (2001)": "Amélie (Le Fabuleux destin d'Amélie Poulain) (2001)",
        "Avventura, L' (1960)": "L'Avventura (1960)",
        "Good, the Bad and the Ugly, The (1966)": "The Good, the Bad and the Ugly (1966)",
        "Babylon 5": "Babylon 5",
        "Fawlty Towers (1975-1979)": "Fawlty Towers (1975)",
        "2001: A Space Odyssey (1968) ": "2001: A Space Odyssey (1968)",
        "Trip, A": "A Trip",
    }
    rows = [(number, f'"{title}"', "Film-Noir") for number, title in enumerate(films, 1)]
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + lines(rows, ","), encoding="utf8")
    items = read_movielens(tmp_path).items
    assert items["title"].to_pylist() == list(films.values())
    assert items["year"].to_pylist() == [2001, 1960, 1966, None, 1975, 1968, None]
    assert items["description"][0].as_py() == "A film noir of the 2000s. Genres: film noir."
    assert items["description"][3].as_py() == "A film noir. Genres: film noir."


def test_rows_that_cannot_be_used(tmp_path, caplog):
    write_csv(tmp_path)
    ratings = tmp_path / "ratings.csv"
    good = ratings.read_text()
    for row, message in {
        "1,99,3,5": "1 name an item that the items table does not hold .first: line 6, item_id '99'",
        "1,1,7,5": "1 have a rating outside 0.5 to 5 .first: line 6, rating '7'",
        "1,1,x,5": "1 have a rating outside 0.5 to 5 .first: line 6, rating 'x'",
        "1,1,5,300": "1 repeat an earlier row .first: line 6",
        "1,1,5": "1 cannot be read .first: line 6, where the number of fields is 3, not 4",
        "1,1,5,NaN": "1 have a timestamp that is not a time .first: line 6, timestamp 'NaN'",
    }.items():
        ratings.write_text(good + row + "\n")
        with pytest.raises(DataError, match=f"ratings.csv: 1 of 5 rows cannot be used: {message}.* allows 1.00%"):
            read_movielens(tmp_path)
        caplog.clear()
        log = read_movielens(tmp_path, max_refused=0.2)
        assert log.num_events == 4
        # The warning shows the value, the notes do not.
        assert caplog.records[0].message.startswith(log.notes[-1].split(" (first: line 6")[0])
        assert not {"'99'", "'7'", "'x'", "'NaN'"} & set(log.notes[-1].replace(")", " ").split())
    ratings.write_text("userId,movieId,rating\n1,1,5\n")
    with pytest.raises(DataError, match="ratings.csv has no column 'timestamp', only userId, movieId, rating"):
        read_movielens(tmp_path)


def test_folders(tmp_path):
    with pytest.raises(DataError, match="`data_dir` .*absent is not a folder"):
        find_in_folder(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        DataError, match="contains no MovieLens files, only notes.txt. Expected u.data and u.item, ratings"
    ):
        find_in_folder(tmp_path)
    (tmp_path / "ml-1m").mkdir()
    write_colons(tmp_path / "ml-1m")
    assert find_in_folder(tmp_path) == MovieLensFiles(
        tmp_path / "ml-1m" / "ratings.dat",
        tmp_path / "ml-1m" / "movies.dat",
        "colons",
        "ml-1m",
        "ratings.dat and movies.dat in `data_dir`",
    )
    (tmp_path / "ml-20m").mkdir()
    write_csv(tmp_path / "ml-20m")
    with pytest.raises(DataError, match="contains several releases .ml-1m, ml-20m.; give the folder of one"):
        find_in_folder(tmp_path)
    write_tab(tmp_path)
    assert find_in_folder(tmp_path).name == "ml-100k"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def wheel_files(tmp_path, monkeypatch):
    """A folder with the two files of the wheel; the package expects their SHA-256; nothing is installed."""
    folder = tmp_path / "in_wheel"
    folder.mkdir()
    write_atomic(folder)
    for suffix in ("inter", "item"):
        (folder / f"toy.{suffix}").rename(folder / f"ml-100k.{suffix}")
    monkeypatch.setattr(movielens_files, "WHEEL_FILES", {path.name: sha256(path) for path in folder.iterdir()})
    monkeypatch.setattr(movielens_files, "_installed_folder", lambda: None)
    return folder


def test_the_installed_wheel_is_found_and_not_imported(tmp_path, monkeypatch, wheel_files, caplog):
    monkeypatch.undo()
    monkeypatch.setattr(movielens_files, "WHEEL_FILES", {path.name: sha256(path) for path in wheel_files.iterdir()})
    package = tmp_path / "site" / "recbole"
    (package / "dataset_example").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    wheel_files.rename(package / "dataset_example" / "ml-100k")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "recbole", raising=False)
    with caplog.at_level(logging.INFO):
        log = read_movielens()
    assert log.name == "ml-100k"
    assert log.notes[0] == "MovieLens, release ml-100k, from the installed package recbole (SHA-256 checked)."
    assert "the SHA-256 of both files is as expected" in caplog.text
    (package / "dataset_example" / "ml-100k" / "ml-100k.item").write_text("changed")
    with pytest.raises(
        DataError, match="ml-100k.item has SHA-256 .*, expected .* pip install --no-deps --force-reins"
    ):
        read_movielens()


def fake_pip(monkeypatch, wheel_files, *, fails=False):
    """Let pip download a wheel that holds the files; give the commands it was called with."""
    commands = []

    def run(command, **kwargs):
        commands.append(command)
        if fails:
            return subprocess.CompletedProcess(command, 1, "", "Looking\nERROR: no network\n")
        with zipfile.ZipFile(
            Path(command[command.index("--dest") + 1]) / "recbole-1.2.1-py3-none-any.whl", "w"
        ) as wheel:
            wheel.writestr("recbole/__init__.py", "")
            for path in wheel_files.iterdir():
                wheel.write(path, f"recbole/dataset_example/ml-100k/{path.name}")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(movielens_files.subprocess, "run", run)
    return commands


def test_the_wheel_is_downloaded_once_into_the_cache(tmp_path, monkeypatch, wheel_files):
    commands = fake_pip(monkeypatch, wheel_files)
    cache = tmp_path / "cache"
    log = read_movielens(cache_dir=cache)
    assert log.num_events == 4
    assert "the wheel recbole==1.2.1, fetched now (SHA-256 checked)" in log.notes[0]
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in commands[0]
    assert commands[0][-1] == "recbole==1.2.1"
    # Nothing but the two files stays.
    files = sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())
    assert files == ["recbole-1.2.1/ml-100k.inter", "recbole-1.2.1/ml-100k.item"]
    again = read_movielens(cache_dir=cache)
    assert len(commands) == 1
    assert "from the cache, fetched from the wheel recbole==1.2.1" in again.notes[0]
    (cache / "recbole-1.2.1" / "ml-100k.item").write_text("changed")
    with pytest.raises(
        DataError, match="it is damaged or changed. Delete .*recbole-1.2.1 and run again to fetch it again"
    ):
        read_movielens(cache_dir=cache)


def test_a_download_with_another_sha_is_not_kept(tmp_path, monkeypatch, wheel_files):
    fake_pip(monkeypatch, wheel_files)
    monkeypatch.setattr(movielens_files, "WHEEL_FILES", dict.fromkeys(movielens_files.WHEEL_FILES, "0" * 64))
    with pytest.raises(DataError, match="expected 000.*Nothing was kept"):
        find_ml_100k(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_pip_the_official_archive_is_fetched(tmp_path, monkeypatch, wheel_files, caplog):
    fake_pip(monkeypatch, wheel_files, fails=True)
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    write_tab(folder)
    with zipfile.ZipFile(tmp_path / "ml-100k.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"ml-100k/{path.name}")
    monkeypatch.setattr(movielens_files, "ARCHIVE_FILES", {path.name: sha256(path) for path in folder.iterdir()})
    monkeypatch.setattr(movielens_files, "ARCHIVE_URL", (tmp_path / "ml-100k.zip").as_uri())
    files = find_ml_100k(tmp_path / "cache")
    assert (files.layout, files.name, files.ratings.parent.name) == ("tab", "ml-100k", "grouplens")
    assert "could not be fetched from the wheel recbole==1.2.1: pip download failed: ERROR: no network" in caplog.text
    assert find_ml_100k(tmp_path / "cache").origin.startswith("the cache, fetched from file://")


def test_nothing_can_be_fetched(tmp_path, monkeypatch, wheel_files):
    fake_pip(monkeypatch, wheel_files, fails=True)
    monkeypatch.setattr(movielens_files, "ARCHIVE_URL", (tmp_path / "absent.zip").as_uri())
    with pytest.raises(
        DataError, match="could not be fetched .the wheel .*absent.zip.*pass its folder as `data_dir`, or"
    ):
        find_ml_100k(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "absent.zip").write_text("no zip")
    with pytest.raises(DataError, match="File is not a zip file"):
        find_ml_100k(tmp_path / "cache")
    with pytest.raises(OSError, match="no network"):
        fetch_wheel(tmp_path)
    with pytest.raises(zipfile.BadZipFile):
        fetch_archive(tmp_path)


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert movielens_files.default_cache_dir() == tmp_path / "seekrec" / "movielens"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert movielens_files.default_cache_dir() == Path.home() / ".cache" / "seekrec" / "movielens"
