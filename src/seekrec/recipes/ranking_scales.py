# SPDX-License-Identifier: Apache-2.0
"""Calibrate, after training, a ranking head that starts from the retrieval score, for each task, on validation.

In training the head sees a few sampled negatives per target, of all tasks at once, and training stops when retrieval
is best. So neither its logit, nor the score of `retrieve`, nor their sum is the probability of an action in each task,
or the best order. A logistic regression on validation cases, with negatives drawn as in training, gives each task
factors and a shift: the probability of an action among candidates drawn that way. The score of `retrieve` has two
factors, as it may be more or less informative among the candidates that it prefers than among the others. If the
head's own logit does not improve the order of the validation candidates over `retrieve`, its factor is 0, and the
order is that of `retrieve`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from seekrec.evaluation import Retriever, ValidationRanking
from seekrec.evaluation.calibration import fit_logistic
from seekrec.evaluation.protocols import EvaluationCases
from seekrec.models.dense import DenseModel
from seekrec.schema import BEHAVIORS, Behavior, IdMap

logger = logging.getLogger(__name__)

# As trained: the head and the score as they are.
_AS_TRAINED = (1.0, 1.0, 1.0, 0.0, 0.0)
# What logits are asked in: in float64 the sigmoid of 37 is 1, and views may add hundreds of them.
_UNIT = 1e-4


def scale_ranking(
    model: DenseModel,
    system: Retriever,
    id_map: IdMap,
    cases: Mapping[Behavior, EvaluationCases],
    validation: ValidationRanking,
) -> None:
    """Write into `model.config.ranking_scales` what validation chooses, and log it.

    Args:
        model ([`DenseRetrieval`]): Its ranking head begins with retrieval; with the views that it answers with.
        system ([`Retriever`]): Asks this very model.
        id_map ([`IdMap`]): Items of the catalogue.
        cases (`Mapping`): By task: validation cases with negatives drawn as in training.
        validation ([`ValidationRanking`]): Orders the candidates that the two ways are compared on.
    """
    found: dict[str, dict[Behavior, Sequence[float]]] = {"retrieval": {}, "both": {}}
    for behavior, own_cases in cases.items():
        own, retrieved, clicked = _evidence(model, system, own_cases, id_map)
        found["retrieval"][behavior] = _fit(np.zeros_like(own), retrieved, clicked)
        found["both"][behavior] = _fit(own, retrieved, clicked)
    metrics = {}
    for name, scales in found.items():
        _set(model, scales)
        metrics[name] = validation(system)
    chosen: dict[Behavior, Sequence[float]] = {}
    for behavior in cases:
        means = {
            name: float(np.mean([value for key, value in values.items() if key.startswith(behavior)]))
            for name, values in metrics.items()
        }
        best = "both" if means["both"] >= means["retrieval"] else "retrieval"
        chosen[behavior] = found[best][behavior]
        logger.info(
            "`rank` of %s: %.3f x the head, %.3f x the score of `retrieve` below and %.3f above its %.3f, shift %.3f; "
            "NDCG@10 of validation candidates %.4f by both, %.4f by that score",
            *(behavior, *chosen[behavior], means["both"], means["retrieval"]),
        )
    _set(model, chosen)


def _fit(own: np.ndarray, retrieved: np.ndarray, clicked: np.ndarray) -> tuple[float, ...]:
    """Return the five numbers that make the chance of a click of the logits of the head and of retrieval.

    As many candidates are above the knee as are clicked.
    """
    knee = float(np.quantile(retrieved, 1 - clicked.mean()))
    over = retrieved - knee
    of_own, below, above, shift = fit_logistic(
        np.column_stack([own, np.minimum(over, 0), np.maximum(over, 0)]), clicked
    ).tolist()
    if not (below and above):
        # Without a slope on one side, what `retrieve` orders there would be equal.
        of_own, both, shift = fit_logistic(np.column_stack([own, over]), clicked).tolist()
        below = above = both
    return of_own, below, above, knee, shift


def _set(model: DenseModel, scales: Mapping[Behavior, Sequence[float]]) -> None:
    model.config.ranking_scales = [
        float(number) for behavior in BEHAVIORS for number in scales.get(behavior, _AS_TRAINED)
    ]


def _evidence(
    model: DenseModel, system: Retriever, cases: EvaluationCases, id_map: IdMap
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for every candidate of all cases, the logits of the head and of retrieval, and whether it is the target.

    Both are asked of `rank` itself, one at a time, so they are what it adds up.
    """
    rows = () if cases.candidate_rows is None else cases.candidate_rows
    candidates = [id_map.convert_to_ids(row[row >= 0]) for row in rows]
    logits = []
    for scales in ((_UNIT, 0.0, 0.0, 0.0, 0.0), (0.0, _UNIT, _UNIT, 0.0, 0.0)):
        _set(model, dict.fromkeys(BEHAVIORS, scales))
        answers = system.rank(cases.requests, candidates)
        by_id = [{item.item_id: item.score for item in answer} for answer in answers]
        chances = np.array([scores[name] for scores, asked in zip(by_id, candidates, strict=True) for name in asked])
        logits.append((np.log(chances) - np.log1p(-chances)) / _UNIT)
    clicked = [name == target for asked, target in zip(candidates, cases.target_ids, strict=True) for name in asked]
    return logits[0], logits[1], np.array(clicked)


__all__ = ["scale_ranking"]
