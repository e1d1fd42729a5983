# SPDX-License-Identifier: Apache-2.0
"""Measure what each part or setting of a model contributes, by short trainings that differ in one thing.

```bash
python recipes/ablations.py --recipe gensar --config recipes/gensar/scientific.yaml --data_dir amazon18-scientific
python recipes/ablations.py --recipe gensr --config recipes/gensr/scientific.yaml --data_dir amazon18-scientific
python recipes/ablations.py --recipe intsr --config recipes/intsr/scientific.yaml --data_dir amazon18-scientific
```

`recipes/variants/<recipe>.yaml` lists the variants in groups (`--which`) and, under `all`, the options that every
variant has; `full` is the model with these options alone. Each variant is a run of `train_<recipe>.py` for
`--num_train_epochs`, in its own folder under `--output_dir`; all variants share the stages before training. A variant
whose results exist is not run again unless its options, or the files they name, have changed; a variant equal to the
full model is not run at all. Options that this script does not know are passed on to the recipe. The script prints one
JSON line for each comparison with the full model: the metric of both, their difference with its 95 % paired bootstrap
interval, and the p-value. `<output_dir>/ablations.png` shows the differences, `<output_dir>/beta.png` a curve for
variants such as `beta = 0.1`. The tables and figures of the papers, with their claims, are made by `papers.py`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seekrec.evaluation import ResultRow, compare, read_results
from seekrec.recipes.drawing import Spread, draw_bars, draw_curves
from seekrec.recipes.variants import FULL, choose_variants, run_variant
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import is_given, parse_known_arguments, read_settings

RECIPES = Path(__file__).parent


@dataclass
class AblationArguments:
    """Variants to train, and for how long."""

    recipe: str = field(metadata={"help": "Family: gensar, gensr, intsr or synergen."})
    config: str = field(metadata={"help": "YAML file of the recipe."})
    data_dir: str | None = field(default=None, metadata={"help": "Folder of the log, as in the recipe."})
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder of the variants; runs/<recipe>-ablations if not given."}
    )
    which: list[str] = field(default_factory=lambda: ["parts"], metadata={"help": "Groups of variants to run."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "Number of epochs of each variant."})
    metric: str = field(default="ndcg@10", metadata={"help": "Metric that is compared."})


def main(arguments: AblationArguments, options: Sequence[str]) -> None:
    """Run the variants, compare each with the full model, and draw the differences."""
    settings = {one.name: one.value for one in read_settings(arguments.config) if not is_given(options, one.name)}
    variants = choose_variants(arguments.recipe, arguments.which, settings)
    if arguments.data_dir is not None:
        options = ["--data_dir", arguments.data_dir, *options]
    folder = Path(arguments.output_dir or f"runs/{arguments.recipe}-ablations")
    results = {
        name: read_results(
            run_variant(
                RECIPES / f"train_{arguments.recipe}.py",
                arguments.config,
                folder,
                FULL if changes == variants[FULL] else name,
                [*options, *changes],
                num_train_epochs=arguments.num_train_epochs,
            )
        )
        for name, changes in variants.items()
    }
    lines = []
    for name, rows in results.items():
        if name == FULL:
            continue
        for found in compare(rows, results[FULL], metrics=(arguments.metric,)):
            line = {
                "variant": name,
                "behavior": found.behavior,
                "protocol": found.protocol,
                "metric": found.metric,
                "variant_value": round(found.value_a, 4),
                "full_value": round(found.value_b, 4),
                "difference": round(found.difference, 4),
                "interval": [round(found.interval.low, 4), round(found.interval.high, 4)],
                "p_value": found.p_value,
                "num_cases": found.num_cases,
            }
            lines.append(line)
            print(json.dumps(line), flush=True)
    (folder / "ablations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    draw(results, lines, arguments.metric, folder)


def draw(results: dict[str, list[ResultRow]], lines: Sequence[dict], metric: str, folder: Path) -> None:
    """Draw the differences with their intervals, and a curve for each setting with several values; a panel a task."""
    bars: dict[str, dict[str, Spread]] = {}
    for line in lines:
        if " = " not in line["variant"]:
            own = bars.setdefault(f"{line['behavior']}: {metric} less that of the full model", {})
            own[f"{line['variant']}, {line['protocol']}"] = Spread(line["difference"], *line["interval"])
    if bars:
        draw_bars(folder / "ablations.png", bars, unit=metric, mark=0.0)
    for name in sorted({variant.partition(" = ")[0] for variant in results if " = " in variant}):
        curves: dict[str, dict[str, list[tuple[float, Spread]]]] = {}
        for variant, rows in results.items():
            for row in rows if variant.startswith(f"{name} = ") else ():
                spread = Spread(row.metrics[metric], *row.intervals[metric])
                own_curves = curves.setdefault(f"{row.behavior}: {metric}", {})
                own_curves.setdefault(row.protocol, []).append((float(variant.rpartition(" ")[2]), spread))
        draw_curves(folder / f"{name.replace(' ', '-')}.png", curves, axis=name)


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_known_arguments((AblationArguments,), sys.argv[1:]))
