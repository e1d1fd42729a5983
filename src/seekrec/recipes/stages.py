# SPDX-License-Identifier: Apache-2.0
"""Stages of a recipe, cached by what they depend on.

A stage's folder is named after a hash of its settings and inputs. It is written under another name and renamed when
it is whole; `stage.json` holds the SHA-256 of every file in it, and a folder that does not agree is made again. A
killed stage finds its own unfinished folder again and may go on from what it holds (a Trainer's checkpoints, for
example). Several recipes may share a folder of stages: one makes a stage while the others wait for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict, TypeVar

from seekrec.errors import ConfigurationError, FolderInUseError
from seekrec.util.files import lock_folder, sweep_folder, write_json
from seekrec.util.hashing import file_sha256

logger = logging.getLogger(__name__)

T = TypeVar("T")


class StageRecord(TypedDict):
    """Content of `stage.json`: the key of a stage, its duration, and the SHA-256 of each of its files."""

    name: str
    key: dict[str, object]
    seconds: float
    files: dict[str, str]


STAGE_FILE = "stage.json"
# Folder of a stage that trains: its checkpoints, of use only to a killed stage.
TRAINING_FOLDER = "training"
# Raised when this package makes something else of the same settings and inputs: what was made before is not found.
STAGE_VERSION = 2
_SECONDS_BETWEEN_LOOKS = 0.2


class StageCache:
    """Runs stages once.

    Args:
        folder (`str` or `Path`): Folder of the stages' folders.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.seconds: dict[str, float] = {}

    def run(
        self,
        name: str,
        key: Mapping[str, object],
        make: Callable[[Path], object],
        load: Callable[[Path], T],
        *,
        libraries: Sequence[str] = (),
    ) -> T:
        """Return the result of a stage, running it only if that was not done before or its files were damaged since.

        Args:
            name (`str`): Name of the stage, for the folder and for people.
            key (`dict`): Everything the result depends on, as JSON values: contents, not paths.
            make (`Callable`):
                Writes the result into the folder it is given; checkpoints go into its `TRAINING_FOLDER`, which is
                deleted at the end.
            load (`Callable`): Reads the result from that folder.
            libraries (`Sequence[str]`): Packages whose numbers the result is; another minor version makes it anew.

        Returns:
            What `load` returns.

        Raises:
            ConfigurationError: If `key` cannot be written as JSON.
        """
        versions = {library: ".".join(version(library).split(".")[:2]) for library in libraries}
        whole_key = {**key, "stage_version": STAGE_VERSION, "libraries": versions}
        try:
            text = json.dumps(whole_key, sort_keys=True)
        except TypeError as error:
            raise ConfigurationError(f"The key of stage {name!r} cannot be written as JSON: {error}") from error
        target = self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        with self._alone():
            record = _read_whole(target)
            if record is None:
                record = self._make(name, whole_key, target, make)
            else:
                logger.info("%s: found in %s", name, target)
        self.seconds[name] = float(record["seconds"])
        return load(target)

    def _make(self, name: str, key: Mapping[str, object], target: Path, make: Callable[[Path], object]) -> StageRecord:
        partial = target.with_name(f"{target.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        # Killed between the last file and the name: all is there.
        record = _read_whole(partial)
        if record is None:
            logger.info("%s ...", name)
            started = time.monotonic()
            make(partial)
            record = {
                "name": name,
                "key": dict(key),
                "seconds": time.monotonic() - started,
                "files": _digests(partial),
            }
            write_json(partial / STAGE_FILE, record, sort_keys=True)
        sweep_folder(partial)
        # Only now: a stage that is killed while they go has its result already.
        for folder in partial.glob(f"{TRAINING_FOLDER}*"):
            shutil.rmtree(folder)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        logger.info("%s: %.1f s, kept in %s", name, record["seconds"], target)
        return record

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder of stages; wait while another process does."""
        waits = False
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(lock_folder(self.folder))
                    break
                except FolderInUseError:
                    if not waits:
                        logger.info("Another process makes a stage in %s; waiting for it.", self.folder)
                    waits = True
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
            yield


def _read_whole(folder: Path) -> StageRecord | None:
    """Return the record of a stage; `None` where there is none, or its files are not those that were made."""
    if not (folder / STAGE_FILE).exists():
        if folder.is_dir() and folder.suffix != ".partial":
            logger.warning("%s has no %s; it is made again.", folder, STAGE_FILE)
        return None
    try:
        record: StageRecord = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))
        float(record["seconds"])
        damaged = [name for name, digest in record["files"].items() if not _is_file_of(folder / name, digest)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s is damaged (%s); the stage is made again.", folder / STAGE_FILE, error)
        return None
    if damaged:
        logger.warning("%s was cut, changed or removed since it was made; it is made again.", folder / damaged[0])
        return None
    return record


def _is_file_of(path: Path, digest: str) -> bool:
    return path.is_file() and file_sha256(path) == digest


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path; checkpoints do not belong to the result."""
    files = sorted(
        path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name != STAGE_FILE
    )
    kept = [path for path in files if not path.parts[0].startswith(TRAINING_FOLDER)]
    return {path.as_posix(): file_sha256(folder / path) for path in kept}


__all__ = ["STAGE_FILE", "TRAINING_FOLDER", "StageCache"]
