# SPDX-License-Identifier: Apache-2.0
"""Which head ranks."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from seekrec.recipes.synergen import choose_head, ranking_by


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
