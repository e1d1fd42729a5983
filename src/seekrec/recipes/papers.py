# SPDX-License-Identifier: Apache-2.0
"""The tables and figures of a paper: what they show, and the runs that they need, on any log.

A file of `recipes/papers` names the exhibits (tables and figures) of a paper. The rows of an exhibit are runs of a
recipe, or systems measured in one; a claim says which of its rows the paper finds better than which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, NamedTuple, cast

import yaml

from seekrec.errors import ConfigurationError
from seekrec.evaluation import ResultRow, read_results
from seekrec.evaluation.metrics import SELECTION_METRIC
from seekrec.recipes.gensar import GenSARRecipe
from seekrec.recipes.gensr import GenSRRecipe
from seekrec.recipes.intsr import IntSRRecipe
from seekrec.recipes.synergen import SynerGenRecipe
from seekrec.recipes.variants import FULL, Settings, as_options, changed, read_variants, run_variant
from seekrec.schema import Behavior
from seekrec.util.package_data import data_folder, find_settings
from seekrec.util.parsing import is_given, read_settings

# Names of the families' own rows in tables.
MODEL_NAMES = {"gensar": ("GenSAR",), "gensr": ("GenSR",), "intsr": ("IntSR", "HSTU"), "synergen": ("SynerGen",)}
BASELINES = "baselines"

Picture = Literal["none", "bars", "curve", "plane", "own"]


class Source(NamedTuple):
    """Where the numbers of a row come from: a run, and a system of its table; its own model if none is named."""

    run: str
    system: str | None = None


@dataclass(frozen=True)
class Claim:
    """What a paper says of an exhibit.

    Args:
        says (`str`): The claim in a few words.
        better (`tuple[str, ...]`): Labels of rows that are better ...
        than (`tuple[str, ...]`): ... than each of these; `baselines` is the best of them.
        metric (`str`, *optional*): The metric that decides, if not that of the exhibit.
        only (`str`, *optional*): The behavior that it is about; both if not given.
    """

    says: str
    better: tuple[str, ...]
    than: tuple[str, ...]
    metric: str | None = None
    only: str | None = None


@dataclass(frozen=True)
class Exhibit:
    """A table or figure.

    Args:
        name (`str`): As in the paper, such as `table 4`.
        shows (`str`): What it shows, in a few words.
        rows (`dict[str, Source]`): Its rows by label.
        systems_of (`str`, *optional*): A run whose systems are rows, too.
        cases (`dict[str, tuple[str, ...]]`): By behavior the protocols: `full`, `uniform`, `bm25`, or a whole name.
        metrics (`tuple[str, ...]`): Its columns.
        decides (`str`): The metric of claims and pictures.
        picture (`str`): How it is drawn; `own`, by what measures it.
        measure (`str`, *optional*): What is measured of finished runs in place of their rankings.
        axis (`str`): With a curve: what the labels are values of.
        arrows (`dict[str, tuple[str, ...]]`): With a plane, by name: the rows of recommendation and of search where
            an arrow begins, and the row where it ends.
        claims (`tuple[Claim, ...]`): What the paper says.
    """

    name: str
    shows: str
    rows: dict[str, Source]
    systems_of: str | None
    cases: dict[Behavior, tuple[str, ...]]
    metrics: tuple[str, ...]
    decides: str
    picture: Picture
    measure: str | None
    axis: str
    arrows: dict[str, tuple[str, ...]]
    claims: tuple[Claim, ...]

    @property
    def runs(self) -> list[str]:
        """The runs that it needs."""
        named = [source.run for source in self.rows.values()]
        return list(dict.fromkeys([*named, self.systems_of] if self.systems_of else named))


@dataclass(frozen=True)
class Run:
    """A training.

    Args:
        name (`str`): Its name in the paper's file.
        family (`str`): gensar, gensr, intsr or synergen.
        usual (`dict`): Settings that replace those of the settings file, unless the user names others.
        own (`dict`): Settings that make it this run; no option changes them.
    """

    name: str
    family: str
    usual: Settings
    own: Settings


@dataclass(frozen=True)
class Paper:
    """What a file of `recipes/papers` says.

    Args:
        title (`str`): Name of the paper's model.
        family (`str`): Family of the runs that name none.
        exhibits (`dict[str, Exhibit]`): Tables and figures by name.
        everywhere (`dict`): Usual settings of all runs.
        model (`dict`): Usual settings of all runs of its family, which others need not have.
        full (`dict`): Settings of the run `full` alone, such as baselines.
        own_runs (`dict[str, dict]`): Runs alongside the variants of the family.
        heads_of (`tuple[str, ...]`): Runs whose two heads are measured apart.
    """

    title: str
    family: str
    exhibits: dict[str, Exhibit]
    everywhere: Settings
    model: Settings
    full: Settings
    own_runs: dict[str, Settings]
    heads_of: tuple[str, ...] = ()

    def run(self, name: str) -> Run:
        """Return a run by its name: one of the file, or a variant of the family.

        Raises:
            ConfigurationError: If neither has it.
        """
        changes = dict(self.own_runs.get(name, {}))
        family = str(changes.pop("family", self.family))
        variant = changes.pop("variant", FULL if name in self.own_runs else name)
        shared, groups = read_variants(family)
        known = {FULL: Settings(), **{one: own for group in groups.values() for one, own in group.items()}}
        if variant not in known:
            raise ConfigurationError(f"{variant!r} is not a variant of {family}; choose from {', '.join(known)}.")
        full = self.full if variant == FULL and not changes else {}
        model = self.model if family == self.family else {}
        usual = {**shared, **self.everywhere, **model, **full}
        return Run(name, family, usual, {**known[str(variant)], **changes})


def paper_names() -> list[str]:
    """Return the names of the papers that `recipes/papers` has files of."""
    return sorted(path.stem for path in (data_folder("recipes") / "papers").glob("*.yaml"))


def read_paper(name: str) -> Paper:
    """Read the exhibits of a paper.

    Args:
        name (`str`): Name of a file of `recipes/papers`.

    Raises:
        ConfigurationError: If there is none of that name.
    """
    if name not in paper_names():
        raise ConfigurationError(f"`paper` is {name!r}; use one of {', '.join(paper_names())}.")
    path = data_folder("recipes") / "papers" / f"{name}.yaml"
    content = cast("dict[str, object]", yaml.safe_load(path.read_text(encoding="utf-8")))
    exhibits = cast("dict[str, Settings]", content["exhibits"])
    return Paper(
        title=str(content["title"]),
        family=str(content.get("family", "")),
        exhibits={one: _read_exhibit(one, own) for one, own in exhibits.items()},
        everywhere=cast("Settings", content.get("all", {})),
        model=cast("Settings", content.get("model", {})),
        full=cast("Settings", content.get("full", {})),
        own_runs=cast("dict[str, Settings]", content.get("runs", {})),
        heads_of=_names(content.get("heads_of", [])),
    )


def _read_exhibit(name: str, content: Settings) -> Exhibit:
    rows = cast("dict[object, str | dict[str, str]]", content.get("rows", {}))
    cases = cast("dict[Behavior, object]", content.get("cases", {}))
    claims = cast("list[dict[str, object]]", content.get("claims", []))
    return Exhibit(
        name=name,
        shows=str(content["shows"]),
        rows={
            str(label): Source(**source) if isinstance(source, dict) else Source(source)
            for label, source in rows.items()
        },
        systems_of=_name(content.get("systems_of")),
        cases={behavior: _names(protocols) for behavior, protocols in cases.items()},
        metrics=_names(content.get("metrics", [])),
        decides=str(content.get("decides", SELECTION_METRIC)),
        picture=cast("Picture", content.get("picture", "none")),
        measure=_name(content.get("measure")),
        axis=str(content.get("axis", "")),
        arrows={name: _names(ends) for name, ends in cast("Settings", content.get("arrows", {})).items()},
        claims=tuple(
            Claim(
                says=str(claim["says"]),
                better=_names(claim["better"]),
                than=_names(claim["than"]),
                metric=_name(claim.get("metric")),
                only=_name(claim.get("only")),
            )
            for claim in claims
        ),
    )


def _name(value: object) -> str | None:
    return None if value is None else str(value)


def _names(value: object) -> tuple[str, ...]:
    return tuple(str(one) for one in value) if isinstance(value, list) else (str(value),)


_RECIPES = {kind.family(): kind for kind in (GenSARRecipe, GenSRRecipe, IntSRRecipe, SynerGenRecipe)}


def _setting_names(family: str) -> frozenset[str]:
    return frozenset(one.name for kind in _RECIPES[family].argument_types() for one in fields(kind))


@dataclass
class Trainings:
    """The trainings of a paper on a log: what each is asked for by command line, and the folder of its model.

    Args:
        paper ([`Paper`]): The paper.
        config (`str`): Name or path of the settings file; see `config_of`.
        folder (`Path`): Folder of the runs.
        scripts (`Path`): Folder of the recipes' scripts.
        options (`Sequence[str]`): Options of every run whose family has such a setting; they replace its usual
            settings, not what makes it that run.
        num_train_epochs (`float`, *optional*): Epochs of every run; those of the settings file if not given.
    """

    paper: Paper
    config: str
    folder: Path
    scripts: Path
    options: Sequence[str] = ()
    num_train_epochs: float | None = None
    epochs: dict[str, tuple[float, float]] = field(default_factory=dict)  # by family: trained, and in the file

    def config_of(self, family: str) -> str:
        """Return the name or path of a family's settings file.

        Raises:
            ConfigurationError: If there is none: a path has no `{family}`, and is not that of a file in the folder of
                the paper's family, alongside which stands one of the other's.
        """
        config = self.config.replace("{family}", family)
        if family != self.paper.family and self.paper.family and Path(config).suffix and config == self.config:
            beside = Path(config).parent.parent / family / Path(config).name
            if Path(config).parent.name != self.paper.family or not beside.is_file():
                raise ConfigurationError(
                    f"The paper also needs {family}, whose settings `config` {self.config!r} does not hold; write the "
                    "path with {family}, or the name of packaged settings."
                )
            return str(beside)
        return config

    def settings_of(self, family: str) -> tuple[str, Settings]:
        """Return the path of a family's settings file, and what it says and the options do not."""
        path = find_settings(family, self.config_of(family))
        return path, {one.name: one.value for one in read_settings(path)}

    def options_of(self, family: str) -> list[str]:
        """Return the options without the settings that other families have and this one has not."""
        of_others = frozenset().union(*(_setting_names(other) for other in _RECIPES)) - _setting_names(family)
        kept: list[str] = []
        is_kept = True
        for word in self.options:
            if word.startswith("--"):
                is_kept = word.partition("=")[0][2:].replace("-", "_") not in of_others
            kept += [word] if is_kept else []
        return kept

    def folder_of(self, run: Run) -> Path:
        """Return the folder of a run."""
        return self.folder / run.family / "".join(one if one.isalnum() or one == "." else "-" for one in run.name)

    def same_as(self, name: str) -> Run:
        """Return a run, or `full` where it is no other training than that: its settings change nothing."""
        run, full = self.paper.run(name), self.paper.run(FULL)
        if run.family != full.family:
            return run
        usual = self.settings_of(run.family)[1] | full.usual
        known = {one: value for one, value in usual.items() if not is_given(self.options, one)}
        return run if changed(run.own, known) else full

    def train(self, name: str) -> list[ResultRow]:
        """Train and evaluate a run, unless that was done, and return its rows."""
        run = self.same_as(name) if self.paper.family else self.paper.run(name)
        config, file = self.settings_of(run.family)
        in_file = float(str(file.get("num_train_epochs", 3.0)))
        epochs = in_file if self.num_train_epochs is None else self.num_train_epochs
        self.epochs[run.family] = (epochs, in_file)
        results = run_variant(
            self.scripts / f"train_{run.family}.py",
            config,
            self.folder / run.family,
            run.name,
            [
                *("--stages_dir", str(self.folder / "stages")),
                *as_options(run.usual),
                *self.options_of(run.family),
                *as_options(run.own),
            ],
            num_train_epochs=epochs,
        )
        return read_results(results)


__all__ = [
    "BASELINES",
    "MODEL_NAMES",
    "Claim",
    "Exhibit",
    "Paper",
    "Run",
    "Source",
    "Trainings",
    "paper_names",
    "read_paper",
]
