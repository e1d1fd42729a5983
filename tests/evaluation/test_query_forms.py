# SPDX-License-Identifier: Apache-2.0
"""Searches as people type them: forms by hand, and a system that tells what it was asked."""

from __future__ import annotations

import numpy as np
import pytest

from seekrec.evaluation import QUERY_FORMS, add_typo, build_cases, compare_query_forms, format_table
from seekrec.schema import BEHAVIORS, SEARCH


class Literal:
    """Knows a query only as the log has it: then it ranks the target first, else it cannot tell items apart."""

    def __init__(self, cases, num_items):
        self.targets = {request.query: row for request, row in zip(cases.requests, cases.target_rows, strict=True)}
        self.num_items, self.asked = num_items, []
        self.behaviors = BEHAVIORS

    def score_all(self, requests):
        self.asked += [request.query for request in requests]
        scores = np.zeros((len(requests), self.num_items))
        for row, request in enumerate(requests):
            if request.query in self.targets:
                scores[row, self.targets[request.query]] = 1
        return scores


def test_forms_by_hand():
    assert list(QUERY_FORMS) == ["as typed", "Title Case", "UPPER CASE", "question mark", "one typo"]
    typed = {form: change("sci-fi kit", 3) for form, change in QUERY_FORMS.items()}
    assert typed["as typed"] == "sci-fi kit"
    assert (typed["Title Case"], typed["UPPER CASE"]) == ("Sci-Fi Kit", "SCI-FI KIT")
    assert typed["question mark"] == "sci-fi kit?"
    assert typed["one typo"] == add_typo("sci-fi kit", 3) != "sci-fi kit"


@pytest.mark.parametrize("query", ["romantic comedy", "kit", "ab", "a", "aa", "日本語", "vest 24-70", "Ünï"])
def test_a_typo_is_one_slip_of_a_letter(query):
    for seed in range(30):
        slipped = add_typo(query, seed)
        assert slipped == add_typo(query, seed)
        assert slipped not in (query, "")
        left_out = {query[:place] + query[place + 1 :] for place in range(len(query))}
        doubled = {query[: place + 1] + query[place:] for place in range(len(query))}
        swapped = {
            query[:place] + query[place + 1] + query[place] + query[place + 2 :] for place in range(len(query) - 1)
        }
        assert slipped in left_out | doubled | swapped
    assert len({add_typo(query, seed) for seed in range(30)}) > (len(query) > 1)


def test_a_query_without_letters_has_no_typo():
    assert add_typo("1/4") == "1/4"


def test_every_search_is_asked_in_every_form(toy_split, toy_id_map):
    cases = build_cases(toy_split, toy_id_map, behavior=SEARCH)
    system = Literal(cases, len(toy_id_map))
    rows = compare_query_forms({"literal": system}, toy_split, toy_id_map, cases, seed=1, show_progress=False)
    assert [row.system for row in rows] == [f"literal, {form}" for form in QUERY_FORMS]
    assert {row.protocol for row in rows} == {"full, query forms"}
    queries = [request.query for request in cases.requests]
    for number, change in enumerate(QUERY_FORMS.values()):
        asked = system.asked[number * len(queries) : (number + 1) * len(queries)]
        assert sorted(asked) == sorted(change(query, 1) for query in queries)
    assert rows[0].metrics["recall@1"] == 1
    # The three unseen items cannot be told apart.
    assert [row.metrics["recall@1"] for row in rows[1:]] == pytest.approx([1 / 3] * 4)
    table = format_table(rows)
    assert table.startswith("Search: toy, test, 2 cases, full ranking of 6 items, query forms, seen items removed")
    assert table.count("literal, ") == 5
