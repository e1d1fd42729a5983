# SPDX-License-Identifier: Apache-2.0
"""Which head ranks."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from seekrec.evaluation import expected_calibration_error
from seekrec.evaluation.calibration import fit_logistic
from seekrec.evaluation.protocols import EvaluationCases
from seekrec.recipes.ranking_scales import scale_ranking
from seekrec.recipes.synergen import choose_head, ranking_by
from seekrec.schema import BEHAVIORS, IdMap, Request, ScoredItem
from seekrec.util.ragged import Ragged


class TwoHeads:
    """What validation finds depends on the head in use, as in a model."""

    def __init__(self, **found: float) -> None:
        self.config = SimpleNamespace(rank_by="ranking")
        self.found = found

    def validate(self, system):
        assert system is self
        return {"ndcg@10": self.found[self.config.rank_by]}


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ({"ranking": 0.41, "retrieval": 0.77}, "retrieval"),
        ({"ranking": 0.5, "retrieval": 0.4}, "ranking"),
        ({"ranking": 0.5, "retrieval": 0.5}, "ranking"),
    ],
)
def test_the_better_head_of_validation_is_written_down_and_said(found, best, caplog):
    model = TwoHeads(**found)
    with caplog.at_level(logging.INFO, logger="seekrec"):
        assert choose_head(model, model, model.validate) == found
    assert model.config.rank_by == best
    assert f"orders by the {best} head; NDCG@10 of validation candidates: ranking 0." in caplog.text


def test_a_head_is_lent_and_given_back():
    model = TwoHeads()
    with pytest.raises(KeyError), ranking_by(model, "retrieval"):
        assert model.config.rank_by == "retrieval"
        raise KeyError
    assert model.config.rank_by == "ranking"


class ScaledHead:
    """Ranks by fixed logits of a head and of retrieval, one of each for an item, as `ranking_scales` says."""

    def __init__(self, own, retrieved):
        self.config = SimpleNamespace(ranking_scales=[])
        self.own, self.retrieved = own, retrieved

    def rank(self, requests, candidates):
        answers = []
        for request, names in zip(requests, candidates, strict=True):
            of_own, below, above, knee, shift = np.reshape(self.config.ranking_scales, (-1, 5))[
                BEHAVIORS.index("recommendation" if request.query is None else "search")
            ]
            rows = [int(name) for name in names]
            over = self.retrieved[rows] - knee
            logits = of_own * self.own[rows] + np.where(over < 0, below, above) * over + shift
            chances = 1 / (1 + np.exp(-logits))
            items = [ScoredItem(name, float(chance)) for name, chance in zip(names, chances, strict=True)]
            answers.append(sorted(items, key=lambda item: -item.score))
        return answers


def pairs_of(happened):
    """Cases of both tasks, each of an item that happened and one that did not; the items, and their rows."""
    id_map = IdMap([str(row) for row in range(len(happened))])
    targets, others = np.flatnonzero(happened), np.flatnonzero(~happened)
    rows = np.stack([targets[:800], others[:800]], axis=1)
    cases = {
        behavior: EvaluationCases(
            requests=[Request(query="q" if behavior == "search" else None)] * 800,
            target_ids=[str(row) for row in rows[:, 0]],
            target_rows=rows[:, 0],
            case_numbers=np.arange(800),
            seen=Ragged.from_lists([[]] * 800),
            candidate_rows=rows,
            num_items=len(happened),
            behavior=behavior,
            part="validation",
            protocol="uniform-1",
            seen_removed=False,
            seed=0,
        )
        for behavior in BEHAVIORS
    }
    return cases, id_map, rows


def test_each_task_gets_the_scales_that_validation_likes():
    """Retrieval tells by half; in searches the head knows the rest, in recommendations it is noise."""
    generator = np.random.default_rng(0)
    count = 3000
    chance = generator.normal(size=count)
    own, retrieved = generator.normal(size=count), 8 * chance
    happened = generator.random(count) < 1 / (1 + np.exp(-(2 * chance + 3 * own - 1)))
    model = ScaledHead(own, retrieved)
    cases, id_map, _ = pairs_of(happened)

    def validate(system):
        """What retrieval alone has, and more or less with the head."""
        scales = np.reshape(system.config.ranking_scales, (-1, 5))
        gains = {"search": 0.1, "recommendation": -0.1}
        return {
            f"{task}_uniform_ndcg@10": 0.5 + gains[task] * (scales[BEHAVIORS.index(task), 0] > 0) for task in BEHAVIORS
        }

    scale_ranking(model, model, id_map, cases, validate)
    scales = dict(zip(BEHAVIORS, np.reshape(model.config.ranking_scales, (-1, 5)).tolist(), strict=True))
    # A pair of one that happened and one that did not is told apart by twice the chance and three times the head.
    np.testing.assert_allclose(scales["search"][:3], [3, 2 / 8, 2 / 8], rtol=0.5)
    assert scales["recommendation"][0] == 0 and (0 < np.array(scales["recommendation"][1:3])).all()


def test_retrieval_tells_more_above_the_knee():
    """Among the half that retrieval likes it tells thrice what it says, among the others half."""
    generator = np.random.default_rng(1)
    retrieved = generator.normal(size=6000)
    happened = generator.random(6000) < 1 / (1 + np.exp(-np.where(retrieved < 0, 0.5, 3) * retrieved))
    model = ScaledHead(np.zeros(6000), retrieved)
    cases, id_map, rows = pairs_of(happened)
    scale_ranking(model, model, id_map, cases, lambda _: {"search_ndcg@10": 0.5, "recommendation_ndcg@10": 0.5})
    for of_own, below, above, knee, shift in np.reshape(model.config.ranking_scales, (-1, 5)):
        # One of two was clicked, so the knee is the median.
        assert (of_own, knee) == (0, pytest.approx(np.median(retrieved[rows])))
        assert 0.2 < below < 0.8 and 2 < above < 4
        over, clicked = retrieved[rows].ravel() - knee, happened[rows].ravel()
        bent = np.where(over < 0, below, above) * over + shift
        slope, level = fit_logistic(over[:, None], clicked)
        errors = [
            expected_calibration_error(1 / (1 + np.exp(-logits)), clicked) for logits in (bent, slope * over + level)
        ]
        assert 2 * errors[0] < errors[1], errors


def test_large_scores_are_told_apart():
    """What retrieval says may be in any unit: the chances are the same, though a sigmoid of it is 0 or 1."""
    generator = np.random.default_rng(3)
    retrieved = generator.normal(size=6000)
    happened = generator.random(6000) < 1 / (1 + np.exp(-2 * retrieved))
    found = []
    for unit in (1.0, 3000.0):
        model = ScaledHead(np.zeros(6000), unit * retrieved)
        cases, id_map, _ = pairs_of(happened)
        scale_ranking(model, model, id_map, cases, lambda _: {"search_ndcg@10": 0.5, "recommendation_ndcg@10": 0.5})
        found.append(np.reshape(model.config.ranking_scales, (-1, 5)) * [1, unit, unit, 1 / unit, 1])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    assert (found[0][:, 1:3] > 1).all()


def test_what_retrieval_does_not_tell_below_is_still_ordered():
    """Where the less liked of those below happen more, a factor of their own would be 0, and all of them equal."""
    generator = np.random.default_rng(2)
    retrieved = generator.normal(size=6000)
    happened = generator.random(6000) < 1 / (1 + np.exp(-np.where(retrieved < 0, -0.2, 3) * retrieved))
    model = ScaledHead(np.zeros(6000), retrieved)
    cases, id_map, _ = pairs_of(happened)
    scale_ranking(model, model, id_map, cases, lambda _: {"search_ndcg@10": 0.5, "recommendation_ndcg@10": 0.5})
    for _, below, above, _, _ in np.reshape(model.config.ranking_scales, (-1, 5)):
        assert below == above > 0
