# SPDX-License-Identifier: Apache-2.0
"""Measure reading published logs: rows, what was refused and why, rows per second. Prints one JSON line per source.

    python recipes/benchmarks/readers.py --source movielens=data/ml-latest-small amazon=data/toys
    python recipes/benchmarks/readers.py --source movielens=data/ml-latest-small --queries tags

Each log is read once, in this process; `seconds` cover everything from the files to the checked, sorted log.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass, field
from typing import Literal

from seekrec.errors import ConfigurationError
from seekrec.events.readers import READERS, TAGGED
from seekrec.schema import IMPRESSION
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

# How notes of a log begin that say what was left out, and the reasons in them.
_LEFT_OUT = re.compile(r"(?P<file>.+?): \d+ of \d+ rows cannot be used: (?P<reasons>.+)\. They were left out\.")


@dataclass
class Arguments:
    """What is read."""

    source: list[str] = field(default_factory=list, metadata={"help": "Logs, as name=folder."})
    queries: Literal["none", "tags"] = field(default="none", metadata={"help": "tags: each tag is a search."})


def measure(name: str, folder: str, queries: str) -> dict[str, object]:
    """Read one log and return what it holds and how long that took."""
    if name not in READERS:
        raise ConfigurationError(f"`source` contains the name {name!r}; use one of {', '.join(READERS)}.")
    options = {"queries": queries} if name in TAGGED else {}
    start = time.perf_counter()
    log = READERS[name](folder or None, **options)
    seconds = time.perf_counter() - start
    refused = refused_rows(log.notes)
    counts = log.describe()
    num_rows = log.num_events + log.num_items + sum(refused.values())
    return {
        "source": name,
        "found": log.notes[0],
        "rows": num_rows,
        "refused": refused,
        "events": log.num_events,
        "searches": counts["num_events_by_behavior"]["search"],
        "impressions": counts["num_events_by_action"].get(IMPRESSION, 0),
        "users": log.num_users,
        "items": log.num_items,
        "items_with_events": counts["num_items_with_events"],
        "seconds": round(seconds, 3),
        "rows_per_second": round(num_rows / seconds),
    }


def refused_rows(notes: tuple[str, ...]) -> dict[str, int]:
    """Return the number of rows by file and reason, as the notes of the log say."""
    counts: dict[str, int] = {}
    for note in notes:
        if match := _LEFT_OUT.fullmatch(note):
            for reason in re.split(r"\); (?=\d+ [a-z])", match["reasons"]):
                number, _, problem = reason.split(" (first: ")[0].partition(" ")
                key = f"{match['file']}: {problem}"
                counts[key] = counts.get(key, 0) + int(number)
    return counts


def main(arguments: Arguments) -> None:
    """Read the logs one after the other."""
    if not arguments.source:
        raise ConfigurationError("`source` is empty; pass logs as name=folder, such as movielens=data/ml-1m.")
    for source in arguments.source:
        name, _, folder = source.partition("=")
        print(json.dumps(measure(name, folder, arguments.queries), ensure_ascii=False), flush=True)


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
