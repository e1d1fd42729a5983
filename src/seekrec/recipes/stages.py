# SPDX-License-Identifier: Apache-2.0
"""Run the stages of a recipe, cached by what they depend on.

A stage's folder is named after a hash of its settings and inputs. It is written under another name and renamed when
complete; `stage.json` contains the SHA-256 of every file in it, and a folder that does not match is made again. A
killed stage finds its own unfinished folder again and may resume from its contents (a Trainer's checkpoints, for
example). Several recipes may share a folder of stages: one makes a stage while the others wait for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NotRequired, TypedDict, TypeVar

from seekrec.errors import ConfigurationError, FolderInUseError
from seekrec.recipes.arguments import RunArguments
from seekrec.training.budget import StageTime
from seekrec.util.clock import process_seconds, share_of_core
from seekrec.util.files import lock_folder, sweep_folder, write_json
from seekrec.util.hashing import file_sha256

logger = logging.getLogger(__name__)

T = TypeVar("T")


class StageRecord(TypedDict):
    """Content of `stage.json`: the key of a stage, its duration, the SHA-256 of each of its files.

    And what there was no time for, where a clock ended it, in a run of so many seconds.
    """

    name: str
    key: dict[str, object]
    seconds: float
    files: dict[str, str]
    left_out: NotRequired[str | None]
    run_seconds: NotRequired[float | None]


STAGE_FILE = "stage.json"
# Folder of a stage that trains: its checkpoints, of use only to a killed stage.
TRAINING_FOLDER = "training"
# Raised when this package makes something else of the same settings and inputs: what was made before is not found.
STAGE_VERSION = 4
_SECONDS_BETWEEN_LOOKS = 0.2
# Of what is left of a run with a budget, so much may go into a stage that can be ended before it is done.
SHARE_OF_A_STAGE = 0.25
# Of what follows the stages: how many times as long as reading and splitting it takes, and seconds besides.
_TIMES_OF_READING, _LEAST_SECONDS = 1.5, 6.0


class StageCache:
    """Runs stages once.

    Args:
        folder (`str` or `Path`): Folder of the stages' folders.
        max_minutes (`float`, *optional*): Minutes of the whole run.
        clock (`Callable`): Returns the seconds of the run.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        max_minutes: float | None = None,
        clock: Callable[[], float] = process_seconds,
    ) -> None:
        self.folder, self.max_minutes, self.clock = Path(folder), max_minutes, clock
        self.began = clock()
        # Seconds that what follows the stages takes at least.
        self.reserve = 0.0
        self.seconds: dict[str, float] = {}
        self.left_out: dict[str, str] = {}

    def make_time(self) -> StageTime | None:
        """Return the time of a stage that begins now: a share of what is left; `None` where it may take any."""
        if self.max_minutes is None:
            return None
        seconds = SHARE_OF_A_STAGE * (self.seconds_left() - self.reserve)
        return StageTime(seconds, 60 * self.max_minutes, self.clock)

    def seconds_left(self) -> float:
        """Return the seconds that are left of the run; infinite without a limit."""
        return math.inf if self.max_minutes is None else 60 * self.max_minutes - self.clock()

    def set_reserve(self, when: str) -> None:
        """Reserve time for what follows the stages, before and after the log is read and split.

        What follows goes through the log again, and loads and saves, so it takes at least as long in proportion: on
        this machine, as busy as it is.

        Args:
            when (`str`): What has been done so far, for the message.

        Raises:
            ConfigurationError: If not even half of that is left.
        """
        if self.max_minutes is None:
            return
        self.reserve = _TIMES_OF_READING * (self.clock() - self.began) + _LEAST_SECONDS / share_of_core()
        if self.seconds_left() < self.reserve / 2:
            needed = math.ceil((self.clock() + self.reserve) / 6) / 10
            raise ConfigurationError(
                f"`max_minutes` is {self.max_minutes:g}, but {self.clock() / 60:.1f} minutes had passed when {when}; "
                f"give at least {needed:g}, or leave it out."
            )

    def leave_out(self, name: str, what: str) -> None:
        """Note for the record of the run what there was no time for."""
        self.left_out[name] = what
        logger.warning("%s: there was no time for %s, of a run of %g minutes.", name, what, self.max_minutes)

    def note(self, name: str, time: StageTime | None) -> None:
        """Note for the record of the run what a stage left out for want of time."""
        if time is not None and time.left_out is not None:
            self.leave_out(name, time.left_out)

    def run(
        self,
        name: str,
        key: Mapping[str, object],
        make: Callable[[Path], object],
        load: Callable[[Path], T],
        *,
        libraries: Sequence[str] = (),
        time: StageTime | None = None,
    ) -> T:
        """Return the result of a stage, running it only if that was not done before or its files were damaged since.

        What the clock has cut short has a key of its own: only runs of as many minutes find it, as long as there is
        none that is whole.

        Args:
            name (`str`): Name of the stage, for the folder and for people.
            key (`dict`): Everything the result depends on, as JSON values: contents, not paths.
            make (`Callable`):
                Writes the result into the folder it is given; checkpoints go into its `TRAINING_FOLDER`, which is
                deleted at the end.
            load (`Callable`): Reads the result from that folder.
            libraries (`Sequence[str]`): Packages whose numbers the result is; another minor version makes it again.
            time ([`StageTime`], *optional*): What `make` is given and ends by; what it left out is noted there.

        Returns:
            What `load` returns.

        Raises:
            ConfigurationError: If `key` cannot be written as JSON.
        """
        versions = {library: ".".join(version(library).split(".")[:2]) for library in libraries}
        whole_key = {**key, "stage_version": STAGE_VERSION, "libraries": versions}
        target = self._folder_of(name, whole_key)
        places = [target]
        if time is not None:
            places.append(self._folder_of(name, {**whole_key, "run_seconds": time.run_seconds}))
        with self._alone():
            found = ((place, record) for place in places if (record := _read_whole(place)) is not None)
            place, record = next(found, (target, None))
            if record is None:
                record = self._make(name, whole_key, places, make, time)
                place = places[-1 if record.get("left_out") else 0]
            else:
                logger.info("%s: found in %s", name, place)
        self.seconds[name] = float(record["seconds"])
        if time is not None:
            time.left_out = record.get("left_out")
        self.note(name, time)
        return load(place)

    def _folder_of(self, name: str, key: Mapping[str, object]) -> Path:
        try:
            text = json.dumps(key, sort_keys=True)
        except TypeError as error:
            raise ConfigurationError(f"The key of stage {name!r} cannot be written as JSON: {error}") from error
        return self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def _make(
        self,
        name: str,
        key: Mapping[str, object],
        places: Sequence[Path],
        make: Callable[[Path], object],
        limit: StageTime | None,
    ) -> StageRecord:
        target = places[0]
        partial = target.with_name(f"{target.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        # Killed between the last file and the name: all is there, unless a clock ended it that is not this run's.
        record = _read_whole(partial)
        if record is not None and record.get("left_out"):
            if limit is None or record.get("run_seconds") != limit.run_seconds:
                record = None
                shutil.rmtree(partial)
                partial.mkdir()
        if record is None:
            logger.info("%s ...", name)
            started = time.monotonic()
            make(partial)
            record = {
                "name": name,
                "key": dict(key),
                "seconds": time.monotonic() - started,
                "files": _digests(partial),
                "left_out": None if limit is None else limit.left_out,
                "run_seconds": None if limit is None else limit.run_seconds,
            }
            write_json(partial / STAGE_FILE, record, sort_keys=True)
        sweep_folder(partial)
        target = places[-1 if record.get("left_out") else 0]
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
                        logger.info("Another process is working on a stage in %s; waiting for it.", self.folder)
                    waits = True
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
            yield


def open_stages(running: RunArguments, output_dir: Path) -> StageCache:
    """Return the stages of a run: those of the folder that it names, or its own.

    Args:
        running ([`RunArguments`]): `stages_dir`, and the minutes that the run may take.
        output_dir (`Path`): Folder of the run.
    """
    return StageCache(running.stages_dir or output_dir / "stages", max_minutes=running.max_minutes)


def _read_whole(folder: Path) -> StageRecord | None:
    """Return the record of a stage; `None` where there is none, or its files are not those that were made."""
    if not (folder / STAGE_FILE).exists():
        if folder.is_dir() and folder.suffix != ".partial":
            logger.warning("%s has no %s; redoing the stage.", folder, STAGE_FILE)
        return None
    try:
        record: StageRecord = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))
        float(record["seconds"])
        damaged = [name for name, digest in record["files"].items() if not _is_file_of(folder / name, digest)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s is damaged (%s); redoing the stage.", folder / STAGE_FILE, error)
        return None
    if damaged:
        logger.warning(
            "%s was truncated, changed or removed since it was written; redoing the stage.", folder / damaged[0]
        )
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


__all__ = ["SHARE_OF_A_STAGE", "STAGE_FILE", "TRAINING_FOLDER", "StageCache", "open_stages"]
