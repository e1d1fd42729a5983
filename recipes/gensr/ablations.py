# SPDX-License-Identifier: Apache-2.0
"""What each part of GenSR is worth (figure 5), and what beta and tau do (figure 6), on a short schedule.

```bash
python recipes/gensr/ablations.py --config recipes/gensr/scientific.yaml --data_dir amazon18-scientific
python recipes/gensr/ablations.py --config recipes/gensr/scientific.yaml --data_dir amazon18-scientific --which joint
```

Every variant is a run of `train_gensr.py` with one setting changed and `--num_train_epochs` of the ablation, in a
folder of its own under `--output_dir`; all share the stages before training. A variant whose results are there is not
run again. Prints a JSON line for each comparison with the full model: NDCG@10 of both, their difference with its 95 %
paired bootstrap interval, and the p-value. `<output_dir>/ablations.png` draws them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from transformers import HfArgumentParser

from seekrec.errors import ConfigurationError, MissingDependencyError
from seekrec.evaluation import ResultRow, compare, read_results
from seekrec.schema import BEHAVIORS

SCRIPT = Path(__file__).parents[1] / "train_gensr.py"
FULL = "full"

# Name of a variant: what is changed.
PARTS: dict[str, list[str]] = {
    "collaborative view only": ["--prompt_views", "collaborative", "--contrast_weight", "0"],
    "semantic view only": ["--prompt_views", "semantic", "--contrast_weight", "0"],
    "without soft filter": ["--soft_filter", "false"],
    "without contrast": ["--contrast_weight", "0"],
}
TASKS: dict[str, list[str]] = {
    "search only": ["--tasks", "search"],
    "recommendation only": ["--tasks", "recommendation"],
}
# The grids of the paper.
BETAS = (0.001, 0.01, 0.1, 0.2, 0.3)
TAUS = (0.01, 0.03, 0.05, 0.07, 0.09)


@dataclass
class AblationArguments:
    """Which variants, and how long each is trained; other options go to `train_gensr.py`."""

    config: str = field(metadata={"help": "YAML file of `train_gensr.py`."})
    data_dir: str | None = field(default=None, metadata={"help": "Folder of the log, as for `train_gensr.py`."})
    output_dir: str = field(default="runs/gensr-ablations", metadata={"help": "A folder for each variant goes here."})
    which: list[str] = field(
        default_factory=lambda: ["parts", "beta", "tau"], metadata={"help": "parts, beta, tau, joint (single tasks)."}
    )
    num_train_epochs: float = field(default=3.0, metadata={"help": "Passes of each variant."})
    protocols: list[str] = field(default_factory=lambda: ["uniform", "bm25"], metadata={"help": "What is ranked."})
    metric: str = field(default="ndcg@10", metadata={"help": "What is compared."})


def main(arguments: AblationArguments, options: Sequence[str]) -> None:
    """Run the variants, compare, draw."""
    variants = choose_variants(arguments.which)
    folder = Path(arguments.output_dir)
    results = {
        name: read_results(run_variant(arguments, folder, name, changes, options))
        for name, changes in variants.items()
    }
    lines = []
    for name, rows in results.items():
        if name == FULL:
            continue
        for found in compare(own(rows), own(results[FULL]), metrics=(arguments.metric,)):
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
    draw(results, lines, arguments.metric, folder / "ablations.png")


def choose_variants(which: Sequence[str]) -> dict[str, list[str]]:
    """Give the settings each variant changes; the full model comes first.

    Raises:
        ConfigurationError: If a group is unknown.
    """
    groups = {
        "parts": PARTS,
        "beta": {f"beta = {beta:g}": ["--contrast_weight", str(beta)] for beta in BETAS},
        "tau": {f"tau = {tau:g}": ["--contrast_temperature", str(tau)] for tau in TAUS},
        "joint": TASKS,
    }
    variants: dict[str, list[str]] = {FULL: []}
    for name in which:
        if name not in groups:
            raise ConfigurationError(f"`which` has {name!r}; use some of {', '.join(groups)}.")
        variants |= groups[name]
    return variants


def run_variant(
    arguments: AblationArguments, folder: Path, name: str, changes: Sequence[str], options: Sequence[str]
) -> Path:
    """Train and evaluate a variant, unless that is done; gives its results file."""
    target = folder / "".join(letter if letter.isalnum() or letter == "." else "-" for letter in name)
    results = target / "model" / "results.json"
    settings = yaml.safe_load(Path(arguments.config).read_text(encoding="utf-8"))
    # Evaluation and saving go by epochs here: the schedule is another than the file's.
    fixed = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": arguments.num_train_epochs}
    command = [sys.executable, str(SCRIPT), "--config", arguments.config, *options]
    for key, value in {**fixed, "output_dir": target}.items():
        command += [f"--{key}", str(value)]
    if arguments.data_dir is not None:
        command += ["--data_dir", arguments.data_dir]
    command += ["--candidate_protocols", *arguments.protocols]
    # Writing identifiers is no part of figure 5, and its cost would be paid by every variant.
    command += ["--identifier_weight", "0", "--selection_protocols", *arguments.protocols, *changes]
    if settings.get("history_in_prompt") == "both":
        command += ["--history_in_prompt", "filtered"]
    if not results.is_file():
        target.mkdir(parents=True, exist_ok=True)
        stages = folder / "stages"
        stages.mkdir(exist_ok=True)
        if not (target / "stages").exists():
            os.symlink(stages.resolve(), target / "stages", target_is_directory=True)
        with open(target / "log.txt", "w", encoding="utf-8") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise ConfigurationError(f"The variant {name!r} failed; {target / 'log.txt'} says why.")
    return results


def own(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """The rows of the model itself."""
    return [row for row in rows if row.system == "GenSR"]


def draw(results: dict[str, list[ResultRow]], lines: Sequence[dict], metric: str, path: Path) -> None:
    """Draw differences with their intervals, and the curves of beta and tau, each task a panel."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingDependencyError('The picture needs matplotlib; pip install "seekrec[bench]".') from error
    figure, axes = plt.subplots(2, 3, figsize=(15, 8), layout="constrained")
    for panels, behavior in zip(axes, BEHAVIORS, strict=True):
        chosen = [line for line in lines if line["behavior"] == behavior and "=" not in line["variant"]]
        labels = [f"{line['variant']}, {line['protocol']}" for line in chosen]
        middles = [line["difference"] for line in chosen]
        errors = [
            [line["difference"] - line["interval"][0] for line in chosen],
            [line["interval"][1] - line["difference"] for line in chosen],
        ]
        panels[0].errorbar(middles, range(len(chosen)), xerr=errors, fmt="o")
        panels[0].set_yticks(range(len(chosen)), labels)
        panels[0].axvline(0, linewidth=0.5)
        panels[0].set_title(f"{behavior}: {metric} less than the full model's")
        for panel, name in zip(panels[1:], ("beta", "tau"), strict=True):
            points: dict[str, list[tuple[float, float]]] = {}
            for variant, rows in results.items():
                if variant.startswith(f"{name} = "):
                    for row in own(rows):
                        if row.behavior == behavior:
                            value = float(variant.rpartition(" ")[2])
                            points.setdefault(row.protocol, []).append((value, row.metrics[metric]))
            for protocol, curve in points.items():
                panel.plot(*zip(*sorted(curve), strict=True), marker="o", label=protocol)
            panel.set_xlabel(name)
            panel.set_ylabel(metric)
            panel.set_title(f"{behavior}: {name}")
            if points:
                panel.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main(*HfArgumentParser(AblationArguments).parse_args_into_dataclasses(return_remaining_strings=True))
