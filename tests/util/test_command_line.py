# SPDX-License-Identifier: Apache-2.0
"""What a user can mend ends a command with one line; a mistake of the program keeps its traceback."""

import pytest

from seekrec.errors import ConfigurationError
from seekrec.util.command_line import one_line_errors


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigurationError("`seed` is 'a';\n  give a number."), "train: `seed` is 'a'; give a number."),
        (PermissionError(13, "Permission denied", "/srv/x"), "train: /srv/x: Permission denied"),
        (OSError("Cannot connect\nto the Hub"), "train: Cannot connect to the Hub"),
    ],
)
def test_one_line(error, line):
    with pytest.raises(SystemExit) as caught, one_line_errors("/some/where/train.py"):
        raise error
    assert caught.value.code == line


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), BrokenPipeError(32, "x"), SystemExit(3)])
def test_others_pass(error):
    with pytest.raises(type(error)), one_line_errors("train.py"):
        raise error
