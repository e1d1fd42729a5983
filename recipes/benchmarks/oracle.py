# SPDX-License-Identifier: Apache-2.0
"""Measure how close systems come to the best possible ranking of a simulated log. Prints JSON lines.

    python recipes/benchmarks/oracle.py
    python recipes/benchmarks/oracle.py --num_events 60000 --num_items 600 --folder runs/oracle-60000

The log is simulated and read like any user's log, and IntSR is trained on it with automatically chosen settings. The
same test cases are ranked by the **oracle**, which orders items by the probabilities that the simulator drew from; by
IntSR; and by the baselines of every recipe, such as popularity, BM25 and SASRec. A line for each system and task has
NDCG@10 and `of_oracle`, its share of the oracle's. Options that this script does not know are those of
`train_intsr.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.evaluation import Scorer, read_results
from seekrec.evaluation.tuning import Tuning
from seekrec.events.simulator import SimulatedShop, simulate
from seekrec.recipes import IntSRRecipe
from seekrec.recipes.launch import make_recipe
from seekrec.schema import BEHAVIORS, Behavior, IdMap, Request
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_known_arguments

METRIC = "ndcg@10"


@dataclass
class Arguments:
    """The simulated shop."""

    num_events: int = field(default=200_000, metadata={"help": "Events of the log."})
    num_items: int = field(default=2_000, metadata={"help": "Items of the shop."})
    simulation_seed: int = field(default=0, metadata={"help": "Seed of the log."})
    folder: str = field(default="runs/oracle", metadata={"help": "Folder of the log and the model."})


class OracleSystem:
    """The oracle of a shop, over the rows of a catalogue."""

    behaviors: tuple[Behavior, ...] = BEHAVIORS

    def __init__(self, shop: SimulatedShop, id_map: IdMap) -> None:
        self._oracle = shop.oracle
        self._rows = np.asarray(pc.index_in(pa.array(id_map.ids), value_set=shop.items["item_id"].combine_chunks()))

    def score_all(self, requests: Sequence[Request]) -> np.ndarray:
        """Return the chances of the items; see `Scorer`."""
        return self._oracle.score_all(requests)[:, self._rows]


@dataclass
class OracleRecipe(IntSRRecipe):
    """The recipe of IntSR, with the oracle among its baselines."""

    shop: ClassVar[SimulatedShop]

    @classmethod
    def family(cls) -> str:
        """Return the name of the family, whose settings these are."""
        return IntSRRecipe.family()

    def make_baselines(self, tuning: Tuning) -> Mapping[str, Scorer]:
        """Make the baselines of every recipe, and the oracle."""
        return {"oracle": OracleSystem(self.shop, self.catalog.id_map), **super().make_baselines(tuning)}


def main(arguments: Arguments, options: Sequence[str]) -> None:
    """Simulate, train, and rank."""
    folder = Path(arguments.folder)
    shop = simulate(arguments.num_events, num_items=arguments.num_items, seed=arguments.simulation_seed)
    shop.write(folder / "log")
    OracleRecipe.shop = shop
    own = {"events": folder / "log" / "events", "items": folder / "log" / "items.parquet", "output_dir": folder}
    argv = [text for name, path in own.items() for text in (f"--{name}", str(path))]
    recipe = make_recipe(OracleRecipe, [*argv, *options])
    recipe.run()
    rows = [row for row in read_results(recipe.output_dir / "model" / "results.json") if row.protocol == "full"]
    best = {row.behavior: row.metrics[METRIC] for row in rows if row.system == "oracle"}
    for row in rows:
        line = {
            "system": row.system,
            "behavior": row.behavior,
            "num_cases": row.num_cases,
            METRIC: round(row.metrics[METRIC], 4),
            "of_oracle": round(row.metrics[METRIC] / best[row.behavior], 3),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_known_arguments((Arguments,), sys.argv[1:]))
