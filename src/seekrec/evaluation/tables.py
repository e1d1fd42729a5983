# SPDX-License-Identifier: Apache-2.0
"""Evaluate several systems on the same cases: on all of them, or on as many as there is time for.

Where there is a limit, all systems rank a few cases, then more, until the time is over: what was ranked is a seeded
sample of the cases, the same for every system, and its rows say of how many it is one.
"""

from __future__ import annotations

import time as clocks
from collections.abc import Mapping, Sequence

import numpy as np

from seekrec.errors import DataError
from seekrec.evaluation.evaluator import check_system, evaluate_system, make_row, rank_cases
from seekrec.evaluation.metrics import DEFAULT_K, FloatArray
from seekrec.evaluation.protocols import EvaluationCases, RankingProtocol, Retriever, Scorer, build_cases
from seekrec.evaluation.report import NUM_IN_ALL, ResultRow
from seekrec.events import Split
from seekrec.events.columns import RowArray
from seekrec.events.split import SplitPart
from seekrec.schema import BEHAVIORS, Behavior, IdMap
from seekrec.training.budget import LEAST_CASES, StageTime

# Share of what is left of the time that the next cases may take.
_SHARE_OF_NEXT = 0.25


def evaluate_systems(
    systems: Mapping[str, Scorer | Retriever],
    split: Split,
    id_map: IdMap,
    *,
    part: SplitPart = "test",
    behaviors: Sequence[Behavior] = BEHAVIORS,
    protocols: Sequence[RankingProtocol] = ("full",),
    num_negatives: int = 99,
    remove_seen: bool = True,
    k: Sequence[int] = DEFAULT_K,
    top_k: int = 50,
    max_cases: int | None = None,
    seed: int = 0,
    periods: tuple[RowArray, RowArray] | None = None,
    show_progress: bool = True,
    time: StageTime | None = None,
) -> list[ResultRow]:
    """Evaluate several systems on the same cases.

    A system is skipped on a behavior that it does not answer; so is a behavior that the part holds no case of.

    Args:
        systems (`Mapping[str, Scorer | Retriever]`): By their names in reports.
        split (`Split`): Where the cases come from.
        id_map ([`IdMap`]): Items of the catalogue.
        part (`str`): `"validation"` or `"test"`.
        behaviors (`Sequence[str]`): Behaviors to evaluate.
        protocols (`Sequence[str]`): As for [`evaluate_system`].
        num_negatives (`int`): Negatives a case, for sampled protocols.
        remove_seen (`bool`): Rule out the items of the request's history in full ranking.
        k (`Sequence[int]`): The cuts of the metrics.
        top_k (`int`): Length of the lists asked of a retriever in full ranking; at least the largest `k`.
        max_cases (`int`, *optional*): Take a seeded sample of so many cases, the same for every system.
        seed (`int`): Seed of the sample, the negatives and the bootstrap.
        periods (`tuple[np.ndarray, np.ndarray]`, *optional*): From when until when each item is available: in full
            ranking the others cannot be answered.
        show_progress (`bool`): Show a progress bar for each system.
        time ([`StageTime`], *optional*): What it may take; see [`rank_in_time`].

    Returns:
        `list[ResultRow]`: By behavior, then protocol, then system in the order given.

    Raises:
        ConfigurationError: As in [`evaluate_system`].
        DataError: If the part holds no case of any of the behaviors, or an answer breaks the rules.
    """
    for name, system in systems.items():
        check_system(system, name)
    asked = [behavior for behavior in behaviors if split.targets(part, behavior)]
    if not asked:
        raise DataError(
            f"The {part} part of {split.log.name!r} holds no case of {' or '.join(behaviors)}; check the split, or "
            "ask for other behaviors."
        )
    rows: list[ResultRow] = []
    left_out: list[str] = []
    tables = [(behavior, protocol) for behavior in asked for protocol in protocols]
    for number, (behavior, protocol) in enumerate(tables):
        # What one does not use is there for the next.
        own_time = None if time is None else time.part(1 / (len(tables) - number))
        if own_time is not None and own_time.seconds_left() <= 0:
            left_out.append(behavior)
            continue
        cases = build_cases(
            split,
            id_map,
            part=part,
            behavior=behavior,
            protocol=protocol,
            num_negatives=num_negatives,
            remove_seen=remove_seen,
            max_cases=max_cases,
            seed=seed,
            periods=periods if protocol == "full" else None,
        )
        answering = {name: system for name, system in systems.items() if behavior in system.behaviors}
        rows += evaluate_together(
            answering, cases, split, id_map, time=own_time, k=k, top_k=top_k, seed=seed, show_progress=show_progress
        )
        if own_time is not None and own_time.left_out is not None:
            left_out.append(f"{own_time.left_out} of {behavior}")
    if time is not None and left_out:
        time.left_out = ", ".join(left_out)
    return rows


def evaluate_together(
    systems: Mapping[str, Scorer | Retriever],
    cases: EvaluationCases,
    split: Split,
    id_map: IdMap,
    *,
    time: StageTime | None,
    k: Sequence[int] = DEFAULT_K,
    top_k: int = 50,
    seed: int = 0,
    show_progress: bool = True,
) -> list[ResultRow]:
    """Rank cases with all systems, one after the other, or in time; for the arguments see [`rank_in_time`]."""
    if time is not None:
        return rank_in_time(
            systems, cases, split, id_map, time=time, k=k, top_k=top_k, seed=seed, show_progress=show_progress
        )
    return [
        evaluate_system(
            system,
            split,
            id_map,
            name=name,
            k=k,
            top_k=top_k,
            seed=seed,
            cases=cases,
            show_progress=show_progress,
        )
        for name, system in systems.items()
    ]


def rank_in_time(
    systems: Mapping[str, Scorer | Retriever],
    cases: EvaluationCases,
    split: Split,
    id_map: IdMap,
    *,
    time: StageTime,
    k: Sequence[int] = DEFAULT_K,
    top_k: int = 50,
    seed: int = 0,
    show_progress: bool = True,
) -> list[ResultRow]:
    """Rank as many of the cases with all systems as there is time for.

    Args:
        systems (`Mapping[str, Scorer | Retriever]`): By their names in reports; each answers the cases' behavior.
        cases ([`EvaluationCases`]): The cases.
        split (`Split`): Where they come from.
        id_map ([`IdMap`]): Items of the catalogue.
        time ([`StageTime`]): What is left of the time; notes what there was none for.
        k (`Sequence[int]`): The cuts of the metrics.
        top_k (`int`): Length of the lists asked of a retriever in full ranking.
        seed (`int`): Seed of the bootstrap.
        show_progress (`bool`): Show progress bars.

    Returns:
        `list[ResultRow]`: By system. Rows of fewer than all cases have the number of all in their details. Empty where
        no time is left.
    """
    order = np.random.default_rng(cases.seed).permutation(len(cases))
    ranks: dict[str, list[FloatArray]] = {name: [] for name in systems}
    seconds = dict.fromkeys(systems, 0.0)
    begun, done, size = time.seconds_left(), 0, LEAST_CASES
    while done < len(cases) and time.seconds_left() > 0:
        chosen = order[done : done + size]
        part = cases.take(chosen)
        for name, system in systems.items():
            started = clocks.perf_counter()
            ranks[name].append(rank_cases(system, part, id_map, name=name, top_k=top_k, show_progress=show_progress))
            seconds[name] += clocks.perf_counter() - started
        done += len(chosen)
        left = time.seconds_left()
        each = (begun - left) / done
        if each * LEAST_CASES > left:
            break
        size = max(LEAST_CASES, int(_SHARE_OF_NEXT * left / each)) if each > 0 else len(cases)
    if done < len(cases):
        time.left_out = f"{len(cases) - done:,} of {len(cases):,} cases"
    if not done:
        return []
    # In the order of the split again, as all cases are.
    places = np.argsort(order[:done])
    kept = cases if done == len(cases) else cases.take(order[:done][places])
    rows = [
        make_row(
            np.concatenate(ranks[name])[places],
            kept.facts,
            k,
            split,
            name=name,
            system=system,
            cases_fingerprint=kept.fingerprint,
            seed=seed,
            seconds=seconds[name],
        )
        for name, system in systems.items()
    ]
    for row in rows if done < len(cases) else ():
        row.details[NUM_IN_ALL] = len(cases)
    return rows


__all__ = ["evaluate_systems", "evaluate_together", "rank_in_time"]
