# SPDX-License-Identifier: Apache-2.0
"""Two servers over one store, killed while they are written to: see kills.py."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_killed_servers_lose_nothing_that_they_acknowledged(store):
    # A process of its own: servers are forked from it.
    command = [sys.executable, str(Path(__file__).with_name("kills.py")), "--store", store, "--kills", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
