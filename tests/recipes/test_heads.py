# SPDX-License-Identifier: Apache-2.0
"""Which head ranks."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest

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
            of_own, of_retrieved, shift = np.reshape(self.config.ranking_scales, (-1, 3))[
                BEHAVIORS.index("recommendation" if request.query is None else "search")
            ]
            rows = [int(name) for name in names]
            logits = of_own * self.own[rows] + of_retrieved * self.retrieved[rows] + shift
            chances = 1 / (1 + np.exp(-logits))
            items = [ScoredItem(name, float(chance)) for name, chance in zip(names, chances, strict=True)]
            answers.append(sorted(items, key=lambda item: -item.score))
        return answers


def test_each_task_gets_the_scales_that_validation_likes():
    """Retrieval tells by half; in searches the head knows the rest, in recommendations it is noise."""
    generator = np.random.default_rng(0)
    count = 3000
    chance = generator.normal(size=count)
    own, retrieved = generator.normal(size=count), 8 * chance
    happened = generator.random(count) < 1 / (1 + np.exp(-(2 * chance + 3 * own - 1)))
    model = ScaledHead(own, retrieved)
    id_map = IdMap([str(row) for row in range(count)])
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
            num_items=count,
            behavior=behavior,
            part="validation",
            protocol="uniform-1",
            seen_removed=False,
            seed=0,
        )
        for behavior in BEHAVIORS
    }

    def validate(system):
        """What retrieval alone has, and more or less with the head."""
        scales = np.reshape(system.config.ranking_scales, (-1, 3))
        gains = {"search": 0.1, "recommendation": -0.1}
        return {
            f"{task}_uniform_ndcg@10": 0.5 + gains[task] * (scales[BEHAVIORS.index(task), 0] > 0) for task in BEHAVIORS
        }

    scale_ranking(model, model, id_map, cases, validate)
    scales = dict(zip(BEHAVIORS, np.reshape(model.config.ranking_scales, (-1, 3)).tolist(), strict=True))
    # A pair of one that happened and one that did not is told apart by twice the chance and three times the head.
    np.testing.assert_allclose(scales["search"][:2], [3, 2 / 8], rtol=0.35)
    assert scales["recommendation"][0] == 0 and 0 < scales["recommendation"][1] < 0.25
