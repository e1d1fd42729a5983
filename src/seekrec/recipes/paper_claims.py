# SPDX-License-Identifier: Apache-2.0
"""Collect the numbers of a paper's exhibits, and test its claims by paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from seekrec.evaluation import ResultRow, compare
from seekrec.evaluation.metrics import FloatArray, Interval, bootstrap_intervals, metric_values
from seekrec.recipes.papers import BASELINES, MODEL_NAMES, Claim, Exhibit
from seekrec.schema import Behavior

_USUAL_LIST = 50

Verdict = Literal["holds", "does not hold", "undecided"]


class Number(NamedTuple):
    """A number of an exhibit; one that is counted and not sampled has no interval."""

    exhibit: str
    label: str
    behavior: str
    protocol: str
    metric: str
    value: float
    low: float | None
    high: float | None
    num_cases: int


class Finding(NamedTuple):
    """What the log says to a claim, by one comparison; `difference` is that of the row that should be better."""

    exhibit: str
    says: str
    better: str
    than: str
    behavior: str
    protocol: str
    metric: str
    difference: float
    low: float | None
    high: float | None
    num_cases: int
    verdict: Verdict


def verdict_of(difference: float, interval: Interval | None) -> Verdict:
    """Return what a difference says to a claim that it is above 0.

    Args:
        difference (`float`): The difference; it decides by itself where nothing was sampled.
        interval ([`Interval`], *optional*): Its interval: it decides where 0 is not inside.
    """
    low, high = (difference, difference) if interval is None else interval
    return "holds" if low > 0 else "does not hold" if high < 0 else "undecided"


def rows_of(
    exhibit: Exhibit, results: Mapping[str, Sequence[ResultRow]], behavior: Behavior, protocol: str
) -> dict[str, ResultRow]:
    """Return the rows of an exhibit by label, in order; what was not measured is left out.

    Args:
        exhibit ([`Exhibit`]): The exhibit.
        results (`Mapping[str, Sequence[ResultRow]]`): What each run measured.
        behavior (`str`): The behavior.
        protocol (`str`): As in [`Exhibit`].
    """

    def measured(run: str) -> Iterable[ResultRow]:
        for row in results[run]:
            kind, _, number = row.protocol.partition("-")
            if row.behavior == behavior and (row.protocol == protocol or (kind == protocol and number.isdecimal())):
                yield row

    found: dict[str, ResultRow] = {}
    own = {name for names in MODEL_NAMES.values() for name in names}
    for label, source in exhibit.rows.items():
        for row in measured(source.run):
            if row.system == source.system if source.system else row.system in own:
                found[label] = row
                break
    if exhibit.systems_of:
        found |= {row.system: row for row in measured(exhibit.systems_of)}
    return found


def numbers_of(exhibit: Exhibit, results: Mapping[str, Sequence[ResultRow]]) -> list[Number]:
    """Return the numbers of an exhibit, each with its 95% bootstrap interval.

    Args:
        exhibit ([`Exhibit`]): The exhibit.
        results (`Mapping[str, Sequence[ResultRow]]`): What each run measured.
    """
    numbers = []
    for behavior, protocols in exhibit.cases.items():
        for protocol in protocols:
            for label, row in rows_of(exhibit, results, behavior, protocol).items():
                ranks = np.empty((0, 2)) if row.ranks is None else row.ranks
                metrics = [
                    metric for metric in exhibit.metrics if _reaches(ranks, metric) and _tells(row.protocol, metric)
                ]
                values = {metric: metric_values(ranks, metric) for metric in metrics}
                for metric, (low, high) in bootstrap_intervals(values, seed=row.seed).items():
                    mean = float(values[metric].mean())
                    place = (exhibit.name, label, behavior, row.protocol, metric)
                    numbers.append(Number(*place, mean, low, high, row.num_cases))
    return numbers


def _reaches(ranks: FloatArray, metric: str) -> bool:
    """Return whether the lists that ranks are from were long enough for a metric: those of an evaluation end at 50."""
    k, is_found = int(metric.partition("@")[2]), np.isfinite(ranks)
    return k <= _USUAL_LIST or bool(is_found.all()) or float(ranks[is_found].max(initial=0)) > _USUAL_LIST


def _tells(protocol: str, metric: str) -> bool:
    """Return whether a metric can miss a target: among 99 others every recall@100 is 1."""
    num_others = protocol.partition(",")[0].partition("-")[2]
    return not num_others.isdecimal() or int(metric.partition("@")[2]) <= int(num_others)


def findings_of(exhibit: Exhibit, results: Mapping[str, Sequence[ResultRow]]) -> list[Finding]:
    """Compare the rows that the claims of an exhibit name, pair by pair over the same cases.

    Args:
        exhibit ([`Exhibit`]): The exhibit.
        results (`Mapping[str, Sequence[ResultRow]]`): What each run measured.
    """
    findings = []
    for claim in exhibit.claims:
        metric = claim.metric or exhibit.decides
        for behavior, protocols in exhibit.cases.items():
            for protocol in protocols if claim.only in (None, behavior) else ():
                rows = rows_of(exhibit, results, behavior, protocol)
                for better in claim.better:
                    for than in _labels(claim.than, rows, metric):
                        if better in rows and than in rows:
                            findings.append(_compare(exhibit, claim, rows, better, than, metric))
    return findings


def _labels(names: Sequence[str], rows: Mapping[str, ResultRow], metric: str) -> list[str]:
    """Return the labels that a claim names, the best baseline in place of all."""
    if BASELINES not in names:
        return list(names)
    ranks = {label: row.ranks for label, row in rows.items() if row.details.get("role") == "baseline"}
    means = {label: metric_values(own, metric).mean() for label, own in ranks.items() if own is not None}
    return [max(means, key=lambda label: float(means[label]))] if means else []


def _compare(
    exhibit: Exhibit, claim: Claim, rows: Mapping[str, ResultRow], better: str, than: str, metric: str
) -> Finding:
    (found,) = compare(rows[better], rows[than], metrics=(metric,))
    return Finding(
        exhibit.name,
        claim.says,
        better,
        than,
        found.behavior,
        found.protocol,
        metric,
        found.difference,
        found.interval.low,
        found.interval.high,
        found.num_cases,
        verdict_of(found.difference, found.interval),
    )


__all__ = ["Finding", "Number", "Verdict", "findings_of", "numbers_of", "rows_of", "verdict_of"]
