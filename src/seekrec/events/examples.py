# SPDX-License-Identifier: Apache-2.0
"""Save and load a few users' histories as JSON, for demonstrations."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from seekrec.errors import DataError
from seekrec.schema import Event, Request
from seekrec.util.files import write_json

# Users to write.
_NUM_USERS = 20


def write_examples(path: str | Path, requests: Iterable[Request]) -> None:
    """Write the histories of the first users among some requests.

    The file contains what users did: keep it alongside a model, not inside one that is published.

    Args:
        path (`str` or `Path`): File to write.
        requests (`Iterable[Request]`): Those without `user_id` are passed over; no more is read than is
            needed.
    """
    histories: dict[str, list[dict[str, object]]] = {}
    for request in requests:
        if request.user_id is not None and request.user_id not in histories:
            histories[request.user_id] = [asdict(event) for event in request.history]
            if len(histories) == _NUM_USERS:
                break
    write_json(path, histories)


def read_examples(path: str | Path) -> dict[str, list[Event]]:
    """Read what [`write_examples`] wrote.

    Returns:
        `dict[str, list[Event]]`: The history of each user, oldest first.

    Raises:
        DataError: If the file is missing, is not such a file or contains no user.
    """
    source = Path(path)
    if not source.is_file():
        raise DataError(
            f"{source} does not exist; recipes write it next to the folder of the model. Pass --examples FILE."
        )
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        histories = {user: [Event(**event) for event in events] for user, events in content.items()}
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise DataError(f"{source} is not a file of examples ({error}); write one with write_examples.") from error
    if not histories:
        raise DataError(f"{source} contains no users; write it from requests that have a `user_id`.")
    return histories


__all__ = ["read_examples", "write_examples"]
