# SPDX-License-Identifier: Apache-2.0
"""Several processes on one recipe: the stages before training are done by one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from accelerate import PartialState

# What tells a process that it is one of several.
_OF_A_GROUP = ("RANK", "LOCAL_", "WORLD_", "MASTER_", "GROUP_", "ROLE_", "TORCHELASTIC_", "ACCELERATE_")


def prepare_once(script: str, argv: Sequence[str]) -> None:
    """Let one process of several do the stages before training, outside the process group; the others wait.

    Args:
        script (`str`): Path of the recipe; it must know `--stop_after corpus`.
        argv (`Sequence[str]`): Its command line.
    """
    state = PartialState()
    if state.num_processes > 1:
        if state.is_main_process:
            alone = {name: value for name, value in os.environ.items() if not name.startswith(_OF_A_GROUP)}
            # A backend without a process group is an error.
            options = list(argv)
            if "--ddp_backend" in options:
                position = options.index("--ddp_backend")
                del options[position : position + 2]
            subprocess.run([sys.executable, script, *options, "--stop_after", "corpus"], check=True, env=alone)
        state.wait_for_everyone()


__all__ = ["prepare_once"]
