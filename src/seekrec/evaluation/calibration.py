# SPDX-License-Identifier: Apache-2.0
"""Whether probabilities are what they say: the expected calibration error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from seekrec.errors import ConfigurationError, DataError
from seekrec.evaluation.protocols import EvaluationCases, Retriever
from seekrec.schema import IdMap


def expected_calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, num_bins: int = 10) -> float:
    """Compute how far probabilities are from what happened.

    Probabilities are put into bins of equal width. In each the mean probability and the share of what happened are
    compared; the error is the mean of the differences, each bin weighing as much as it holds.

    Args:
        probabilities (`ArrayLike`): From 0 to 1, of any shape.
        labels (`ArrayLike`): Array of the same shape: 1 where it happened, else 0.
        num_bins (`int`): Bins between 0 and 1.

    Returns:
        `float`: From 0, the best, to 1.

    Raises:
        ConfigurationError: If `num_bins` is below 1.
        DataError: If there is no probability, one is not from 0 to 1, or the shapes differ.

    Example:
        >>> # (|.25 + .25 - 1| + |.75 + 1 - 2|) / 4
        >>> expected_calibration_error([0.25, 0.25, 0.75, 1.0], [0, 1, 1, 1], num_bins=2)
        0.1875
    """
    if num_bins < 1:
        raise ConfigurationError(f"`num_bins` is {num_bins}; use at least 1.")
    values, happened = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if values.shape != happened.shape or not values.size:
        raise DataError(
            f"There are probabilities of shape {values.shape} and labels of shape {happened.shape}; pass at "
            "least one probability, and one label for each."
        )
    if not ((values >= 0) & (values <= 1)).all():
        wrong = values[~((values >= 0) & (values <= 1))][0]
        raise DataError(f"A probability is {wrong}; it must be from 0 to 1.")
    number = np.minimum((values.ravel() * num_bins).astype(np.int64), num_bins - 1)
    difference = np.bincount(number, weights=values.ravel() - happened.ravel(), minlength=num_bins)
    return float(np.abs(difference).sum() / values.size)


def click_calibration(system: Retriever, cases: EvaluationCases, id_map: IdMap, *, num_bins: int = 10) -> float:
    """Compute the expected calibration error of the probabilities with which a system ranks candidates.

    The target of a case counts as clicked and its negatives as not, so the share of clicks is that of the cases. A
    model is calibrated to the share it was trained with: ask with as many negatives, drawn alike.

    Args:
        system ([`Retriever`]): Its `rank` returns probabilities as scores.
        cases ([`EvaluationCases`]): With candidates.
        id_map ([`IdMap`]): Items of the catalogue.
        num_bins (`int`): As for [`expected_calibration_error`].

    Raises:
        ConfigurationError: If the cases have no candidates.
    """
    if cases.candidate_rows is None:
        raise ConfigurationError(
            "The cases rank the whole catalogue; build them with candidates, as by `protocol='uniform'`."
        )
    candidates = [id_map.convert_to_ids(row[row >= 0]) for row in cases.candidate_rows]
    answers = system.rank(cases.requests, candidates)
    clicked = [
        item.item_id == target for answer, target in zip(answers, cases.target_ids, strict=True) for item in answer
    ]
    return expected_calibration_error(
        [item.score for answer in answers for item in answer], clicked, num_bins=num_bins
    )


__all__ = ["click_calibration", "expected_calibration_error"]
