# SPDX-License-Identifier: Apache-2.0
"""The clock of a run begins with its first process."""

import os
import subprocess
import sys
import time

import pytest

from seekrec.util import clock
from seekrec.util.clock import process_seconds, run_environment

# The module alone, after a sleep in place of imports. The system tells to a second when a process began, so
# this one ends a second after it has asked.
ASKS = """
import runpy, sys, time
time.sleep(0.5)
print(runpy.run_path(sys.argv[1])["process_seconds"]())
time.sleep(1)
"""


def ask(environment):
    words = [sys.executable, "-c", ASKS, clock.__file__]
    return float(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)


def test_imports_count_and_a_process_goes_on_with_the_clock_of_the_one_that_started_it(monkeypatch):
    started = time.time()
    alone = ask(dict(os.environ))
    assert 0.4 < alone <= time.time() - started + 0.1
    monkeypatch.setattr("seekrec.util.clock._joined", [time.time() - 1000])
    assert process_seconds() == pytest.approx(1000, abs=1)
    passed = time.time() - started
    assert ask({**os.environ, **run_environment()}) == pytest.approx(1000 + passed, abs=1 + 2 * alone)
