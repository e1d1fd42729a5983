# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

from hub_server import HubServer


def test_pushed_corpora_load_equal(tmp_path):
    with HubServer() as hub:
        script = Path(__file__).with_name("push_and_load.py")
        run = subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, **hub.environment(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        # Three recommendations and two clicked searches, in two draws of wordings.
        assert run.stdout.splitlines() == [
            "train nrip 3 True",
            "train nsip 2 True",
            "validation nrip 3 True",
            "validation nsip 2 True",
            "Corpus me/corpus has no part 'test'; choose one of those it was saved with.",
        ]
        assert hub.unknown == []
