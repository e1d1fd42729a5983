# SPDX-License-Identifier: Apache-2.0
"""From nothing to answers, on the simulated shop."""

from __future__ import annotations

import time

import pytest

from seekrec.recipes.quickstart import choose_user, minutes_after, run_quickstart
from seekrec.schema import Event, Request


def test_the_user_shown_has_both_tasks_and_a_middling_past():
    def ask(user, length):
        return Request(history=[Event(f"i{n}") for n in range(length)], user_id=user), "i0"

    asked = {
        "recommendation": {user: ask(user, length) for user, length in (("a", 1), ("b", 9), ("c", 5), ("d", 5))},
        "search": {user: ask(user, length) for user, length in (("b", 9), ("c", 5), ("a", 1), ("e", 6))},
    }
    assert choose_user(asked) == "c"


def test_a_machine_that_is_slow_to_start_gets_more_minutes():
    # Nearly two minutes had passed before the first line, of the 1.4 that it would have had.
    assert (minutes_after(0.2), minutes_after(1.8)) == (1.4, 6.8)


@pytest.mark.slow
def test_quickstart_trains_and_answers(tmp_path, capsys, monkeypatch):
    # The clock of a run counts from the start of its process, which here is that of all tests.
    monkeypatch.setattr("seekrec.util.clock._joined", [time.time()])
    run_quickstart(tmp_path / "run")
    text = capsys.readouterr().out
    for said in ("plan of intsr", "ndcg@10", "recommended by the model", "most likely in truth", "chosen by the user"):
        assert said in text
    assert (tmp_path / "run" / "settings.yaml").is_file()
