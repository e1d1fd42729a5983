# SPDX-License-Identifier: Apache-2.0
"""End a command with a one-line message if the user can fix the error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seekrec.errors import SeekrecError

logger = logging.getLogger(__name__)


@contextmanager
def one_line_errors(script: str) -> Iterator[None]:
    """End the program with one line where an error of seekrec, or of the file system or network, reaches this block.

    The line names the script and goes to the standard error; the exit status is 1. The traceback is logged for those
    who set the level of logging to DEBUG. Every other exception is a bug of the program and is raised.

    Args:
        script (`str`): Path of the script.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except (SeekrecError, OSError) as error:
        logger.debug("Ended by this error:", exc_info=True)
        sys.exit(f"{Path(script).stem}: {one_line(error)}")


def one_line(error: SeekrecError | OSError) -> str:
    """Return what an error says, as one line."""
    message = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        message = f"{error.filename}: {error.strerror}"
    return " ".join(message.split())


__all__ = ["one_line", "one_line_errors"]
