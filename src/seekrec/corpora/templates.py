# SPDX-License-Identifier: Apache-2.0
"""The wordings of the instructions.

Several for each kind of task, so that a model learns the task and not one sentence; training draws one for each row.
Number 0 is the paper's (sections 3.3.1 to 3.3.4), adapted, and the one used when a trained model is asked. Two things
differ from the paper: a user without history has a wording of its own, and Desc2ID names the view, because the paper's
one instruction has two right answers.

`{history}` becomes `<S_Q> piano; <S_I> <M1_247> <M2_197> <S1_184> <S2_110>; ...; <R_I> <M1_30> ...`, `{query}` becomes
`<S_Q> piano`, `{identifier}` becomes the tokens of an identifier, `{description}` a title and description.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from seekrec.corpora.tasks import Kind

SLOTS = ("history", "query", "identifier", "description")
_SLOT = re.compile(r"\{(" + "|".join(SLOTS) + r")\}")


@dataclass(frozen=True)
class Template:
    """One wording.

    Args:
        text (`str`): The instruction with its slots in braces.
        text_without_history (`str`, *optional*): The same for a user without history, if `text` names the history.
    """

    text: str
    text_without_history: str | None = None

    def pieces(self, *, has_history: bool = True) -> list[str]:
        """Cut the text at its slots: text, slot name, text, slot name, ..., text. Texts may be empty."""
        text = self.text if has_history or self.text_without_history is None else self.text_without_history
        return _SLOT.split(text)


TEMPLATES: dict[Kind, tuple[Template, ...]] = {
    "nrip": (
        Template(
            "Below is the user's interaction history: {history}. "
            "Please recommend the next item the user is likely to click.",
            "The user has no interaction history. Please recommend the next item the user is likely to click.",
        ),
        Template(
            "A user did the following, oldest first: {history}. Which item should be recommended next?",
            "A new user did nothing so far. Which item should be recommended next?",
        ),
        Template(
            "Recommend one more item to a user with this history: {history}.",
            "Recommend one item to a user without a history.",
        ),
        Template(
            "Earlier searches and clicks: {history}. Name the item to show this user now.",
            "No earlier searches or clicks. Name the item to show this user now.",
        ),
        Template(
            "Given what the user searched for and clicked on, {history}, predict the next recommended item.",
            "Given no searches and no clicks, predict the next recommended item.",
        ),
        Template(
            "What will the user click on next without searching? The record so far: {history}.",
            "What will the user click on next without searching? The record so far is empty.",
        ),
        Template(
            "Continue this list of actions with a recommended item: {history}.",
            "Begin a list of actions with a recommended item.",
        ),
        Template(
            "The user has done this: {history}. Suggest an item that fits.",
            "The user has done nothing yet. Suggest an item that fits.",
        ),
    ),
    "nsqp": (
        Template(
            "Below is the user's interaction history: {history}. "
            "Please predict the next query the user might want to search.",
            "The user has no interaction history. Please predict the next query the user might want to search.",
        ),
        Template(
            "A user did the following, oldest first: {history}. What will the user search for next?",
            "A new user did nothing so far. What will the user search for next?",
        ),
        Template(
            "Write the next search query of a user with this history: {history}.",
            "Write the first search query of a user without a history.",
        ),
        Template(
            "Earlier searches and clicks: {history}. Suggest a query.",
            "No earlier searches or clicks. Suggest a query.",
        ),
        Template(
            "Given what the user searched for and clicked on, {history}, guess the words typed next.",
            "Given no searches and no clicks, guess the words typed next.",
        ),
        Template(
            "Which query comes next? The record so far: {history}.",
            "Which query comes next? The record so far is empty.",
        ),
        Template(
            "Continue this list of actions with a query: {history}.",
            "Begin a list of actions with a query.",
        ),
        Template(
            "The user has done this: {history}. What is the user about to look for?",
            "The user has done nothing yet. What is the user about to look for?",
        ),
    ),
    "nsip": (
        Template(
            "Below is the user's interaction history: {history}. The user's search query is {query}. "
            "Please predict the next item the user might click.",
            "The user has no interaction history. The user's search query is {query}. "
            "Please predict the next item the user might click.",
        ),
        Template(
            "A user did the following, oldest first: {history}. Now the user searches for {query}. "
            "Which result will be clicked?",
            "A new user searches for {query}. Which result will be clicked?",
        ),
        Template(
            "Answer the query {query} of a user with this history: {history}.",
            "Answer the query {query} of a user without a history.",
        ),
        Template(
            "Earlier searches and clicks: {history}. New search: {query}. Name the item to show first.",
            "No earlier searches or clicks. New search: {query}. Name the item to show first.",
        ),
        Template(
            "Given the query {query} and what the user searched for and clicked on, {history}, predict the result.",
            "Given the query {query} and nothing else about the user, predict the result.",
        ),
        Template(
            "What will the user click on after searching {query}? The record so far: {history}.",
            "What will the user click on after searching {query}? The record so far is empty.",
        ),
        Template(
            "Continue this list of actions with the item that was searched: {history}; {query}.",
            "Continue this list of actions with the item that was searched: {query}.",
        ),
        Template(
            "The user has done this: {history}. Find the item meant by {query}.",
            "The user has done nothing yet. Find the item meant by {query}.",
        ),
    ),
    # {view} is filled in before the text is cut: it is a word of the wording, not a slot.
    "desc2id": (
        Template('Using the provided description "{description}", predict the {view} identifier of the item.'),
        Template('Which item is this: "{description}"? Answer with its {view} identifier.'),
        Template("Give the {view} identifier of the item described here: {description}"),
        Template('Find the item "{description}" and write its {view} identifier.'),
        Template("Description: {description} What is the {view} identifier?"),
        Template('The text "{description}" belongs to one item. Write the {view} identifier.'),
    ),
    "id2desc": (
        Template("Please provide a description for the item {identifier}."),
        Template("What is {identifier}? Describe the item."),
        Template("Write the title and description of {identifier}."),
        Template("Put the item {identifier} into words."),
        Template("Tell a customer what {identifier} is."),
        Template("The item {identifier} is known by which title?"),
    ),
}


def template_pieces(kind: Kind, number: int, *, view: str | None = None, has_history: bool = True) -> list[str]:
    """Give one wording, cut at its slots.

    Args:
        kind (`str`): The kind of task.
        number (`int`): Which wording, from 0.
        view (`str`, *optional*): The view that the wording names, if it names one.
        has_history (`bool`): Whether the user has a history.

    Returns:
        `list[str]`: Text, slot name, text, slot name, ..., text.
    """
    pieces = TEMPLATES[kind][number].pieces(has_history=has_history)
    return [
        piece.replace("{view}", view or "") if position % 2 == 0 else piece for position, piece in enumerate(pieces)
    ]


def all_wordings() -> list[str]:
    """All wordings as plain text, for training a tokenizer that should know their words."""
    texts = []
    for templates in TEMPLATES.values():
        for template in templates:
            for text in (template.text, template.text_without_history or ""):
                texts.append(_SLOT.sub(" ", text).replace("{view}", "semantic collaborative"))
    return texts
