# SPDX-License-Identifier: Apache-2.0
"""A process killed (SIGKILL) before one of its file operations, as if the power went off there."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}


def run_killed(function: Callable[[], None], kill_at: int) -> bool:
    """Run a function in a forked process that dies before its `kill_at`-th file operation, counted from 1.

    Returns:
        `bool`: Whether it was killed; False where it ended before.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside torch's idle threads
        child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event in _CHANGES or (event == "open" and _is_write_or_sync(arguments)):
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            sys.addaudithook(hook)
            function()
            status = 0
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), f"the function failed in the forked process ({code})"
    return code != 0


def _is_write_or_sync(arguments: tuple[Any, ...]) -> bool:
    path, mode, flags = arguments
    if not isinstance(flags, int) or str(path).startswith(("/proc", "/sys", "/dev")):
        return False
    # `os.open` gives no mode: with it files and folders are opened to be synced or locked.
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or mode is None
