# SPDX-License-Identifier: Apache-2.0
"""The clock of a run begins with its first process."""

import os
import subprocess
import sys
import time

import pytest

from seekrec.util.clock import process_seconds, run_environment

ASKS = "from seekrec.util.clock import process_seconds; print(process_seconds())"


def ask(environment):
    done = subprocess.run([sys.executable, "-c", ASKS], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_imports_count_and_a_process_goes_on_with_the_clock_of_the_one_that_started_it(monkeypatch):
    started = time.time()
    alone = ask(dict(os.environ))
    assert 0 < alone <= time.time() - started + 0.1
    monkeypatch.setattr("seekrec.util.clock._joined", [time.time() - 1000])
    assert process_seconds() == pytest.approx(1000, abs=1)
    passed = time.time() - started
    assert ask({**os.environ, **run_environment()}) == pytest.approx(1000 + passed, abs=1 + 2 * alone)
