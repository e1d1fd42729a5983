# SPDX-License-Identifier: Apache-2.0
"""Evaluate the same systems under other conditions: misspelled and reworded searches, and new items."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from seekrec.catalog import Catalog, item_periods
from seekrec.errors import CatalogError
from seekrec.evaluation.evaluator import evaluate_cases
from seekrec.evaluation.metrics import SELECTION_METRIC
from seekrec.evaluation.protocols import EvaluationCases, Retriever, Scorer, build_cases
from seekrec.evaluation.report import Comparison, ResultRow, compare
from seekrec.evaluation.systems import ModelRetriever, text_systems
from seekrec.events import ColdStart, Split
from seekrec.events.cases import case_hash
from seekrec.events.partitions import PartitionedSplit
from seekrec.schema import BEHAVIORS, SEARCH, Behavior, IdMap
from seekrec.training.budget import StageTime
from seekrec.util.text import fold_text

logger = logging.getLogger(__name__)


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
    positions = [position for position, character in enumerate(query) if character.isalpha()]
    for position in rng.permutation(positions).tolist():
        before, letter, after = query[:position], query[position], query[position + 1 :]
        swapped = before + after[:1] + letter + after[1:] if after[:1].isalpha() else query
        slips = [slip for slip in (before + after, before + 2 * letter + after, swapped) if slip not in (query, "")]
        if slips:
            return slips[int(rng.integers(len(slips)))]
    return query


def swap_words(query: str, seed: int = 0) -> str:
    """Type a query with two neighbouring words in the other order.

    Args:
        query (`str`): What was meant.
        seed (`int`): Seed of which two; the same query gets the same ones.

    Returns:
        `str`: The same text if it has one word.

    Example:
        >>> swap_words("romantic comedy")
        'comedy romantic'
    """
    words = query.split()
    if len(words) < 2:
        return query
    first = case_hash(seed, "swap", query) % (len(words) - 1)
    words[first : first + 2] = words[first + 1], words[first]
    return " ".join(words)


# The forms in which each search is asked, by their names in reports; a form takes the query and the seed.
QUERY_FORMS: Mapping[str, Callable[[str, int], str]] = {
    "as typed": lambda query, seed: query,
    "Title Case": lambda query, seed: query.title(),
    "UPPER CASE": lambda query, seed: query.upper(),
    "question mark": lambda query, seed: f"{query}?",
    "one typo": add_typo,
}
# Those that change some queries only; they are measured on request.
RARER_FORMS: Mapping[str, Callable[[str, int], str]] = {
    "no accents": lambda query, seed: fold_text(query, ("accents",)),
    "swapped words": swap_words,
}


def compare_query_forms(
    systems: Mapping[str, Scorer | Retriever],
    split: Split | PartitionedSplit,
    id_map: IdMap,
    cases: EvaluationCases,
    *,
    forms: Mapping[str, Callable[[str, int], str]] = QUERY_FORMS,
    seed: int = 0,
    show_progress: bool = True,
) -> list[ResultRow]:
    """Ask the same searches in several forms; what the history contains stays as it is.

    Args:
        systems (`Mapping[str, Scorer | Retriever]`): By their names in reports.
        split (`Split` or [`PartitionedSplit`]): Where the cases come from.
        id_map ([`IdMap`]): Items of the catalogue.
        cases ([`EvaluationCases`]): Searches.
        forms (`Mapping[str, Callable]`): Forms by name; one of the rarer that changes no query is left out.
        seed (`int`): Seed of the typos and the intervals.
        show_progress (`bool`): Show a progress bar for each row.

    Returns:
        `list[ResultRow]`: By system, then form: `"GenSAR, Title Case"`. All in one setting, whose protocol ends with
            `"query forms"`.
    """
    rows: list[ResultRow] = []
    for name, system in systems.items():
        if SEARCH not in system.behaviors:
            continue
        for form, change in forms.items():
            requests = [replace(request, query=change(request.query or "", seed)) for request in cases.requests]
            if form in RARER_FORMS and requests == cases.requests:
                continue
            asked = replace(cases, requests=requests, protocol=f"{cases.protocol}, query forms")
            own = {f"{name}, {form}": system}
            rows += evaluate_cases(own, asked, split, id_map, seed=seed, show_progress=show_progress)
    return rows


def form_losses(rows: Sequence[ResultRow], *, metric: str = SELECTION_METRIC, seed: int = 0) -> list[Comparison]:
    """Compare each form of [`compare_query_forms`] with the same searches as typed, in pairs.

    Args:
        rows (`Sequence[ResultRow]`): Its rows; others are passed over.
        metric (`str`): What is compared.
        seed (`int`): Seed of the resamples.

    Returns:
        `list[Comparison]`: The form less as typed, by system and form.
    """
    typed_name = next(iter(QUERY_FORMS))
    typed = {row.system.removesuffix(f", {typed_name}"): row for row in rows if row.system.endswith(f", {typed_name}")}
    pairs = [(row, typed.get(row.system.rpartition(", ")[0])) for row in rows]
    return [
        comparison
        for row, base in pairs
        if base is not None and base is not row and base.setting == row.setting
        for comparison in compare(row, base, metrics=(metric,), seed=seed)
    ]


def compare_on_new_items(
    systems: Mapping[str, ModelRetriever],
    cold: ColdStart,
    catalog: Catalog,
    *,
    behaviors: Sequence[Behavior] = BEHAVIORS,
    only_candidates: Collection[str] = (),
    with_baselines: bool = True,
    remove_seen: bool = True,
    available_only: bool = False,
    max_cases: int | None = None,
    seed: int,
    show_progress: bool = True,
    time: StageTime | None = None,
) -> list[ResultRow]:
    """Rank the test cases that look for new items, in full ranking: searches by what was typed, the others by taste.

    Items that were held out are added to the models by `add_items` first, and taken back afterwards.

    Args:
        systems (`Mapping[str, ModelRetriever]`): What was trained, by names in reports; all over `catalog`.
        cold ([`ColdStart`]): The new items and who asks for them.
        catalog ([`Catalog`]): What the systems were trained with.
        behaviors (`Sequence[str]`): Behaviors to evaluate.
        only_candidates (`Collection[str]`): Systems that cannot search the whole catalogue; they are left out.
        with_baselines (`bool`): Rank with BM25 and dense text, too.
        remove_seen (`bool`): Rule out the items of the history.
        available_only (`bool`): Rule out items that are not available when a request is made.
        max_cases (`int`, *optional*): Number of cases of each behavior.
        seed (`int`): Seed of the cases and intervals.
        show_progress (`bool`): Show progress bars.
        time ([`StageTime`], *optional*): What it may take; see [`evaluate_cases`].

    Returns:
        `list[ResultRow]`: Rows of BM25, dense text and the systems, with the protocol `"full, held-out items"`, or
        `"full, untrained items"` where the items were in the catalogue. Without the systems where their catalogue
        cannot grow; empty where nothing asks for new items.
    """
    asked = [behavior for behavior in behaviors if not cold.item_ids.isdisjoint(cold.split.targets("test", behavior))]
    if not asked:
        logger.info("No test target lacks training events; set `num_cold_items` to hold some out.")
        return []
    everyone = {name: system for name, system in systems.items() if name not in only_candidates}
    grown = catalog
    if cold.held_out:
        try:
            grown = catalog.add_items(cold.items)
        except CatalogError as error:
            logger.warning("New items are not evaluated: %s", error)
            return []
    baselines: Mapping[str, Scorer] = text_systems(grown) if with_baselines else {}
    kind = "held-out items" if cold.held_out else "untrained items"
    rows = []
    # What models have made of their own catalogue is theirs already.
    with nullcontext() if grown is catalog else answering_from(grown, list(everyone.values())):
        for number, behavior in enumerate(asked):
            own_time = None if time is None else time.part(1 / (len(asked) - number))
            if own_time is not None and own_time.seconds_left() <= 0:
                continue
            cases = build_cases(
                cold.split,
                grown.id_map,
                behavior=behavior,
                remove_seen=remove_seen,
                max_cases=max_cases,
                seed=seed,
                periods=item_periods(grown.items) if available_only else None,
                only_targets=cold.item_ids,
            )
            cases = replace(cases, protocol=f"{cases.protocol}, {kind}")
            everyone_here: dict[str, Scorer | Retriever] = {**baselines, **everyone}
            answering = {name: system for name, system in everyone_here.items() if behavior in system.behaviors}
            rows += evaluate_cases(
                answering, cases, cold.split, grown.id_map, time=own_time, seed=seed, show_progress=show_progress
            )
    for row in rows:
        if row.system in baselines:
            row.details["role"] = "baseline"
    return rows


@contextmanager
def answering_from(catalog: Catalog, systems: Sequence[ModelRetriever]) -> Iterator[None]:
    """Let models and their processors answer from a catalogue, and afterwards from the one they had before."""
    parts: list[Any] = [part for system in systems for part in (system.model, system.processor)]
    before = [part.catalog for part in parts]
    try:
        for part in parts:
            part.set_catalog(catalog)
        yield
    finally:
        for part, own in zip(parts, before, strict=True):
            part.set_catalog(own)


__all__ = [
    "QUERY_FORMS",
    "RARER_FORMS",
    "add_typo",
    "compare_on_new_items",
    "compare_query_forms",
    "form_losses",
    "swap_words",
]
