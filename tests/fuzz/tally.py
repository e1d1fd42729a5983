# SPDX-License-Identifier: Apache-2.0
"""Counts over all fuzzed cases: what was asked, what came of it."""

import functools
import os
import time
from contextlib import contextmanager

from hypothesis import HealthCheck, settings
from hypothesis.errors import StopTest, UnsatisfiedAssumption

from seekrec.errors import SeekrecError

# A case that takes longer hangs. pytest-timeout ends what never comes back.
SECONDS_OF_A_HANG = 30.0

# 1 asks all cases below, about 13,000; a fraction asks fewer.
SCALE = float(os.environ.get("SEEKREC_FUZZ_SCALE", "1"))


class Tally:
    """Cases by kind: those that gave an answer that was checked, and those that were refused by an error of ours."""

    def __init__(self):
        self.kinds = {}

    @contextmanager
    def case(self, kind):
        """Count one case; an error of ours is an answer, any other error goes on and fails the test."""
        counts = self.kinds.setdefault(kind, {"cases": 0, "checked": 0, "refused": 0, "hangs": 0})
        counts["cases"] += 1
        began = time.monotonic()
        try:
            yield
            counts["checked"] += 1
        except (StopTest, UnsatisfiedAssumption):
            counts["cases"] -= 1  # a draw that hypothesis gave up: nothing was asked
            raise
        except SeekrecError as error:
            assert str(error).strip(), f"{type(error).__name__} says nothing"
            counts["refused"] += 1
        finally:
            counts["hangs"] += time.monotonic() - began > SECONDS_OF_A_HANG

    def lines(self):
        """Say what was counted, a line a kind."""
        rows = {
            **self.kinds,
            "all": {
                name: sum(kind[name] for kind in self.kinds.values())
                for name in ("cases", "checked", "refused", "hangs")
            },
        }
        return [
            f"{kind}: " + ", ".join(f"{name} {count}" for name, count in counts.items())
            for kind, counts in rows.items()
        ]


TALLY = Tally()


def fuzzed(num_cases):
    """Ask so many cases, always the same ones."""
    return functools.partial(
        settings,
        max_examples=max(int(num_cases * SCALE), 1),
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )()
