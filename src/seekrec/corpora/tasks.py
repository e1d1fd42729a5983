# SPDX-License-Identifier: Apache-2.0
"""The six tasks of GenSAR (sections 3.3.1 to 3.3.4); the two that align language exist once for each view.

| task | asks | answers |
|---|---|---|
| `nrip` | history | `<R_I>` and the identifier of the next recommended item |
| `nsqp` | history | `<S_Q>` and the next query, then end of sequence |
| `nsip` | history, query | `<S_I>` and the identifier of the next searched item |
| `desc2id_<view>` | title and description | the identifier, without a behavior token |
| `id2desc_<view>` | the identifier | title and description, then end of sequence |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from seekrec.errors import ConfigurationError
from seekrec.schema import RECOMMENDATION, SEARCH, Behavior, View

Kind = Literal["nrip", "nsqp", "nsip", "desc2id", "id2desc"]


@dataclass(frozen=True)
class Task:
    """One task.

    Args:
        name (`str`): Its name.
        kind (`str`): Which wordings it uses.
        behavior (`str`, *optional*): Whose events are its targets; `None` where items are.
        view (`str`, *optional*): Which identifier it reads or writes; `None` where the behavior decides.
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
TASK_OF_BEHAVIOR: dict[Behavior, str] = {RECOMMENDATION: "nrip", SEARCH: "nsip"}


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
