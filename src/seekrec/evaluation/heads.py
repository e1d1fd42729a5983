# SPDX-License-Identifier: Apache-2.0
"""Which head of a model orders candidates: the one that does it better on validation."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from seekrec.evaluation.protocols import Retriever
from seekrec.evaluation.rivals import ValidationRanking
from seekrec.models import SynerGenForSearchAndRecommendation

logger = logging.getLogger(__name__)

# The first is kept where both are equally good: its scores are probabilities of a click.
Head = Literal["validation", "ranking", "retrieval"]
HEADS: tuple[Head, ...] = ("ranking", "retrieval")


@contextmanager
def ranking_by(model: SynerGenForSearchAndRecommendation, head: Head) -> Iterator[None]:
    """Let `model.rank` answer with a head, and afterwards with the one it answered with before.

    Args:
        model (`PreTrainedModel`): Its configuration has `rank_by`.
        head (`str`): One of its choices.
    """
    before = model.config.rank_by
    model.config.rank_by = head
    try:
        yield
    finally:
        model.config.rank_by = before


def choose_head(
    model: SynerGenForSearchAndRecommendation,
    system: Retriever,
    validation: ValidationRanking,
    *,
    heads: Sequence[Head] = HEADS,
) -> dict[str, float]:
    """Write into `model.config.rank_by` the head that orders the candidates of validation better, and say it.

    Args:
        model (`PreTrainedModel`): Its configuration has `rank_by`.
        system ([`Retriever`]): Asks this very model.
        validation ([`ValidationRanking`]): Validation by protocols with candidates.
        heads (`Sequence[str]`): Choices of `rank_by`; the first of the best is taken.

    Returns:
        `dict[str, float]`: For each head its mean NDCG@10.
    """
    found: dict[str, float] = {}
    for head in heads:
        with ranking_by(model, head):
            found[head] = validation(system)["ndcg@10"]
    model.config.rank_by = max(heads, key=lambda head: found[head])
    found_text = ", ".join(f"{head} {value:.4f}" for head, value in found.items())
    logger.info("`rank` orders by the %s head; NDCG@10 of validation candidates: %s", model.config.rank_by, found_text)
    return found


__all__ = ["HEADS", "choose_head", "ranking_by"]
