# SPDX-License-Identifier: Apache-2.0
"""Run a paper's file through to its report: train what the exhibits need, measure, compare and write."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from seekrec.errors import ConfigurationError
from seekrec.evaluation import ResultRow, Retriever, evaluate_systems, read_results, write_results
from seekrec.identifiers import IdentifierQualityReport
from seekrec.models import IntSRForSearchAndRecommendation, SynerGenForSearchAndRecommendation
from seekrec.recipes.arguments import SPLIT_SEED
from seekrec.recipes.gensr import GenSRRecipe
from seekrec.recipes.gensr_twin import measure_conflict, measure_information, measure_space, read_pair, train_pair
from seekrec.recipes.intsr import IntSRRecipe
from seekrec.recipes.paper_claims import Finding, Number, findings_of, numbers_of, verdict_of
from seekrec.recipes.paper_report import picture_path, write_report
from seekrec.recipes.papers import Exhibit, Run, Trainings
from seekrec.recipes.record import MODEL_FOLDER
from seekrec.recipes.synergen import SynerGenRecipe, ranking_by
from seekrec.recipes.variants import RECORD_FILE
from seekrec.util.parsing import parse_arguments
from seekrec.util.redaction import publishable_command, publishable_text

logger = logging.getLogger(__name__)

RecipeT = TypeVar("RecipeT", SynerGenRecipe, IntSRRecipe, GenSRRecipe)
HEADS = ("ranking", "retrieval")
COLLISIONS = "collision rate"
REPORT_FOLDER = "report"
LONG_LIST = 200  # of SynerGen's tables

Measured = tuple[list[Number], list[Finding]]


def reproduce(trainings: Trainings, which: Sequence[str] = ()) -> tuple[Path, list[Finding]]:
    """Train, measure and write the exhibits of a paper; what was done before is not done again.

    Args:
        trainings ([`Trainings`]): The paper, and its trainings on a log.
        which (`Sequence[str]`): Names of exhibits; all if empty.

    Returns:
        `tuple`: The report in Markdown, and what became of the claims.

    Raises:
        ConfigurationError: If an exhibit is unknown, or a training ends with an error.
    """
    paper = trainings.paper
    for name in which:
        if name not in paper.exhibits:
            raise ConfigurationError(f"`which` has {name!r}; {paper.title} has {', '.join(paper.exhibits)}.")
    exhibits = [exhibit for name, exhibit in paper.exhibits.items() if not which or name in which]
    names = list(dict.fromkeys(run for exhibit in exhibits for run in exhibit.runs))
    # Before the first is trained.
    for family in dict.fromkeys(paper.run(name).family for name in names):
        trainings.settings_of(family)
    results: dict[str, list[ResultRow]] = {}
    for number, name in enumerate(names, start=1):
        logger.info("%s: run %d of %d, %s", paper.title, number, len(names), name)
        results[name] = trainings.train(name)
        if name in paper.heads_of:
            results[name] = [*results[name], *rank_by_heads(trainings.same_as(name), trainings)]
    numbers: list[Number] = []
    findings: list[Finding] = []
    for exhibit in exhibits:
        if exhibit.measure is None:
            found = numbers_of(exhibit, results), findings_of(exhibit, results)
        else:
            found = MEASURES[exhibit.measure](exhibit, trainings)
        numbers += found[0]
        findings += found[1]
    rows = [row for own in results.values() for row in own]
    folder = trainings.folder / REPORT_FOLDER
    return write_report(folder, _heading(trainings, rows), exhibits, numbers, findings), findings


def _heading(trainings: Trainings, rows: Sequence[ResultRow]) -> list[str]:
    """Return what is to be known of the numbers: log, split, settings and schedule."""
    lines = [f"# {trainings.paper.title} on {rows[0].dataset if rows else publishable_text(trainings.config)}", ""]
    for family, (epochs, in_file) in trainings.epochs.items():
        length = "a short schedule; the file has" if epochs < in_file else "the file has"
        config = publishable_text(trainings.config_of(family))
        lines.append(f"- {family}: `{config}`, {epochs:g} epochs ({length} {in_file:g})")
    if trainings.options:
        lines.append(f"- with `{publishable_command(trainings.options)}`")
    if rows:
        first = rows[0]
        searches = "; synthetic queries" if first.query_source == "category" else ""
        lines.append(
            f"- test cases of the split {first.split_method}, {first.split_protocol}, "
            f"{first.split_fingerprint[:12]}{searches}"
        )
    lines.append("- 95 % bootstrap intervals, paired for claims; undecided: 0 is inside")
    return lines


def reopen(folder: Path, recipe_type: type[RecipeT]) -> RecipeT:
    """Make the recipe of a finished run again, with all that it learned from.

    Args:
        folder (`Path`): Folder that [`~seekrec.recipes.variants.run_variant`] made.
        recipe_type (`type[Recipe]`): Its recipe.

    Returns:
        [`Recipe`]: It has run up to the corpus.
    """
    command: list[str] = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))["command"]
    options = [*command, "--stop_after", "corpus", "--disable_tqdm", "true"]
    recipe = recipe_type(*parse_arguments(recipe_type.argument_types(), options))
    recipe.run()
    return recipe


def _is_fresh(kept: Path, folder: Path) -> bool:
    """Return whether a file was made after the run in a folder."""
    return kept.is_file() and kept.stat().st_mtime > (folder / RECORD_FILE).stat().st_mtime


def rank_by_heads(run: Run, trainings: Trainings) -> list[ResultRow]:
    """Rank the test cases with each head of a model alone, in lists of 200; kept beside its results.

    Args:
        run ([`Run`]): A finished run of SynerGen, or of an IntSR without a ranking head, as HSTU is.
        trainings ([`Trainings`]): Where it lies.

    Returns:
        `list[ResultRow]`: Rows of `SynerGen, ranking head` and `SynerGen, retrieval head`, or `HSTU, retrieval head`:
        of all items the latter alone, for the ranking head orders candidates.
    """
    folder = trainings.folder_of(run)
    kept = folder / MODEL_FOLDER / "heads.json"
    if _is_fresh(kept, folder):
        return read_results(kept)
    rows: list[ResultRow] = []
    if run.family == "intsr":
        plain = reopen(folder, IntSRRecipe)
        hstu = IntSRForSearchAndRecommendation.from_pretrained(folder / MODEL_FOLDER).eval()
        rows = _rank_long(plain, "HSTU, retrieval head", plain.make_retriever(hstu), searches=True)
    else:
        recipe = reopen(folder, SynerGenRecipe)
        model = SynerGenForSearchAndRecommendation.from_pretrained(folder / MODEL_FOLDER).eval()
        for head in HEADS:
            if head == "ranking" and model.ranking_head is None:
                continue
            with ranking_by(model, "ranking" if head == "ranking" else "retrieval"):
                retriever = recipe.make_retriever(model)
                rows += _rank_long(recipe, f"SynerGen, {head} head", retriever, searches=head == "retrieval")
    write_results(kept, rows)
    return rows


def _rank_long(
    recipe: SynerGenRecipe | IntSRRecipe, name: str, retriever: Retriever, *, searches: bool
) -> list[ResultRow]:
    """Rank the test cases among all items, where `searches`, and among those that the run draws."""
    return evaluate_systems(
        {name: retriever},
        split=recipe.split,
        id_map=recipe.catalog.id_map,
        behaviors=recipe.behaviors,
        protocols=(*(("full",) if searches else ()), *recipe.evaluation.candidate_protocols),
        num_negatives=recipe.evaluation.num_negatives,
        remove_seen=recipe.remove_seen,
        max_cases=recipe.evaluation.max_test_cases,
        top_k=LONG_LIST,
        seed=SPLIT_SEED,
        show_progress=False,
    )


def count_collisions(exhibit: Exhibit, trainings: Trainings) -> Measured:
    """Count the items whose nearest codes another has, too (GenSAR, figure 5); nothing is sampled, so no interval.

    Args:
        exhibit ([`Exhibit`]): The `system` of its rows is a view.
        trainings ([`Trainings`]): Its runs, which are done.
    """
    rates: dict[str, tuple[float, int]] = {}
    for label, source in exhibit.rows.items():
        folder = trainings.folder_of(trainings.same_as(source.run)) / MODEL_FOLDER
        quality = IdentifierQualityReport.load(folder / "identifiers.json").views[_view(source.system)].before
        rates[label] = quality.collision_rate, quality.num_items
    numbers = [
        Number(exhibit.name, label, "", "", COLLISIONS, rate, None, None, num_items)
        for label, (rate, num_items) in rates.items()
    ]
    findings = []
    for claim in exhibit.claims:
        for better in claim.better:
            for than in claim.than:
                difference = rates[than][0] - rates[better][0]
                place = (exhibit.name, claim.says, better, than, "", "", COLLISIONS)
                findings.append(
                    Finding(*place, -difference, None, None, rates[better][1], verdict_of(difference, None))
                )
    return numbers, findings


def _view(name: str | None) -> str:
    if name is None:
        raise ConfigurationError("A row of collisions names no view; give it a `system`: semantic or collaborative.")
    return name


def compare_with_twin(exhibit: Exhibit, trainings: Trainings) -> Measured:
    """Measure the inside of a GenSR and of its two-headed twin, trained for the first exhibit that asks.

    Args:
        exhibit ([`Exhibit`]): Its `measure` is conflict, space or information; its one run is the settings of both.
        trainings ([`Trainings`]): Its runs, which are done.
    """
    folder = trainings.folder_of(trainings.same_as(exhibit.runs[0]))
    kept = folder / "twin.npz"
    pair = read_pair(kept) if _is_fresh(kept, folder) else train_pair(reopen(folder, GenSRRecipe), kept)
    picture = picture_path(trainings.folder / REPORT_FOLDER, exhibit)
    picture.parent.mkdir(parents=True, exist_ok=True)
    if exhibit.measure == "conflict":
        return measure_conflict(exhibit, pair, picture)
    if exhibit.measure == "space":
        return measure_space(exhibit, pair, picture)
    return measure_information(exhibit, pair)


MEASURES = {
    "collisions": count_collisions,
    "conflict": compare_with_twin,
    "space": compare_with_twin,
    "information": compare_with_twin,
}


__all__ = ["compare_with_twin", "count_collisions", "rank_by_heads", "reopen", "reproduce"]
