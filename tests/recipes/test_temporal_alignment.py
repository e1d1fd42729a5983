# SPDX-License-Identifier: Apache-2.0
"""The log in which items appear and vanish, and the table that is made with it."""

import json
import runpy

import numpy as np
import pytest
from tiny_data import write_encoder
from tiny_runs import ROOT

from seekrec.catalog import item_periods
from seekrec.errors import ConfigurationError
from seekrec.events import read_tables


@pytest.fixture
def alignment():
    return runpy.run_path(str(ROOT / "recipes" / "temporal_alignment.py"))


def test_the_simulated_log_keeps_to_what_is_available(alignment, tmp_path):
    paths = alignment["write_simulated_log"](tmp_path / "log", 200, 60, seed=1)
    log = read_tables(paths["events"], paths["items"])
    row_of = {item: row for row, item in enumerate(log.items["item_id"].to_pylist())}
    rows = np.array([row_of[item] for item in log.events["item_id"].to_pylist()])
    times = log.events["timestamp"].to_numpy()
    begins, ends = item_periods(log.items)
    assert ((begins[rows] <= times) & (times < ends[rows])).all()
    # Both tasks, and at no time is everything available.
    queries = log.events["query"].to_pylist()
    assert 0.4 < np.mean([query is not None for query in queries]) < 0.6
    shares = [np.mean((begins <= time) & (time < ends)) for time in times[::50]]
    assert 0.05 < min(shares) and max(shares) < 0.4
    # A query names the kind of what was taken.
    titles = log.items["title"].to_pylist()
    assert all(query == titles[row].split()[0] for query, row in zip(queries, rows, strict=True) if query)
    # The seed decides.
    again = alignment["write_simulated_log"](tmp_path / "again", 200, 60, seed=1)
    assert read_tables(again["events"], again["items"]).events.equals(log.events)


def test_unknown_logs_and_negatives_are_refused(alignment):
    for name, known in (("logs", "simulated, movielens"), ("negatives", "uniform, popularity, hard")):
        arguments = alignment["AlignmentArguments"](**{name: ["amazon"]})
        with pytest.raises(ConfigurationError, match=f"`{name}` has 'amazon'; use some of {known}"):
            alignment["main"](arguments, [])


@pytest.mark.slow
def test_models_are_trained_and_compared(alignment, tmp_path, capsys):
    arguments = alignment["AlignmentArguments"](
        logs=["simulated"], output_dir=str(tmp_path / "runs"), num_items=100, num_users=40, num_train_epochs=1.0
    )
    alignment["main"](arguments, ["--semantic_encoder", str(write_encoder(tmp_path)), "--use_cpu", "true"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(line["negatives"], line["behavior"]) for line in lines} == {
        (kind, behavior) for kind in ("uniform", "popularity", "hard") for behavior in ("recommendation", "search")
    }
    assert all(line["protocol"].startswith("full, available") for line in lines)
