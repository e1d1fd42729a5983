# SPDX-License-Identifier: Apache-2.0
import re

import pytest

from seekrec.corpora import TASKS, TEMPLATES, all_wordings
from seekrec.corpora.templates import TASK_BY_NAME, choose_tasks
from seekrec.errors import ConfigurationError

SLOTS = {
    "nrip": {"history"},
    "nsqp": {"history"},
    "nsip": {"history", "query"},
    "desc2id": {"description"},
    "id2desc": {"identifier"},
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_wordings_have_their_slots(kind):
    templates = TEMPLATES[kind]
    assert 5 <= len(templates) <= 10
    assert len({template.text for template in templates}) == len(templates)
    for template in templates:
        pieces = template.pieces
        assert sorted(pieces[1::2]) == sorted(SLOTS[kind])
        # The view is a word of the wording, filled in where it is written.
        words = [piece.replace("{view}", "semantic") for piece in pieces[::2]]
        assert not any("{" in piece or "}" in piece for piece in words)
        if "history" in SLOTS[kind]:
            without = template.pieces_without_history
            assert set(without[1::2]) == SLOTS[kind] - {"history"}
        else:
            assert template.text_without_history is None
        # Both views have the same text: only a wording that names the view has one right answer.
        if kind == "desc2id":
            assert "{view}" in "".join(pieces[::2])


def test_wording_0_is_the_papers():
    # Sections 3.3.1 to 3.3.4 of the paper, with a plain apostrophe and quotation marks.
    assert TEMPLATES["nrip"][0].pieces == [
        "Below is the user's interaction history: ",
        "history",
        ". Please recommend the next item the user is likely to click.",
    ]
    assert TEMPLATES["nsip"][0].pieces[::2] == [
        "Below is the user's interaction history: ",
        ". The user's search query is ",
        ". Please predict the next item the user might click.",
    ]
    assert TEMPLATES["id2desc"][0].pieces == ["Please provide a description for the item ", "identifier", "."]


def test_all_wordings_are_plain_text():
    texts = all_wordings()
    assert not any(re.search("[{}<>]", text) for text in texts)
    assert any("recommend" in text for text in texts)


def test_tasks_are_the_papers_six_and_follow_the_views():
    assert {task.kind for task in TASK_BY_NAME.values()} == set(TEMPLATES)
    assert [task.name for task in choose_tasks(None, ("semantic", "collaborative"))] == list(TASKS)
    only_semantic = [task.name for task in choose_tasks(None, ("semantic",))]
    assert only_semantic == ["nrip", "nsqp", "nsip", "desc2id_semantic", "id2desc_semantic"]
    assert [task.name for task in choose_tasks(["nsip", "nrip"], ("semantic",))] == ["nsip", "nrip"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nrip", "NSIP"], "`tasks` names 'NSIP'; use some of nrip, nsqp"),
        (["nrip", "nrip"], "`tasks` names 'nrip' twice; name it once"),
        (["desc2id_collaborative"], r"but items have no collaborative identifier \(only semantic\); leave it out"),
    ],
)
def test_wrong_tasks_are_refused(names, message):
    with pytest.raises(ConfigurationError, match=message):
        choose_tasks(names, ("semantic",))
