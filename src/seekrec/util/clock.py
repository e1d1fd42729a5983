# SPDX-License-Identifier: Apache-2.0
"""The clock of a run: it starts with the first process, so imports and all child processes count."""

from __future__ import annotations

import os
import time

import psutil

# When a run began, in seconds since 1970, for the processes that one of its processes starts.
_BEGAN = "SEEKREC_RUN_BEGAN"
# When the runs began that this process has joined.
_joined: list[float] = []


def process_seconds() -> float:
    """Return the seconds since this process began, or since the run began that it belongs to."""
    return time.time() - _began()


def join_run(seconds: float) -> None:
    """Let the clock of this process be that of a run which has taken so many seconds."""
    _joined.append(time.time() - seconds)


def run_environment() -> dict[str, str]:
    """Return what the environment of a process holds that continues with this run."""
    return {_BEGAN: repr(_began())}


def share_of_core() -> float:
    """Return the share of a core that this process got since it began, from a tenth to 1."""
    return min(1.0, max(0.1, time.process_time() / max(1e-3, process_seconds())))


def _began() -> float:
    if _joined:
        return _joined[-1]
    started: float = psutil.Process().create_time()
    try:
        return min(started, float(os.environ.get(_BEGAN, "")))
    except ValueError:
        return started


__all__ = ["join_run", "process_seconds", "run_environment", "share_of_core"]
