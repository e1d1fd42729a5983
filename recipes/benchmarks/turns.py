# SPDX-License-Identifier: Apache-2.0
"""Time the methods of a benchmark in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def time_in_turns(
    contenders: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the median seconds of each contender, of runs that take turns after one that does not count.

    Where other work shares the machine and nothing waits, `time.process_time` tells better what a run takes.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(repeats + 1):
        for name, run in contenders.items():
            begin = clock()
            run()
            if number:
                seconds[name].append(clock() - begin)
    return {name: statistics.median(own) for name, own in seconds.items()}
