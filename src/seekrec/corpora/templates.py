# SPDX-License-Identifier: Apache-2.0
"""The six tasks of GenSAR (sections 3.3.1 to 3.3.4) and the wordings of their instructions.

The two tasks that align language exist once for each view:

| task | asks | answers |
|---|---|---|
| `nrip` | history | `<R_I>` and the identifier of the next recommended item |
| `nsqp` | history | `<S_Q>` and the next query, then end of sequence |
| `nsip` | history, query | `<S_I>` and the identifier of the next searched item |
| `desc2id_<view>` | title and description | the identifier, without a behavior token |
| `id2desc_<view>` | the identifier | title and description, then end of sequence |

A task has several wordings, so that a model learns the task and not one sentence; training draws one for each row.
Number 0 is the paper's, adapted, and the one used when a trained model is asked. Two things differ from the paper: a
user without history has a wording of its own, and Desc2ID names the view, because the paper's one instruction has two
right answers.

`{history}` becomes `<S_Q> piano; <S_I> <M1_247> <M2_197> <S1_184> <S2_110>; ...; <R_I> <M1_30> ...`, `{query}` becomes
`<S_Q> piano`, `{identifier}` becomes the tokens of an identifier, `{description}` a title and description.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from seekrec.errors import ConfigurationError
from seekrec.schema import RECOMMENDATION, SEARCH, Behavior, View

Kind = Literal["nrip", "nsqp", "nsip", "desc2id", "id2desc"]


@dataclass(frozen=True)
class Task:
    """One task.

    Args:
        name (`str`): Its name.
        kind (`str`): Name of its wordings.
        behavior (`str`, *optional*): Behavior of its targets; `None` for tasks about items.
        view (`str`, *optional*): View of the identifier that it reads or writes; `None` where the behavior decides.
    """

    name: str
    kind: Kind
    behavior: Behavior | None = None
    view: View | None = None

    @property
    def is_about_items(self) -> bool:
        """Whether it has one row for each item, and no history."""
        return self.behavior is None


TASK_BY_NAME: dict[str, Task] = {
    task.name: task
    for task in (
        Task("nrip", "nrip", behavior=RECOMMENDATION),
        Task("nsqp", "nsqp", behavior=SEARCH),
        Task("nsip", "nsip", behavior=SEARCH),
        Task("desc2id_semantic", "desc2id", view="semantic"),
        Task("desc2id_collaborative", "desc2id", view="collaborative"),
        Task("id2desc_semantic", "id2desc", view="semantic"),
        Task("id2desc_collaborative", "id2desc", view="collaborative"),
    )
}
TASKS: tuple[str, ...] = tuple(TASK_BY_NAME)


def choose_tasks(names: Sequence[str] | None, views: Sequence[View]) -> list[Task]:
    """Look up tasks.

    Args:
        names (`Sequence[str]`, *optional*): Names out of `TASKS`; `None` takes all that the views allow.
        views (`Sequence[str]`): The views that items have identifiers in.

    Returns:
        `list[Task]`: In the order asked.

    Raises:
        ConfigurationError: If a name is unknown or named twice, or its view does not exist.
    """
    if names is None:
        return [task for task in TASK_BY_NAME.values() if task.view is None or task.view in views]
    for position, name in enumerate(names):
        if name not in TASK_BY_NAME:
            raise ConfigurationError(f"`tasks` names {name!r}; use some of {', '.join(TASKS)}.")
        if name in names[:position]:
            raise ConfigurationError(f"`tasks` names {name!r} twice; name it once and raise its weight instead.")
        view = TASK_BY_NAME[name].view
        if view is not None and view not in views:
            raise ConfigurationError(
                f"`tasks` names {name!r}, but items have no {view} identifier (only {', '.join(views)}); leave it out."
            )
    return [TASK_BY_NAME[name] for name in names]


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

    @cached_property
    def pieces(self) -> list[str]:
        """The instruction cut at its slots: text, slot name, text, slot name, ..., text. Texts may be empty."""
        return _SLOT.split(self.text)

    @cached_property
    def pieces_without_history(self) -> list[str]:
        """The same for a user without history."""
        return self.pieces if self.text_without_history is None else _SLOT.split(self.text_without_history)


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


def all_wordings() -> list[str]:
    """All wordings as plain text, for training a tokenizer that should know their words."""
    texts = []
    for templates in TEMPLATES.values():
        for template in templates:
            for text in (template.text, template.text_without_history or ""):
                texts.append(_SLOT.sub(" ", text).replace("{view}", "semantic collaborative"))
    return texts
