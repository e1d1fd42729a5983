# SPDX-License-Identifier: Apache-2.0
"""Evaluate a recipe: the model on validation during training, and all systems on the test at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from seekrec.catalog import Catalog, item_periods
from seekrec.embeddings import NeighborTables
from seekrec.evaluation.baselines import Popularity
from seekrec.evaluation.conditions import QUERY_FORMS, RARER_FORMS, compare_query_forms
from seekrec.evaluation.measures import measure_rows
from seekrec.evaluation.more_baselines import answers_protocol, more_baseline_systems, role_of
from seekrec.evaluation.partition_cases import PartitionCases
from seekrec.evaluation.partition_lists import measure_partitions
from seekrec.evaluation.partitioned import evaluate_partitions
from seekrec.evaluation.protocols import RankingProtocol, Retriever, Scorer, build_cases
from seekrec.evaluation.report import NUM_IN_ALL, ResultRow
from seekrec.evaluation.tables import evaluate_systems
from seekrec.evaluation.tuning import Tuning
from seekrec.events import Split
from seekrec.events.columns import RowArray
from seekrec.events.partitions import PartitionedSplit
from seekrec.events.partitions.engines import Engine
from seekrec.events.query_log import QueryLog
from seekrec.recipes.arguments import EvaluationArguments
from seekrec.recipes.compared_models import load_others
from seekrec.schema import BEHAVIORS, SEARCH, Behavior
from seekrec.training.budget import PartTimes

logger = logging.getLogger(__name__)

# Searches that are evaluated in every form: few enough for five rankings, and differences are paired.
MAX_QUERY_FORM_CASES = 300
# Parts of a test alongside the tables, which go by the names of their protocols: what a clock is asked for them.
QUERY_FORM_PART, MEASURE_PART, NEW_ITEM_PART, CALIBRATION_PART = "query forms", "lists", "new items", "calibration"


def compare_on_test(
    systems: Mapping[str, Scorer | Retriever],
    split: Split | PartitionedSplit,
    catalog: Catalog,
    settings: EvaluationArguments,
    *,
    make_baselines: Callable[[Tuning], Mapping[str, Scorer]],
    tuned_on: Split | None = None,
    counts: np.ndarray | None = None,
    train_sampled: Callable[[], Scorer] | None = None,
    count_neighbors: Callable[[], NeighborTables] | None = None,
    relearn: Callable[[Mapping[str, Scorer]], dict[str, Scorer]] | None = None,
    beside: Mapping[str, Scorer | Retriever] | None = None,
    behaviors: Sequence[Behavior] = BEHAVIORS,
    only_candidates: Collection[str] = (),
    remove_seen: bool = True,
    available_only: bool = False,
    num_beams: int = 50,
    seed: int,
    show_progress: bool = True,
    scratch: Path | None = None,
    engine: Engine = "local",
    time: PartTimes | None = None,
) -> list[ResultRow]:
    """Rank the test cases with all systems: the whole catalogue, then the candidate protocols of the settings.

    With baselines the searches are also asked as people type them, of the systems and of BM25, a sample of them: see
    [`compare_query_forms`]. `measures` of the settings adds what `measures.py` says. Of a log in partitions the cases
    are the same.

    Args:
        systems (`Mapping[str, Scorer or Retriever]`): Trained systems by their names in tables.
        split (`Split` or [`PartitionedSplit`]): The split.
        catalog ([`Catalog`]): Its items.
        settings ([`EvaluationArguments`]): Protocols, and saved models for the table.
        make_baselines (`Callable`): Makes the baselines, if the settings ask for them, tuned on the cases it gets.
        tuned_on (`Split`, *optional*): Its validation cases tune baselines; those of `split` if not given, and of a
            log in partitions none.
        counts (`np.ndarray`, *optional*): Of a log in partitions, interactions of each item in training.
        train_sampled (`Callable`, *optional*): Trains the baseline `sampled_sasrec`.
        count_neighbors (`Callable`, *optional*): See [`more_baseline_systems`].
        relearn (`Callable`, *optional*): Returns baselines, as they were tuned, that have learned from more events.
        beside (`Mapping[str, Scorer or Retriever]`, *optional*): Further systems, whose searches are not asked in
            other forms.
        behaviors (`Sequence[str]`): Behaviors that are evaluated.
        only_candidates (`Collection[str]`): Systems that order candidates and cannot search the whole catalogue.
        remove_seen (`bool`): Rule out the items of the history in full ranking.
        available_only (`bool`): In full ranking, rule out items that are not available when a request is made.
        num_beams (`int`): Beam width of saved models that write identifiers.
        seed (`int`): Seed of the cases, negatives and intervals.
        show_progress (`bool`): Show progress bars.
        scratch (`Path`, *optional*): Of a log in partitions, where ranks are kept until all are there.
        engine (`str`): Where partitions are ranked.
        time ([`PartTimes`], *optional*): What it may take.

    Returns:
        `list[ResultRow]`: By protocol, then behavior, then system; then the forms of queries, then groups of cases.
    """
    others = load_others(settings.compare_with, split, catalog, num_beams)
    only_candidates = {*only_candidates, *(name for name, one in others.items() if not one.searches_all)}
    periods = item_periods(catalog.items) if available_only else None
    baselines: dict[str, Scorer] = {}
    if tuned_on is None and isinstance(split, Split):
        tuned_on = split
    if settings.has_baselines and tuned_on is not None:
        tuning = Tuning(
            tuned_on,
            catalog.id_map,
            settings.candidate_protocols,
            num_negatives=settings.num_negatives,
            remove_seen=remove_seen,
            periods=periods,
            counts=counts,
            seed=seed,
        )
        baselines.update(make_baselines(tuning))
        baselines |= more_baseline_systems(
            settings.more_baselines,
            tuning,
            baselines,
            train_sampled=train_sampled,
            count_neighbors=count_neighbors,
            whole=split if isinstance(split, PartitionedSplit) else None,
        )
        baselines = baselines if relearn is None else relearn(baselines)
    saved = {name: one.system for name, one in others.items()}
    everyone: dict[str, Scorer | Retriever] = {**baselines, **saved, **(beside or {}), **systems}
    rows: list[ResultRow] = []
    everything: tuple[RankingProtocol, ...] = ("full", *settings.candidate_protocols)
    asked_by = {
        protocol: {
            name: system
            for name, system in everyone.items()
            if (protocol != "full" or name not in only_candidates) and answers_protocol(system, protocol)
        }
        for protocol in everything
    }
    together: list[tuple[RankingProtocol, ...]] = [(protocol,) for protocol in everything]
    parts = None
    if isinstance(split, PartitionedSplit):
        parts = PartitionCases(
            split,
            catalog.id_map,
            num_negatives=settings.num_negatives,
            remove_seen=remove_seen,
            seed=seed,
            periods=periods,
            counts=counts,
        )
        # Each partition is read once for all protocols that ask the same systems.
        same = (tuple(one for one in everything if [*asked_by[one]] == [*asked_by[first]]) for first in everything)
        together = list(dict.fromkeys(same))
    for protocols in together:
        shares = [] if time is None else [time.take(protocol) for protocol in protocols]
        if isinstance(split, Split):
            rows += evaluate_systems(
                asked_by[protocols[0]],
                split,
                catalog.id_map,
                behaviors=behaviors,
                protocols=protocols,
                num_negatives=settings.num_negatives,
                remove_seen=remove_seen,
                max_cases=settings.max_test_cases,
                seed=seed,
                periods=periods,
                show_progress=show_progress,
                time=shares[0] if shares else None,
            )
        elif time is not None and time.seconds_left() <= 0:
            shares[0].left_out = "any case"
        elif parts is not None:
            rows += evaluate_partitions(
                asked_by[protocols[0]],
                parts,
                behaviors=behaviors,
                protocols=protocols,
                max_cases=settings.max_test_cases,
                show_progress=show_progress,
                scratch=scratch,
                engine=engine,
            )
    rows.sort(key=lambda row: [row.protocol.startswith(name) for name in everything].index(True))
    for row in rows:
        if time is not None and row.num_cases < time.in_all[row.behavior]:
            row.details[NUM_IN_ALL] = time.in_all[row.behavior]
        if row.system in baselines:
            row.details["role"] = role_of(row.system)
    searching = {name: system for name, system in systems.items() if name not in only_candidates}
    protocols = everything if searching else everything[1:]
    asks_searches = SEARCH in behaviors and split.num_cases()["test"].get(SEARCH, 0)
    if "BM25" in baselines and asks_searches and protocols:
        limits = (MAX_QUERY_FORM_CASES, settings.max_validation_cases, settings.max_test_cases)
        number = min(limit for limit in limits if limit is not None)
        number = number if time is None else time.take(QUERY_FORM_PART).fit_cases(number)
    else:
        number = 0
    if number:
        if isinstance(split, Split):
            cases = build_cases(
                split,
                catalog.id_map,
                behavior=SEARCH,
                protocol=protocols[0],
                num_negatives=settings.num_negatives,
                remove_seen=remove_seen,
                max_cases=number,
                seed=seed,
                periods=periods if searching else None,
            )
        elif parts is not None:
            cases = parts.gather(SEARCH, protocols[0], number)
        asked = {"BM25": baselines["BM25"], **(searching or systems)}
        forms = {**QUERY_FORMS, **RARER_FORMS} if settings.measures else QUERY_FORMS
        rows += compare_query_forms(
            asked, split, catalog.id_map, cases, forms=forms, seed=seed, show_progress=show_progress
        )
    is_cut = time is not None and any(time.taken[name].left_out for name in everything if name in time.taken)
    if settings.measures and time is not None and (is_cut or time.seconds_left() <= 0):
        # They measure the lists of the very cases that the tables rank.
        time.take(MEASURE_PART).left_out = "measures of the lists"
    elif settings.measures:
        measured = {name: system for name, system in everyone.items() if name not in only_candidates}
        query_log = QueryLog.fit(split, catalog.id_map)
        if parts is not None:
            rows += measure_partitions(
                rows,
                measured,
                parts,
                behaviors=behaviors,
                max_cases=settings.max_test_cases,
                vectors=catalog.embeddings["semantic"],
                query_log=query_log,
                scratch=scratch,
                engine=engine,
            )
        elif isinstance(split, Split):
            rows += _measure(
                rows,
                measured,
                split,
                catalog,
                settings,
                behaviors=behaviors,
                remove_seen=remove_seen,
                periods=periods,
                seed=seed,
                query_log=query_log,
            )
    return rows


def _measure(
    rows: Sequence[ResultRow],
    systems: Mapping[str, Scorer | Retriever],
    split: Split,
    catalog: Catalog,
    settings: EvaluationArguments,
    *,
    behaviors: Sequence[Behavior],
    remove_seen: bool,
    periods: tuple[RowArray, RowArray] | None,
    seed: int,
    query_log: QueryLog,
) -> list[ResultRow]:
    """Add the measures of lists to the rows of full ranking; return the rows of groups of cases."""
    counts = Popularity.fit(split, catalog.id_map).counts
    groups: list[ResultRow] = []
    for behavior in behaviors:
        if not split.targets("test", behavior):
            continue
        cases = build_cases(
            split,
            catalog.id_map,
            behavior=behavior,
            remove_seen=remove_seen,
            max_cases=settings.max_test_cases,
            seed=seed,
            periods=periods,
        )
        groups += measure_rows(
            rows,
            systems,
            cases,
            catalog.id_map,
            counts=counts,
            vectors=catalog.embeddings["semantic"],
            query_log=query_log,
        )
    return groups


__all__ = ["MAX_QUERY_FORM_CASES", "compare_on_test"]
