# SPDX-License-Identifier: Apache-2.0
"""Read logs from the Hugging Face Hub: a data set repository with the configurations `events` and `items`.

[`EventLog.to_dataset_dict`] makes such a pair to push, and it is read back unchanged. For other tables [`read_tables`]
recognises the columns. A clone of the repository on disk works the same, and offline a repository that was fetched
before is read from the cache. No code of a repository is run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple, get_args

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from seekrec.errors import DataError
from seekrec.events.log import LOG_FILE, EventLog, QuerySource
from seekrec.events.readers.tables import read_tables
from seekrec.events.readers.times import are_positions
from seekrec.events.saved import refuse_damage
from seekrec.schema import EVENT_FEATURES, ITEM_FEATURES

_EVENTS, _ITEMS = "events", "items"


class LogFacts(NamedTuple):
    """What `log.json` of a repository says of a log; see [`EventLog`]."""

    has_time: bool
    query_source: QuerySource
    notes: tuple[str, ...]


def read_hub(
    repository: str | Path,
    *,
    revision: str | None = None,
    name: str | None = None,
    has_time: bool | None = None,
    max_refused: float | None = None,
) -> EventLog:
    """Read a log from a repository of the Hub.

    ```python
    log = read_hub("me/my-log", revision="v1")
    ```

    Args:
        repository (`str` or `Path`): Name of the repository, or the folder of a clone of it.
        revision (`str`, *optional*): Branch, tag or commit; the main branch if not given. A folder has none.
        name (`str`, *optional*): Name of the log; that of the repository if not given.
        has_time (`bool`, *optional*): As in [`read_tables`].
        max_refused (`float`, *optional*): As in [`read_tables`].

    Returns:
        `EventLog`: The log that was pushed, or what [`read_tables`] makes of the two tables. Queries count as typed
            where `log.json` does not say otherwise: the tables do not, and the notes do.

    Raises:
        DataError: If the repository cannot be read or lacks a configuration, or the rows cannot be used.
    """
    events, items = load_tables(repository, revision=revision)
    name = name if name is not None else Path(repository).name
    facts = load_facts(repository, revision=revision)
    log = restore_log(events, items, name=name, has_time=has_time, facts=facts)
    if log is None:
        log, facts = read_tables(events, items, name=name, has_time=has_time, max_refused=max_refused), None
    return note_origin(log) if facts is None else log


def load_tables(repository: str | Path, *, revision: str | None = None) -> tuple[pa.Table, pa.Table]:
    """Return the events and the items of a repository as tables that [`read_tables`] takes.

    Args:
        repository (`str` or `Path`): See [`read_hub`].
        revision (`str`, *optional*): See [`read_hub`].

    Returns:
        `tuple`: Events and items; the splits of a configuration stand under each other.

    Raises:
        DataError: If the repository cannot be read or lacks a configuration.
    """
    return _load(repository, _EVENTS, revision), _load(repository, _ITEMS, revision)


def load_facts(repository: str | Path, *, revision: str | None = None) -> LogFacts | None:
    """Return what `log.json` of a repository says of its tables; `None` without such a file.

    Args:
        repository (`str` or `Path`): See [`read_hub`].
        revision (`str`, *optional*): See [`read_hub`].

    Raises:
        DataError: If the file is damaged.
    """
    path = Path(repository) / LOG_FILE
    if not Path(repository).is_dir():
        try:
            found = hf_hub_download(str(repository), LOG_FILE, repo_type="dataset", revision=revision)
        except (EntryNotFoundError, OSError):  # offline it may be nowhere
            return None
        path = Path(found)
    elif not path.is_file():
        return None
    with refuse_damage(path.parent, "log"):
        content = json.loads(path.read_text(encoding="utf-8"))
        sources: dict[str, QuerySource] = {source: source for source in get_args(QuerySource)}
        notes = tuple(map(str, content["notes"]))
        return LogFacts(bool(content["has_time"]), sources[content["query_source"]], notes)


def restore_log(
    events: pa.Table,
    items: pa.Table,
    *,
    name: str,
    has_time: bool | None = None,
    facts: LogFacts | None = None,
) -> EventLog | None:
    """Return the log that [`EventLog.to_dataset_dict`] was called on; `None` where the tables are no such.

    Args:
        events (`pyarrow.Table`): Events.
        items (`pyarrow.Table`): Items.
        name (`str`): Name of the log.
        has_time (`bool`, *optional*): Whether timestamps are seconds; found from them if not given.
        facts ([`LogFacts`], *optional*): From [`load_facts`].
    """
    if not (set(EVENT_FEATURES) <= set(events.column_names) and set(ITEM_FEATURES) <= set(items.column_names)):
        return None
    if facts is not None:
        try:
            given = facts if has_time is None else facts._replace(has_time=has_time)
            return EventLog(name, events, items, *given)
        except DataError:
            return None
    if has_time is None:
        has_time = not are_positions(events["user_id"], events["timestamp"])
    has_searches = bool(pc.any(pc.is_valid(events["query"])).as_py())
    try:
        return EventLog(name, events, items, has_time, query_source="logged" if has_searches else "none")
    except DataError:
        # Tables with our columns and rows that a log cannot have: the reader leaves those out.
        return None


def note_origin(log: EventLog) -> EventLog:
    """Say in the notes of a log what its tables on the Hub do not: whether users typed its queries."""
    if log.query_source == "none":
        return log
    return log.with_notes("The source of queries is not stored on the Hub: they count as typed by users.")


def _load(repository: str | Path, configuration: str, revision: str | None) -> pa.Table:
    try:
        splits = datasets.load_dataset(str(repository), configuration, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        at = f" at revision {revision!r}" if revision is not None else ""
        reason = str(error).split("\n")[0]
        raise DataError(
            f"The configuration {configuration!r} of {repository}{at} cannot be read: {reason} A log on the Hub has "
            f"the configurations {_EVENTS!r} and {_ITEMS!r}, as EventLog.to_dataset_dict makes them; a private "
            "repository needs `hf auth login`."
        ) from error
    tables = [split.data.table for split in splits.values() if split.num_rows]
    if not tables:
        raise DataError(f"The configuration {configuration!r} of {repository} is empty; a log needs at least one row.")
    # The metadata describe the features of one split.
    return pa.concat_tables([table.replace_schema_metadata() for table in tables], promote_options="permissive")


__all__ = ["LogFacts", "load_facts", "load_tables", "note_origin", "read_hub", "restore_log"]
