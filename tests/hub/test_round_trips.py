# SPDX-License-Identifier: Apache-2.0
"""Each kind of repository is pushed and loaded in processes of its own."""

import pytest
from round_trips import FAMILIES, round_trips


@pytest.mark.slow
def test_what_is_pushed_comes_back():
    found = {line["what"]: line for line in round_trips()}
    assert list(found) == [*(f"model me/{family}" for family in FAMILIES), "adapter me/adapter", "dataset me/log"]
    assert all(line["is_equal"] and line["bytes"] > 0 for line in found.values())
