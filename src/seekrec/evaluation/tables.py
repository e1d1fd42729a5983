# SPDX-License-Identifier: Apache-2.0
"""Evaluate several systems on the same cases, for several behaviors and protocols, within a time limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seekrec.errors import DataError
from seekrec.evaluation.evaluator import check_system, evaluate_cases
from seekrec.evaluation.metrics import DEFAULT_K
from seekrec.evaluation.protocols import RankingProtocol, Retriever, Scorer, build_cases
from seekrec.evaluation.report import ResultRow
from seekrec.evaluation.tuning import for_protocol
from seekrec.events import Split
from seekrec.events.columns import RowArray
from seekrec.events.split import SplitPart
from seekrec.schema import BEHAVIORS, Behavior, IdMap
from seekrec.training.budget import StageTime


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

    A system is skipped on a behavior that it does not answer; so is a behavior that the part contains no case of.

    Args:
        systems (`Mapping[str, Scorer | Retriever]`): By their names in reports.
        split (`Split`): Where the cases come from.
        id_map ([`IdMap`]): Items of the catalogue.
        part (`str`): `"validation"` or `"test"`.
        behaviors (`Sequence[str]`): Behaviors to evaluate.
        protocols (`Sequence[str]`): `"full"`, `"uniform"`, `"popularity"` or `"bm25"`; see [`build_cases`].
        num_negatives (`int`): Negatives a case, for sampled protocols.
        remove_seen (`bool`): Rule out the items of the request's history in full ranking.
        k (`Sequence[int]`): The cuts of the metrics.
        top_k (`int`): Length of the lists asked of a retriever in full ranking; at least the largest `k`.
        max_cases (`int`, *optional*): Take a seeded sample of so many cases, the same for every system.
        seed (`int`): Seed of the sample, the negatives and the bootstrap.
        periods (`tuple[np.ndarray, np.ndarray]`, *optional*): From when until when each item is available: in full
            ranking the others cannot be answered.
        show_progress (`bool`): Show a progress bar for each system.
        time ([`StageTime`], *optional*): What it may take; see [`evaluate_cases`].

    Returns:
        `list[ResultRow]`: By behavior, then protocol, then system in the order given.

    Raises:
        ConfigurationError: As in [`build_cases`] and [`evaluate_cases`].
        DataError: If the part contains no case of any of the behaviors, or an answer breaks the rules.
    """
    for name, system in systems.items():
        check_system(system, name)
    asked = [behavior for behavior in behaviors if split.targets(part, behavior)]
    if not asked:
        raise DataError(
            f"The {part} part of {split.log.name!r} contains no case of {' or '.join(behaviors)}; check the split, or "
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
        answering = {
            name: for_protocol(system, protocol) for name, system in systems.items() if behavior in system.behaviors
        }
        rows += evaluate_cases(
            answering, cases, split, id_map, time=own_time, k=k, top_k=top_k, seed=seed, show_progress=show_progress
        )
        if own_time is not None and own_time.left_out is not None:
            left_out.append(f"{own_time.left_out} of {behavior}")
    if time is not None and left_out:
        time.left_out = ", ".join(left_out)
    return rows


__all__ = ["evaluate_systems"]
