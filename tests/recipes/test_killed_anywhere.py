# SPDX-License-Identifier: Apache-2.0
"""kill -9 in a tiny run over another: the old model or the new one, never neither, and started again it ends.

`SEEKREC_KILL_EVERY=1 python -m pytest -m slow tests/recipes/test_killed_anywhere.py` kills at every operation.
"""

import json
import os
import subprocess
import sys

import pytest
from tiny_runs import ROOT

EVERY = int(os.environ.get("SEEKREC_KILL_EVERY", "40"))


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("family", ["gensar", "gensr", "intsr", "synergen"])
def test_a_run_over_another_may_be_killed_anywhere(family):
    command = [sys.executable, str(ROOT / "tests/recipes/killed_runs.py"), family, "--every", str(EVERY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["kills"] == counts["ended as never stopped"] == -(-counts["file_operations"] // EVERY), done.stdout
    assert counts["neither"] == counts["leftovers"] == 0, done.stdout
