# SPDX-License-Identifier: Apache-2.0
"""Stages of a recipe, cached by what they depend on.

A stage's folder is named after a hash of its settings and inputs. It is written under another name and renamed when
it is whole, so a folder that exists is finished. A killed stage finds its own unfinished folder again and may go on
from what it holds (a Trainer's checkpoints, for example).
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from seekrec.errors import ConfigurationError

logger = logging.getLogger(__name__)

T = TypeVar("T")
STAGE_FILE = "stage.json"


class StageCache:
    """Runs stages once.

    Args:
        folder (`str` or `Path`): Where the stages' folders are kept.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.seconds: dict[str, float] = {}

    def run(self, name: str, key: dict[str, Any], make: Callable[[Path], object], load: Callable[[Path], T]) -> T:
        """Give what a stage made, making it only if that has not been done.

        Args:
            name (`str`): Of the stage, for the folder and for people.
            key (`dict`): Everything the result depends on, as JSON values.
            make (`Callable`): Writes the result into the folder it is given.
            load (`Callable`): Reads the result from that folder.

        Returns:
            What `load` returns.

        Raises:
            ConfigurationError: If `key` cannot be written as JSON.
        """
        try:
            text = json.dumps(key, sort_keys=True)
        except TypeError as error:
            raise ConfigurationError(f"The key of stage {name!r} cannot be written as JSON: {error}") from error
        target = self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        started = time.monotonic()
        if (target / STAGE_FILE).is_file():
            self.seconds[name] = float(json.loads((target / STAGE_FILE).read_text())["seconds"])
            logger.info("%s: found in %s", name, target)
            return load(target)
        partial = target.with_name(f"{target.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        logger.info("%s ...", name)
        make(partial)
        self.seconds[name] = time.monotonic() - started
        record = {"name": name, "key": key, "seconds": self.seconds[name]}
        (partial / STAGE_FILE).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        logger.info("%s: %.1f s, kept in %s", name, self.seconds[name], target)
        return load(target)


__all__ = ["STAGE_FILE", "StageCache"]
