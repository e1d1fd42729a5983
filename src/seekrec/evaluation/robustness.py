# SPDX-License-Identifier: Apache-2.0
"""The same searches as people type them: with capitals, a question mark, a typo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from seekrec.evaluation.evaluator import evaluate_system
from seekrec.evaluation.protocols import EvaluationCases, Retriever, Scorer
from seekrec.evaluation.report import ResultRow
from seekrec.events import Split
from seekrec.events.cases import case_hash
from seekrec.schema import SEARCH, IdMap


def add_typo(query: str, seed: int = 0) -> str:
    """Type a query with one slip: a letter left out, typed twice, or swapped with the next.

    Args:
        query (`str`): What was meant.
        seed (`int`): Seed of the slip; the same query gets the same one.

    Returns:
        `str`: Another text, unless the query has no letter.

    Example:
        >>> add_typo("romantic comedy"), add_typo("romantic comedy", seed=1)
        ('rmoantic comedy', 'romaantic comedy')
    """
    rng = np.random.default_rng(case_hash(seed, "typo", query))
    places = [place for place, sign in enumerate(query) if sign.isalpha()]
    for place in rng.permutation(places).tolist():
        before, letter, after = query[:place], query[place], query[place + 1 :]
        swapped = before + after[:1] + letter + after[1:] if after[:1].isalpha() else query
        slips = [slip for slip in (before + after, before + 2 * letter + after, swapped) if slip not in (query, "")]
        if slips:
            return slips[int(rng.integers(len(slips)))]
    return query


# The forms in which each search is asked, by their names in reports; a form is given the query and the seed.
QUERY_FORMS: Mapping[str, Callable[[str, int], str]] = {
    "as typed": lambda query, seed: query,
    "Title Case": lambda query, seed: query.title(),
    "UPPER CASE": lambda query, seed: query.upper(),
    "question mark": lambda query, seed: f"{query}?",
    "one typo": add_typo,
}


def compare_query_forms(
    systems: Mapping[str, Scorer | Retriever],
    split: Split,
    id_map: IdMap,
    cases: EvaluationCases,
    *,
    seed: int = 0,
    show_progress: bool = True,
) -> list[ResultRow]:
    """Ask the same searches in each of the [`QUERY_FORMS`]; what the history holds stays as it is.

    Args:
        systems (`Mapping[str, Scorer | Retriever]`): By their names in reports.
        split (`Split`): Where the cases come from.
        id_map ([`IdMap`]): Items of the catalogue.
        cases ([`EvaluationCases`]): Searches.
        seed (`int`): Seed of the typos and the intervals.
        show_progress (`bool`): Show a progress bar for each row.

    Returns:
        `list[ResultRow]`: By system, then form: `"GenSAR, Title Case"`. All in one setting, whose protocol ends with
            `"query forms"`.
    """
    rows = []
    for name, system in systems.items():
        if SEARCH not in system.behaviors:
            continue
        for form, change in QUERY_FORMS.items():
            requests = [replace(request, query=change(request.query or "", seed)) for request in cases.requests]
            asked = replace(cases, requests=requests, protocol=f"{cases.protocol}, query forms")
            rows.append(
                evaluate_system(
                    system,
                    split,
                    id_map,
                    name=f"{name}, {form}",
                    cases=asked,
                    seed=seed,
                    show_progress=show_progress,
                )
            )
    return rows


__all__ = ["QUERY_FORMS", "add_typo", "compare_query_forms"]
