# SPDX-License-Identifier: Apache-2.0
"""Measure the value of negatives that were available at the time of the target (IntSR, equation 15, table 3).

```bash
python recipes/temporal_alignment.py
python recipes/temporal_alignment.py --logs simulated --negatives uniform
```

Two logs. `simulated` is made here, seeded: items appear and vanish, and a user takes, of what is available, what is of
a kind they like or goes with what they took last; half of the events are searches for a kind. `movielens` is
MovieLens-100K, where a film is available from its first rating on. For each kind of negatives IntSR is trained twice,
its negatives drawn among the items available at the time of the request, and among all items; both are measured on
the test cases, among the items available at the time of each, as in the paper. Prints a JSON line for each kind and
task: NDCG@10 of both, the difference, its 95 % paired bootstrap interval and p-value. Options that this script
does not know are passed on to `train_intsr.py`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seekrec.errors import ConfigurationError
from seekrec.evaluation import compare, read_results
from seekrec.recipes.variants import as_options, run_variant
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_known_arguments

RECIPES = Path(__file__).parent
DAY = 86_400
KINDS = ("lamp", "kettle", "rug", "clock", "vase", "chair", "shelf", "tray", "bench", "mirror", "basket", "candle")
LOGS = ("simulated", "movielens")
NEGATIVES = ("uniform", "popularity", "hard")


@dataclass
class AlignmentArguments:
    """Logs and negatives to compare, and the length of training."""

    logs: list[str] = field(default_factory=lambda: list(LOGS), metadata={"help": "simulated, movielens."})
    negatives: list[str] = field(default_factory=lambda: list(NEGATIVES), metadata={"help": "Kinds to compare."})
    num_negatives: int = field(default=20, metadata={"help": "Negatives of a question, as in the paper."})
    num_train_epochs: float = field(default=10.0, metadata={"help": "Number of epochs of each model."})
    output_dir: str = field(default="runs/temporal-alignment", metadata={"help": "Folder of the models."})
    num_items: int = field(default=900, metadata={"help": "Items of the simulated log."})
    num_users: int = field(default=1500, metadata={"help": "Users of the simulated log."})
    simulation_seed: int = field(default=0, metadata={"help": "Seed of the simulated log."})


def main(arguments: AlignmentArguments, options: Sequence[str]) -> None:
    """Train and compare."""
    for name, known in (("logs", LOGS), ("negatives", NEGATIVES)):
        for value in getattr(arguments, name):
            if value not in known:
                raise ConfigurationError(f"`{name}` has {value!r}; use some of {', '.join(known)}.")
    for log in arguments.logs:
        folder = Path(arguments.output_dir) / log
        source = {}
        if log == "simulated":
            source = write_simulated_log(
                folder / "log", arguments.num_items, arguments.num_users, seed=arguments.simulation_seed
            )
        for kind in arguments.negatives:
            rows = []
            for aligned in (True, False):
                changes = {
                    **source,
                    "negatives": kind,
                    "num_training_negatives": arguments.num_negatives,
                    "ranked_items": "available",
                }
                if not aligned:
                    changes["without"] = "alignment"
                name = f"{kind}, {'aligned' if aligned else 'not aligned'}"
                results = run_variant(
                    RECIPES / "train_intsr.py",
                    str(RECIPES / "intsr" / f"alignment-{log}.yaml"),
                    folder,
                    name,
                    [*options, *as_options(changes)],
                    num_train_epochs=arguments.num_train_epochs,
                )
                rows.append(read_results(results))
            for found in compare(*rows):
                line = {
                    "log": log,
                    "negatives": kind,
                    "behavior": found.behavior,
                    "protocol": found.protocol,
                    "aligned": round(found.value_a, 4),
                    "not_aligned": round(found.value_b, 4),
                    "difference": round(found.difference, 4),
                    "interval": [round(found.interval.low, 4), round(found.interval.high, 4)],
                    "p_value": found.p_value,
                    "num_cases": found.num_cases,
                }
                print(json.dumps(line), flush=True)


def write_simulated_log(
    folder: Path, num_items: int, num_users: int, *, seed: int, num_days: int = 150
) -> dict[str, str]:
    """Write a log in which items appear and vanish: `events.parquet` and `items.parquet`.

    Args:
        folder (`Path`): Where to.
        num_items (`int`): Items; each is available for 10 to 50 days, so about a sixth is at any time.
        num_users (`int`): Users; each takes 8 to 20 items, all at different times.
        seed (`int`): Of everything.
        num_days (`int`): Length of the log.

    Returns:
        `dict[str, str]`: Settings of the recipe that read it.
    """
    draws = np.random.default_rng(seed)
    kinds = draws.integers(len(KINDS), size=num_items)
    begins = draws.integers(-30 * DAY, num_days * DAY, size=num_items)
    ends = begins + draws.integers(10 * DAY, 50 * DAY, size=num_items)
    appeal = draws.gumbel(size=num_items)  # some items sell well wherever they are
    follows = draws.integers(len(KINDS), size=len(KINDS))  # what goes with each kind
    events: dict[str, list] = {"user_id": [], "item_id": [], "timestamp": [], "query": []}
    for user in range(num_users):
        taste = np.zeros(len(KINDS))
        taste[draws.choice(len(KINDS), size=2, replace=False)] = 2.5
        last: int | None = None
        taken: set[int] = set()
        for time in np.unique(draws.integers(num_days * DAY, size=draws.integers(8, 21))).tolist():
            liking = taste[kinds] + appeal
            if last is not None:
                liking = liking + 2.0 * (kinds == follows[kinds[last]])
            is_free = (begins <= time) & (time < ends)
            is_free[list(taken)] = False
            # Gumbel noise on the logarithms of weights draws in proportion to the weights.
            item = int(np.argmax(np.where(is_free, liking + draws.gumbel(size=num_items), -np.inf)))
            is_search = draws.random() < 0.5
            for name, value in (
                ("user_id", f"u{user}"),
                ("item_id", f"i{item}"),
                ("timestamp", time),
                ("query", KINDS[kinds[item]] if is_search else None),
            ):
                events[name].append(value)
            last = item
            taken.add(item)
    items = {
        "item_id": [f"i{item}" for item in range(num_items)],
        "title": [f"{KINDS[kind]} {item}" for item, kind in enumerate(kinds.tolist())],
        "categories": [[["Home", KINDS[kind]]] for kind in kinds.tolist()],
        "available_from": begins,
        "available_until": ends,
    }
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**events, "query": pa.array(events["query"], pa.string())}), folder / "events.parquet")
    pq.write_table(pa.table(items), folder / "items.parquet")
    return {"events": str(folder / "events.parquet"), "items": str(folder / "items.parquet")}


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_known_arguments((AlignmentArguments,), sys.argv[1:]))
