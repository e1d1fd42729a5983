# SPDX-License-Identifier: Apache-2.0
"""Result rows written, read, printed and compared."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from seekrec.errors import DataError
from seekrec.evaluation import (
    Interval,
    ResultRow,
    all_metric_values,
    bootstrap_intervals,
    compare,
    format_table,
    read_results,
    write_results,
)

INF = float("inf")


def make_row(system="one", ranks=(1, 2, INF, 1), **changes):
    values = all_metric_values(list(ranks))
    row = ResultRow(
        system=system,
        dataset="toy",
        behavior="recommendation",
        part="test",
        protocol="full",
        split_method="leave_one_out",
        split_protocol="strict",
        split_fingerprint="0123456789abcdef",
        cases_fingerprint="fedcba",
        query_source="category",
        seen_removed=True,
        num_cases=len(ranks),
        num_items=4344,
        seed=0,
        seconds=1.25,
        metrics={name: float(column.mean()) for name, column in values.items()},
        intervals=bootstrap_intervals(values),
        details={"weight": 0.5},
        ranks=np.array([rank if isinstance(rank, tuple) else (rank, rank) for rank in ranks], dtype=np.float64),
    )
    return replace(row, **changes)


def test_results_survive_a_round_trip(tmp_path):
    path = tmp_path / "new" / "results.json"
    rows = [replace(row, ranks=None) for row in (make_row(), make_row("two", (3, 1, 1), behavior="search"))]
    write_results(path, rows)
    assert [entry.name for entry in path.parent.iterdir()] == ["results.json"]
    back = read_results(path)
    assert [row.to_dict() for row in back] == [row.to_dict() for row in rows]
    assert isinstance(back[0].intervals["ndcg@10"], Interval)
    assert back[0].ranks is None
    content = json.loads(path.read_text())
    assert content["results"][1]["behavior"] == "search"
    assert "ranks" not in content["results"][0]


def test_ranks_survive_beside_the_results(tmp_path):
    path = tmp_path / "results.json"
    rows = [make_row(), make_row("two", ((3, 3), (1, 2), (1, 1)))]
    write_results(path, rows)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["results.json", "results.ranks.parquet"]
    back = read_results(path)
    assert [row.ranks.tolist() for row in back] == [[[1, 1], [2, 2], [INF, INF], [1, 1]], [[3, 3], [1, 2], [1, 1]]]
    write_results(path, [])
    assert read_results(path) == []


def test_rows_without_ranks_cannot_save_them(tmp_path):
    with pytest.raises(DataError, match=r"row of 'one' \(recommendation, full\) has no ranks"):
        write_results(tmp_path / "results.json", [make_row(ranks=(1,)), replace(make_row(), ranks=None)])
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_old_results(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, [make_row()])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_results(path, [make_row(seconds=INF)])
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["results.json", "results.ranks.parquet"]


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '{"results": []}'])
def test_file_that_holds_no_results_is_refused(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"results.json does not hold results"):
        read_results(path)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"absent.json does not hold results .*FileNotFoundError"):
        read_results(tmp_path / "absent.json")


def test_other_version_and_other_fields_are_refused(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, [make_row()])
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "version": 99}))
    with pytest.raises(DataError, match="has version 99, this package reads 2"):
        read_results(path)
    del content["results"][0]["seed"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="result 0 has the wrong fields, such as 'seed'"):
        read_results(path)


def test_ranks_of_another_run_are_refused(tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    write_results(one, [make_row()])
    write_results(two, [make_row(ranks=(1, 1, 1, 1))])
    (tmp_path / "two.ranks.parquet").replace(tmp_path / "one.ranks.parquet")
    with pytest.raises(DataError, match=r"one.ranks.parquet belong to other results"):
        read_results(one)
    with pytest.raises(DataError, match=r"two.ranks.parquet, which does not exist"):
        read_results(two)


def test_table_by_hand():
    # The same cases for both; ndcg@10 of "one": (1 + 1 / log2(3) + 0 + 1) / 4 = 0.6577; of "second" 1, 1, 1, 0: 0.75.
    rows = [
        make_row(intervals={"ndcg@10": Interval(0.25, 1.0)}),
        make_row("second", (1, 1, 1, INF), intervals={"ndcg@10": Interval(0.5, 1.0)}, seconds=12.04),
    ]
    expected = """
Recommendation: toy, test, 4 cases, full ranking of 4,344 items, seen items removed
split: leave_one_out, strict, 0123456789ab; cases fedcba
system  recall@10   ndcg@10    95% interval  seconds
----------------------------------------------------
one        0.7500*   0.6577   0.2500-1.0000      1.2
second     0.7500*   0.7500*  0.5000-1.0000     12.0
"""
    assert format_table(rows, metrics=("recall@10", "ndcg@10")) == expected.strip()


def test_table_has_a_section_for_each_setting():
    rows = [
        make_row(),
        make_row("searcher", behavior="search"),
        make_row("other", seen_removed=False),
        make_row("sampled", protocol="uniform-99"),
        make_row("logged", behavior="search", query_source="logged", split_protocol="paper"),
        make_row("last"),
    ]
    sections = format_table(rows).split("\n\n")
    assert len(sections) == 5
    assert "last" in sections[0] and "searcher" not in sections[0]
    assert sections[1].startswith("Search (synthetic queries): toy")
    assert "seen items kept" in sections[2]
    assert "uniform-99" in sections[3] and "full ranking" not in sections[3]
    assert sections[4].startswith("Search: toy") and "paper" in sections[4]
    assert "synthetic" not in sections[0]


def test_table_shows_missing_metrics_as_a_dash():
    rows = [make_row(metrics={"recall@10": 0.5}, intervals={})]
    lines = format_table(rows, metrics=("recall@10", "ndcg@10")).splitlines()
    assert lines[-1].split() == ["one", "0.5000*", "-", "-", "1.2"]
    assert format_table([]) == ""


def test_compare_pairs_rows_of_one_setting():
    one, two = make_row("one", (1, 1, 1, 2)), make_row("two", (2, 1, INF, 1))
    elsewhere = make_row("two", (1, 1, 1, 1), behavior="search")
    comparisons = compare([one], [elsewhere, two], metrics=("recall@1", "mrr@10"))
    assert [entry.metric for entry in comparisons] == ["recall@1", "mrr@10"]
    first, second = comparisons
    assert (first.system_a, first.system_b, first.behavior, first.num_cases) == ("one", "two", "recommendation", 4)
    assert (first.value_a, first.value_b) == (3 / 4, 2 / 4)
    assert first.difference == 1 / 4
    assert second.difference == pytest.approx((1 / 2 + 0 + 1 - 1 / 2) / 4)
    assert first.interval.low <= first.difference <= first.interval.high
    assert str(first).startswith("one - two, recommendation, full, recall@1: 0.7500 - 0.5000 = +0.2500 [")
    assert str(first).endswith(f"p = {first.p_value:.4f}, 4 cases")
    assert json.loads(json.dumps(first.to_dict()))["interval"] == list(first.interval)


def test_single_rows_can_be_compared():
    (comparison,) = compare(make_row("one"), make_row("two"))
    assert (comparison.metric, comparison.difference, comparison.p_value) == ("ndcg@10", 0, 1)


@pytest.mark.parametrize("changes", [{"cases_fingerprint": "x"}, {"split_fingerprint": "x"}, {"seen_removed": False}])
def test_rows_on_other_cases_are_not_compared(changes):
    with pytest.raises(DataError, match=r"No row of \['one'\] was measured on the same cases as one of \['two'\]"):
        compare(make_row("one"), make_row("two", **changes))


def test_comparison_needs_ranks():
    with pytest.raises(DataError, match="row of 'two' .* has no ranks; evaluate again"):
        compare(make_row("one"), replace(make_row("two"), ranks=None))


def test_the_strongest_baseline_is_named_and_bounds_are_explained():
    assert "strongest" not in format_table([make_row()])
    roles = {"BM25": "baseline", "SASRec": "baseline", "group": "ceiling", "SASRec less draws": "correction"}
    named = [
        make_row(name, details={"role": role}, metrics={"ndcg@10": number / 10})
        for number, (name, role) in enumerate(roles.items())
    ]
    *_, strongest, ceiling, correction = format_table([make_row(), *named]).splitlines()
    assert strongest == "The strongest baseline is SASRec: ndcg@10 0.1000."
    assert ceiling.startswith("group is told which items")
    assert 'rows "less draws"' in correction
