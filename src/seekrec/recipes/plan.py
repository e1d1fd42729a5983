# SPDX-License-Identifier: Apache-2.0
"""The plan of a run without a settings file: settings chosen from the log, the machine and the available time.

Options on the command line take precedence; the plan fills in the rest. It is printed with its reasons and saved as
`<output_dir>/plan.json`, so that the same command resumes with the same plan. `<output_dir>/settings.yaml` contains
all settings of the run, for `--config`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path

import yaml

from seekrec.events import EventLog
from seekrec.events.queries import category_queries
from seekrec.events.report import LogSummary, summarize_log
from seekrec.recipes.arguments import EvaluationArguments, RunArguments
from seekrec.recipes.choices import choose
from seekrec.recipes.costs import StageCost, add_epochs, estimate_costs, format_costs, most_epochs
from seekrec.recipes.fit import Fit, RankingTimes
from seekrec.recipes.machine import Machine
from seekrec.recipes.situation import Choice, Situation, Value
from seekrec.training.budget import LEAST_CASES
from seekrec.util.files import replace_file, write_json
from seekrec.util.hashing import json_digest
from seekrec.util.redaction import is_secret
from seekrec.util.settings import option_names, option_values

logger = logging.getLogger(__name__)

PLAN_FILE = "plan.json"
# Of a run that may still be refused.
NOTED_FILE = "plan.noted.json"
SETTINGS_FILE = "settings.yaml"
# Raised when the same log on the same machine gets other settings.
PLAN_VERSION = 3
# What is fitted to timed steps, if a run has a budget.
FITTED = ("num_train_epochs", "eval_steps", "save_steps", "max_validation_cases", "max_test_cases")
# Seconds of a run that a person may want to be shorter.
_LONG = 1200.0
# Settings that say where and how far, not what; another one of them is no reason for another plan.
_OF_THE_PLACE = {
    *("output_dir", "stages_dir", "stop_after", "dry_run", "disable_tqdm", "compare_with", "baselines"),
    "engine",
    # One process of several does the first stages alone, without a backend.
    "ddp_backend",
}


@dataclass(frozen=True)
class Plan:
    """Settings that were chosen, and what the run will cost.

    Args:
        family (`str`): gensar, gensr, intsr or synergen.
        log (`str`): Name of the log.
        machine (`str`): The machine, in words.
        choices (`Sequence[Choice]`): Settings and reasons.
        costs (`Sequence[StageCost]`): Time, memory and disk of each stage, estimated.
        key (`str`): A hash of what the plan depends on.
        given (`Mapping`): What the command line gave.
        most_epochs (`float`): Number of epochs that would be trained if time did not matter.
        is_measured (`bool`): Whether epochs and cases were fitted to timed steps.
    """

    family: str
    log: str
    machine: str
    choices: Sequence[Choice]
    costs: Sequence[StageCost]
    key: str
    given: Mapping[str, object]
    most_epochs: float
    is_measured: bool = False

    @property
    def values(self) -> dict[str, Value]:
        """The chosen settings, by name."""
        return {one.name: one.value for one in self.choices}

    def with_fit(self, fit: Fit) -> Plan:
        """Return the plan with what timed steps and rankings allow; what the command line gave stays."""
        reason = f"{fit.step_seconds:.3g} s a step, timed"
        measured = [
            Choice("num_train_epochs", fit.num_train_epochs, reason),
            Choice("eval_steps", fit.eval_steps, f"{fit.num_validations} times in all"),
            Choice("save_steps", fit.eval_steps, "with each evaluation"),
            Choice("max_validation_cases", fit.num_validation_cases, "of each task"),
            Choice("max_test_cases", fit.num_test_cases, "of each task, in the time that is left"),
        ]
        # Evaluations and checkpoints go together.
        fixed = set(self.given) | ({"eval_steps", "save_steps"} if self._gives_intervals else set())
        new = {one.name: one for one in measured if one.name not in fixed}
        old = {one.name: one for one in self.choices}
        return replace(self, choices=[*{**old, **new}.values()], is_measured=True)

    def apply(self, *groups: object) -> None:
        """Set what was fitted to timed steps in groups of settings; what the command line gave is not among it.

        Args:
            groups (`object`): Groups of settings.
        """
        for name, value in self.values.items():
            for group in groups:
                if name in FITTED and hasattr(group, name):
                    setattr(group, name, value)

    def with_choices(self, chosen: Sequence[Choice]) -> Plan:
        """Return the plan with other choices in place of its own of the same names."""
        names = [one.name for one in chosen]
        return replace(self, choices=[*(one for one in self.choices if one.name not in names), *chosen])

    @property
    def _gives_intervals(self) -> bool:
        return not {"eval_steps", "save_steps", "eval_strategy", "save_strategy"}.isdisjoint(self.given)

    def note(self, folder: Path) -> None:
        """Write the plan for the other processes of the run; those files that `save` writes stay as they are."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / NOTED_FILE, asdict(self))

    def save(self, folder: Path) -> None:
        """Write `plan.json`, and `settings.yaml`: what was given and what was chosen, with the reasons.

        Only once nothing is left to refuse the run: they may be those of one that is finished.
        """
        write_json(folder / PLAN_FILE, asdict(self))
        without = set(option_names(RunArguments))
        lines = [f"# The settings of a run, for train_{self.family}.py --config {SETTINGS_FILE}", "# Given:"]
        lines += [
            _line(name, value) for name, value in self.given.items() if name not in without and value is not None
        ]
        lines.append("# Chosen:")
        lines += [_line(one.name, one.value) + (f"  # {one.reason}" if one.reason else "") for one in self.choices]
        with replace_file(folder / SETTINGS_FILE) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        forget_noted(folder)

    @classmethod
    def load(cls, folder: Path, key: str) -> Plan | None:
        """Read the plan of a folder, or the one noted there; `None` where there is none of that key."""
        # In this order: what is noted is saved before it is forgotten.
        return cls._read(folder / NOTED_FILE, key) or cls._read(folder / PLAN_FILE, key)

    @classmethod
    def _read(cls, path: Path, key: str) -> Plan | None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["key"] != key:
                return None
            choices = [Choice(**one) for one in content.pop("choices")]
            costs = [StageCost(**one) for one in content.pop("costs")]
            return cls(choices=choices, costs=costs, **content)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def __str__(self) -> str:
        width = max(len(one.name) for one in self.choices)
        values = [_as_words(one.value) for one in self.choices]
        column = min(40, max(map(len, values)))
        rows = [
            f"  {one.name:<{width}}  {value:<{column}}  {one.reason}".rstrip()
            for one, value in zip(self.choices, values, strict=True)
        ]
        total = sum(one.seconds for one in self.costs)
        is_long = total > _LONG and "max_minutes" not in self.given
        return "\n".join(
            [
                f"plan of {self.family} for {self.log}, on {self.machine}",
                *rows,
                "expected:",
                *(f"  {line}" for line in format_costs(self.costs)),
                *(["--max_minutes M fits the run into M minutes."] if is_long else []),
            ]
        )


def forget_noted(folder: Path) -> None:
    """Delete the plan that was noted in a folder, if there is one."""
    (folder / NOTED_FILE).unlink(missing_ok=True)


def fit_test(
    evaluation: EvaluationArguments, times: RankingTimes, seconds: float, wanted: int | None
) -> tuple[list[Choice], RankingTimes]:
    """Set the baselines and test cases that the time which is left allows.

    Args:
        evaluation ([`EvaluationArguments`]): The number of cases that was fitted before training, which is set again,
            and the baselines.
        times ([`RankingTimes`]): How long a case takes.
        seconds (`float`): What is left.
        wanted (`int`, *optional*): The number of cases if time did not matter; all if not given.

    Returns:
        `tuple[list[Choice], RankingTimes]`: What was changed, and the times of what is left in the table.
    """
    planned = min(evaluation.max_test_cases or times.num_test, times.num_test)
    # Training that took less than it was timed to leaves time for more cases than were planned.
    most = min(wanted or times.num_test, times.num_test)
    chosen = []
    if times.baseline_seconds and times.test_seconds(min(LEAST_CASES, most)) > seconds:
        logger.warning("No time is left for the baselines; the table shows the model alone.")
        evaluation.baselines, times = ["none"], times.without_baselines()
        chosen.append(Choice("baselines", ["none"], "no time was left for them"))
    number = min(most, times.fit_test(seconds))
    if number != planned:
        logger.info("%d of %d test cases of each task fit into the remaining time.", number, most)
        evaluation.max_test_cases = number
        chosen.append(Choice("max_test_cases", number, "of each task, in the time that was left after training"))
    return chosen, times


def make_plan(
    family: str,
    log: EventLog,
    given: Mapping[str, object],
    running: RunArguments,
    output_dir: Path,
    *,
    summary: LogSummary,
    is_partitioned: bool = False,
) -> Plan:
    """Choose the settings that nobody gave; an earlier plan for the same log and the same settings is taken over.

    Args:
        family (`str`): gensar, gensr, intsr or synergen.
        log ([`EventLog`]): The log.
        given (`Mapping`): Settings of the command line, by name.
        running ([`RunArguments`]): `max_minutes`.
        output_dir (`Path`): Folder of the run.
        summary ([`LogSummary`]): Summary of the log.
        is_partitioned (`bool`): Whether the log is read a partition at a time.

    Raises:
        ConfigurationError: If nothing can be learned from the log.
    """
    machine = Machine.measure(output_dir, use_cpu=bool(given.get("use_cpu", False)))
    key = json_digest(
        {
            "version": PLAN_VERSION,
            "family": family,
            "log": log.fingerprint,
            "gpu": machine.gpu,
            "given": {name: str(value) for name, value in given.items() if name not in _OF_THE_PLACE},
        }
    )
    if (earlier := Plan.load(output_dir, key)) is not None:
        logger.info("Using the plan in %s.", output_dir / PLAN_FILE)
        return earlier
    situation = _look_at(log, summary, machine, given, running.max_minutes, is_partitioned)
    choices = [one for one in choose(family, situation) if one.name not in given]
    values = {**{one.name: one.value for one in choices}, **given}
    epochs = {one.name: one for one in add_epochs(family, situation, values, running.max_minutes)}
    choices = [*{**{one.name: one for one in choices}, **epochs}.values()]
    choices = [one for one in choices if one.name not in given]
    values = {**{one.name: one.value for one in choices}, **given}
    costs = estimate_costs(family, situation, values)
    return Plan(
        family, log.name, str(machine), choices, costs, key, dict(given), most_epochs(family, situation, values)
    )


def describe_costs(
    family: str,
    log: EventLog,
    summary: LogSummary,
    groups: Sequence[object],
    folder: Path,
    *,
    is_partitioned: bool = False,
) -> str:
    """Return the table of what a run with a settings file is expected to cost.

    Args:
        family (`str`): gensar, gensr, intsr or synergen.
        log ([`EventLog`]): The log.
        summary ([`LogSummary`]): Its summary.
        groups (`Sequence`): The groups of the recipe's settings, `TrainingArguments` among them.
        folder (`Path`): Folder of the run.
        is_partitioned (`bool`): Whether the log is read a partition at a time.
    """
    values: dict[str, object] = {}
    for group in groups:
        values |= option_values(group) if type(group).__module__.startswith("seekrec.") else vars(group)
    machine = Machine.measure(folder, use_cpu=bool(values.get("use_cpu", False)))
    minutes = values.get("max_minutes")
    max_minutes = float(minutes) if isinstance(minutes, int | float) else None
    costs = estimate_costs(family, _look_at(log, summary, machine, values, max_minutes, is_partitioned), values)
    return "\n".join(
        [f"{family} for {log.name}, on {machine}", "expected:", *(f"  {line}" for line in format_costs(costs))]
    )


def _look_at(
    log: EventLog,
    summary: LogSummary,
    machine: Machine,
    given: Mapping[str, object],
    max_minutes: float | None,
    is_partitioned: bool,
) -> Situation:
    can_construct = summary.has_categories and (summary.has_searches or any(category_queries(log.items)))
    return Situation(summary, machine, can_construct, given, max_minutes, is_partitioned)


def describe_log(log: EventLog, *, with_notes: bool) -> LogSummary:
    """Summarize a log, and print the summary; with the notes of the reader where no split will say them."""
    summary = summarize_log(log)
    print(summary)
    for note in log.notes[1:] if with_notes else ():
        print(f"  {note}")
    return summary


def given_values(names: Sequence[str], groups: Sequence[object]) -> dict[str, object]:
    """Return the values of settings by name, as YAML has them.

    Args:
        names (`Sequence[str]`): Names of the settings that were given.
        groups (`Sequence`): The groups of a recipe's settings, `TrainingArguments` among them.
    """
    found: dict[str, object] = {}
    for group in groups:
        is_ours = type(group).__module__.startswith("seekrec.")
        values = option_values(group) if is_ours else vars(group)
        found.update({name: values[name] for name in names if name in values and not is_secret(name)})
    return {name: value.value if isinstance(value, Enum) else value for name, value in found.items()}


def _line(name: str, value: object) -> str:
    text = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10_000).strip()
    return f"{name}: {text[1:-1]}"


def _as_words(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "(none)"
    return f"{value:g}" if isinstance(value, float) else str(value)


__all__ = [
    "PLAN_FILE",
    "SETTINGS_FILE",
    "Plan",
    "describe_costs",
    "describe_log",
    "fit_test",
    "forget_noted",
    "given_values",
    "make_plan",
]
