# SPDX-License-Identifier: Apache-2.0
"""Reproduce the tables and figures of a paper on any log, and report which of its claims hold there.

```bash
python recipes/papers.py --paper intsr --config movielens-100k --num_train_epochs 2
python recipes/papers.py --paper synergen --config recipes/synergen/scientific.yaml --data_dir amazon18-scientific
python recipes/papers.py --paper gensar --config my/{family}.yaml --which "table 5" "figure 6"
python recipes/papers.py --paper trade_off --config movielens-100k
```

`recipes/papers/<paper>.yaml` names the exhibits of a paper, the runs that each needs, and its claims; `trade_off`
trains all families on one task, on the other, and on both. Each run is one of `train_<family>.py`; all share the
stages before training. Finished runs are not repeated. Options that this script does not know go to every run: with
`--max_minutes 5`, no run takes longer than that.

`<output_dir>/report/report.md` contains the tables with 95 % intervals, the figures, and for each claim the paired
difference: it holds, it does not, or 0 is inside the interval. `numbers.parquet` and `claims.json` contain the same.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seekrec.recipes.paper_report import summarize
from seekrec.recipes.paper_runs import reproduce
from seekrec.recipes.papers import Trainings, read_paper
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_known_arguments


@dataclass
class PaperArguments:
    """A paper, a log, and the length of the trainings."""

    paper: str = field(metadata={"help": "gensar, gensr, intsr, synergen or trade_off."})
    config: str = field(metadata={"help": "Name or path of the settings file; {family} in it is replaced."})
    data_dir: str | None = field(default=None, metadata={"help": "Folder of the log, as in the recipe."})
    output_dir: str | None = field(default=None, metadata={"help": "Folder; runs/papers/<paper> if not given."})
    which: list[str] = field(default_factory=list, metadata={"help": 'Exhibits, such as "table 4"; all if not given.'})
    num_train_epochs: float | None = field(
        default=None, metadata={"help": "Epochs of each run; those of the settings file if not given."}
    )


def main(arguments: PaperArguments, options: Sequence[str]) -> None:
    """Make the report, and print what became of each claim."""
    if arguments.data_dir is not None:
        options = ["--data_dir", arguments.data_dir, *options]
    trainings = Trainings(
        read_paper(arguments.paper),
        arguments.config,
        Path(arguments.output_dir or f"runs/papers/{arguments.paper}"),
        Path(__file__).parent,
        options,
        arguments.num_train_epochs,
    )
    report, findings = reproduce(trainings, arguments.which)
    for exhibit, says in dict.fromkeys((one.exhibit, one.says) for one in findings):
        own = [one for one in findings if (one.exhibit, one.says) == (exhibit, says)]
        print(f"{exhibit}: {says}: {summarize(own)}")
    print(f"report: {report}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("seekrec.recipes.paper_runs").setLevel(logging.INFO)
    with one_line_errors(__file__):
        main(*parse_known_arguments((PaperArguments,), sys.argv[1:]))
