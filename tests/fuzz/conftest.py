# SPDX-License-Identifier: Apache-2.0
"""Fuzzing of what comes from outside: requests, files, settings, folders. `pytest -m fuzz tests/fuzz`."""

from pathlib import Path

import pytest
from tally import TALLY


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.fuzz)
            item.add_marker(pytest.mark.timeout(3000))


def pytest_terminal_summary(terminalreporter):
    if TALLY.kinds:
        terminalreporter.section("fuzz")
        for line in TALLY.lines():
            terminalreporter.write_line(line)
