# SPDX-License-Identifier: Apache-2.0
"""Run systems over cases and turn the ranks of the targets into result rows.

Full score matrices never exist at once: requests go through in blocks. An invalid answer (an item twice, an item
outside the mask, a candidate left out, NaN) stops the evaluation, because repairing it would favour the system.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter

import numpy as np
from tqdm.auto import tqdm

from seekrec.errors import ConfigurationError, DataError, RequestError
from seekrec.evaluation.metrics import (
    DEFAULT_K,
    FloatArray,
    all_metric_values,
    bootstrap_intervals,
    rank_in_list,
    ranks_from_scores,
)
from seekrec.evaluation.protocols import (
    CaseFacts,
    EvaluationCases,
    Retriever,
    Scorer,
)
from seekrec.evaluation.report import NUM_IN_ALL, ResultRow
from seekrec.events import Split
from seekrec.events.columns import RowArray
from seekrec.events.partitions import PartitionedSplit
from seekrec.schema import Behavior, IdMap, Request, ScoredItem
from seekrec.training.budget import LEAST_CASES, StageTime

# Share of what is left of the time that the next cases may take.
_SHARE_OF_NEXT = 0.25


def evaluate_cases(
    systems: Mapping[str, Scorer | Retriever],
    cases: EvaluationCases,
    split: Split | PartitionedSplit,
    id_map: IdMap,
    *,
    k: Sequence[int] = DEFAULT_K,
    top_k: int = 50,
    seed: int = 0,
    show_progress: bool = True,
    time: StageTime | None = None,
) -> list[ResultRow]:
    """Rank cases with several systems: all of them, or as many as there is time for.

    Where there is a limit, all systems rank a few cases, then more, until the time is over: what was ranked is a
    seeded sample of the cases, the same for every system, and its rows have the number of all in their details.

    Args:
        systems (`Mapping[str, Scorer | Retriever]`): By their names in reports; each answers the cases' behavior.
        cases ([`EvaluationCases`]): The cases.
        split (`Split` or `PartitionedSplit`): Where they come from.
        id_map ([`IdMap`]): Items of the catalogue.
        k (`Sequence[int]`): The cuts of the metrics.
        top_k (`int`): Length of the lists asked of a retriever in full ranking; at least the largest `k`.
        seed (`int`): Seed of the bootstrap.
        show_progress (`bool`): Show progress bars.
        time ([`StageTime`], *optional*): What is left of the time; notes what there was none for.

    Returns:
        `list[ResultRow]`: By system; empty where no time is left.

    Raises:
        ConfigurationError: If `top_k` is below the largest `k`, or a system is neither a scorer nor a retriever.
        RequestError: If a system does not answer the behavior.
        DataError: If an answer breaks the rules; the message names the system.
    """
    for name, system in systems.items():
        _check_answers(system, name, cases.behavior)
    if not k or top_k < max(k):
        raise ConfigurationError(
            f"`top_k` is {top_k} and `k` is {tuple(k)}; `top_k` must be at least the largest `k`."
        )
    ranks: dict[str, list[FloatArray]] = {name: [] for name in systems}
    seconds, rounds = dict.fromkeys(systems, 0.0), [np.empty(0, np.int64)]
    for chosen in [np.arange(len(cases))] if time is None else _rounds(cases, time):
        part = cases if time is None else cases.take(chosen)
        rounds.append(chosen)
        for name, system in systems.items():
            started = perf_counter()
            ranks[name].append(rank_cases(system, part, id_map, name=name, top_k=top_k, show_progress=show_progress))
            seconds[name] += perf_counter() - started
    done = np.concatenate(rounds)
    is_whole = len(done) == len(cases)
    if time is not None and not is_whole:
        time.left_out = f"{len(cases) - len(done):,} of {len(cases):,} cases"
    if not len(done):
        return []
    # In the order of the split again, as all cases are.
    places = np.argsort(done)
    kept = cases if is_whole else cases.take(done[places])
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
    for row in () if is_whole else rows:
        row.details[NUM_IN_ALL] = len(cases)
    return rows


def _rounds(cases: EvaluationCases, time: StageTime) -> Iterator[RowArray]:
    """Draw cases to be ranked next, until there are no more or the time is over."""
    order = np.random.default_rng(cases.seed).permutation(len(cases))
    begun, done, size = time.seconds_left(), 0, LEAST_CASES
    while done < len(cases) and time.seconds_left() > 0:
        yield order[done : done + size]
        done = min(done + size, len(cases))
        left = time.seconds_left()
        each = (begun - left) / done
        if each * LEAST_CASES > left:
            return
        size = max(LEAST_CASES, int(_SHARE_OF_NEXT * left / each)) if each > 0 else len(cases)


def make_row(
    ranks: FloatArray,
    facts: CaseFacts,
    k: Sequence[int],
    split: Split | PartitionedSplit,
    *,
    name: str,
    system: object,
    cases_fingerprint: str,
    seed: int,
    seconds: float,
) -> ResultRow:
    """Make the row of a system from the ranks of its targets.

    Args:
        ranks (`np.ndarray`): What [`rank_cases`] returns.
        facts ([`CaseFacts`]): What the cases share.
        k (`Sequence[int]`): The cuts of the metrics.
        split (`Split` or `PartitionedSplit`): What was split, and how.
        name (`str`): Name of the system.
        system (*optional*): The system; its `details`, if it has any, are what it says of itself.
        cases_fingerprint (`str`): Digest of all cases.
        seed (`int`): Seed of the resamples.
        seconds (`float`): Time of asking and ranking.
    """
    values = all_metric_values(ranks, k)
    return ResultRow(
        system=name,
        dataset=split.log.name,
        behavior=facts.behavior,
        part=facts.part,
        protocol=facts.protocol,
        split_method=split.method,
        split_protocol=split.protocol,
        split_fingerprint=split.fingerprint,
        cases_fingerprint=cases_fingerprint,
        query_source=split.log.query_source,
        seen_removed=facts.seen_removed,
        num_cases=len(ranks),
        num_items=facts.num_items,
        seed=seed,
        seconds=seconds,
        metrics={metric: float(column.mean()) for metric, column in values.items()},
        intervals=bootstrap_intervals(values, seed=seed),
        details=dict(getattr(system, "details", {})),
        ranks=ranks,
    )


def rank_cases(
    system: Scorer | Retriever,
    cases: EvaluationCases,
    id_map: IdMap,
    *,
    name: str = "system",
    top_k: int = 50,
    show_progress: bool = True,
) -> FloatArray:
    """Return the rank of every case's target.

    Cases are asked longest history first, so that a batch contains histories of one length and memory runs out at the
    start or not at all.

    Args:
        system (`Scorer` or `Retriever`): The system.
        cases ([`EvaluationCases`]): Requests and their targets.
        id_map ([`IdMap`]): Items of the catalogue.
        name (`str`): Name of the system, for messages.
        top_k (`int`): Length of the lists asked of a retriever in full ranking.
        show_progress (`bool`): Show a progress bar with the time left.

    Returns:
        `np.ndarray`: float64 `(num_cases, 2)` in the order of the cases: first and last rank that the target can have
            among items of its score; infinite where it was not found.
    """
    lengths = np.array([len(request.history) for request in cases.requests])
    order = np.argsort(-lengths, kind="stable")
    size = cases.block_size(system)
    ranks = np.empty((len(cases), 2))
    with tqdm(total=len(cases), desc=f"{name}: {cases.behavior}, {cases.protocol}", disable=not show_progress) as bar:
        for begin in range(0, len(cases), size):
            block = order[begin : begin + size]
            try:
                if isinstance(system, Scorer):
                    ranks[block] = _rank_by_scores(system, cases, block)
                else:
                    ranks[block] = _rank_by_lists(system, cases, block, id_map, top_k)
            except DataError as error:
                raise DataError(f"System {name!r}, {cases.behavior}, {cases.protocol}: {error}") from error
            bar.update(len(block))
    return ranks


def _rank_by_scores(system: Scorer, cases: EvaluationCases, block: RowArray) -> FloatArray:
    answer = system.score_all([cases.requests[case] for case in block.tolist()])
    expected = (len(block), cases.num_items)
    if answer.shape != expected:
        raise DataError(f"`score_all` returned shape {answer.shape}; expected {expected}, requests by items.")
    return ranks_from_scores(*cut_scores(answer, cases, block))


def cut_scores(scores: np.ndarray, cases: EvaluationCases, block: RowArray) -> tuple[np.ndarray, RowArray]:
    """Return what is ranked of the scores of all items: those that may be answered, or the candidates.

    Args:
        scores (`np.ndarray`): Numbers of shape `(len(block), num_items)`.
        cases ([`EvaluationCases`]): The cases.
        block (`np.ndarray`): int64 positions of the cases that the rows belong to.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: New scores, -inf for what is ruled out; and the column of each target.
    """
    if cases.candidate_rows is not None:
        candidates = cases.candidate_rows[block]
        found = np.take_along_axis(scores, np.maximum(candidates, 0), axis=1)
        found = np.where(candidates >= 0, found, -np.inf)
        return found, np.argmax(candidates == cases.target_rows[block, None], axis=1)
    # A copy: it is written to, and the system may have kept its own. Of floats: counts cannot be set to -inf.
    found = np.array(scores, dtype=np.result_type(scores, np.float32))
    cases.hide_ruled_out(found, block)
    return found, cases.target_rows[block]


def _rank_by_lists(
    system: Retriever, cases: EvaluationCases, block: RowArray, id_map: IdMap, top_k: int
) -> FloatArray:
    requests = [cases.requests[case] for case in block.tolist()]
    if cases.candidate_rows is not None:
        candidates = [id_map.convert_to_ids(row[row >= 0]) for row in cases.candidate_rows[block]]
        answers = [_ids_and_scores(answer) for answer in system.rank(requests, candidates)]
        _check_number(answers, requests)
        for (ids, _), asked in zip(answers, candidates, strict=True):
            if sorted(ids) != sorted(asked):
                wrong = sorted(set(ids) ^ set(asked))
                raise DataError(
                    f"`rank` got {len(asked)} candidates and returned {len(ids)}; they differ in "
                    f"{wrong[:3] or 'how often an item occurs'}. It must return each candidate once, because leaving "
                    "one out would raise the others."
                )
    else:
        masks = cases.masks(block)
        answers = [_ids_and_scores(answer) for answer in system.retrieve(requests, top_k=top_k, where=masks)]
        _check_number(answers, requests)
        for number, (ids, _) in enumerate(answers):
            rows = id_map.convert_to_rows(ids, strict=False)
            wrong_items = rows < 0 if masks is None else (rows < 0) | ~masks[number][rows]
            if wrong_items.any():
                raise DataError(
                    f"`retrieve` returned {ids[int(np.argmax(wrong_items))]!r}, which is not in the catalogue or "
                    "excluded by `where`; a system must return allowed items only."
                )
            if len(ids) > top_k:
                raise DataError(f"`retrieve` was asked for {top_k} items and returned {len(ids)}.")
    targets = [cases.target_ids[case] for case in block.tolist()]
    return np.array(
        [rank_in_list(ids, scores, target) for (ids, scores), target in zip(answers, targets, strict=True)]
    )


def _ids_and_scores(answer: Sequence[ScoredItem]) -> tuple[list[str], list[float]]:
    return [item.item_id for item in answer], [item.score for item in answer]


def _check_number(answers: Sequence[object], requests: Sequence[Request]) -> None:
    if len(answers) != len(requests):
        raise DataError(
            f"{len(requests)} requests got {len(answers)} answers; a system must return one answer per request."
        )


def check_system(system: Scorer | Retriever, name: str) -> None:
    """Refuse what is neither a scorer nor a retriever.

    Raises:
        ConfigurationError: If it is neither.
    """
    if not isinstance(system, (Scorer, Retriever)):
        raise ConfigurationError(
            f"System {name!r} of type {type(system).__name__} has neither `behaviors` and `score_all` nor "
            "`behaviors`, `retrieve` and `rank`; wrap a model in `ModelRetriever`."
        )


def _check_answers(system: Scorer | Retriever, name: str, behavior: Behavior) -> None:
    check_system(system, name)
    if behavior not in system.behaviors:
        raise RequestError(
            f"System {name!r} answers {', '.join(system.behaviors)}, not {behavior}; evaluate it on those behaviors."
        )
