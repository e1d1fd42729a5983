# SPDX-License-Identifier: Apache-2.0
"""Learn the weights of the views that are added to a model's scores, from validation cases.

The views are built from training events alone, so validation is as new to them as the test. The items scored for a
case are its target, the top items of the model and of each view, and a sample of the rest, which represents all of
them.

Where views retrieve the items that a model then orders, their relative weights are learned first, so that they find
the targets; then their sum is weighted against the model, among the retrieved items. The two combine into one weight
per view.

The weight of `new` is learned last, on cases where a tenth of the items is treated as new: known only through similar
items.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from seekrec.catalog import item_periods
from seekrec.errors import ConfigurationError
from seekrec.evaluation.likely_weights import (
    LEAST_WEIGHT,
    ScoredCases,
    choose_weights,
    likely_weights,
)
from seekrec.evaluation.metrics import SELECTION_METRIC
from seekrec.evaluation.protocols import EvaluationCases, build_cases
from seekrec.evaluation.score_cases import pad_lines, score_cases
from seekrec.evaluation.view_choices import ViewChoices
from seekrec.events import Split
from seekrec.models.new_items import MAX_POOL
from seekrec.models.processing import CatalogProcessor
from seekrec.models.views import ViewedModel, Views, used_views, write_view_weights
from seekrec.schema import BEHAVIORS, SEARCH, Behavior

logger = logging.getLogger(__name__)

# Cases of a task that tell weights: thousands, as these differ by thousandths of NDCG@10. On MovieLens-100K without
# its last tenth SynerGen has 0.0881 in recommendation by 900 cases and 0.0933 by 8,510, in search 0.4461 and 0.4486.
MAX_VIEW_CASES = 10_000
# The likelihood of the targets changes less from case to case, so so many of these find the weights to begin at.
_FEW = 1_000
# What ways to weigh words are compared at: from hardly anything to what decides.
_WORD_WEIGHTS = (0.0, *(round(float(weight), 3) for weight in np.geomspace(0.05, 20, 14)))
# One item in so many is taken for new, though not more than can quickly be compared with all others.
_ONE_IN = 10
_MOST_TAKEN = 1_000
# So often, each time of other items and with other cases. Where many pairs of a new item and a known one are compared,
# which takes seconds, it is done less often, each time with more cases, so that as many look for what is taken.
_ROUNDS, _ROUNDS_OF_MANY, _MANY_PAIRS = _ONE_IN, 2, 20_000_000
# Of so many pairs the nearest take a minute to find, in each round for each task: too long to learn one number.
_MOST_PAIRS = 300_000_000
# The weight of being new may cost so much of NDCG@10 over all cases: it moves others down to where they are as likely.
_MAY_COST = 0.01
# Beside it no view counts.
_ALL_THERE_IS = 1000.0


def choose_view_weights(
    model: ViewedModel,
    processor: CatalogProcessor,
    split: Split,
    views: Views,
    *,
    behaviors: Sequence[Behavior] = BEHAVIORS,
    remove_seen: bool = True,
    available_only: bool = False,
    max_cases: int | None = MAX_VIEW_CASES,
    seed: int = 0,
) -> dict[Behavior, dict[str, float]]:
    """Give a model views, with weights learned from its validation cases.

    First, on a sample of the cases, how words are weighed: of `LEXICAL_CHOICES` the way that is best alongside the
    model alone. Then, task by task, the weights of all views ([`choose_weights`]): those at which the targets of the
    sample are likeliest, moved to where NDCG@10 of all cases is best, and none where NDCG@10 gets no better by them.
    Of a model that answers what views find (`finds_by_views`) no task is left without: where there is no case, all
    count alike. Then the weight of being `new`, at which targets that are taken for new are as likely as others. Words
    that no search of training had (`unsearched`) count as they are, unless the cases that ask for some speak against
    it.

    Args:
        model ([`ViewedModel`]): Trained; gets `views`, and the weights in `config.view_weights`.
        processor ([`CatalogProcessor`]): Its processor.
        split (`Split`): Its validation part is used, nothing of the test.
        views ([`Views`]): Made from the training events of the split.
        behaviors (`Sequence[str]`): Tasks to choose weights for; another one is answered without views from then on.
        remove_seen (`bool`): Whether items of the history are ruled out, as in the evaluation.
        available_only (`bool`): Whether items are ruled out that are not available when a request is made.
        max_cases (`int`, *optional*): Use a seeded sample of so many cases of each task; with 0 there is no case.
        seed (`int`): Seed of the sample.

    Returns:
        `dict`: By task, the weight of each view, and `ndcg@10` of the sample without and with them under
        `ndcg@10 without` and `ndcg@10 with`; where views find items, without them these are ordered by answers alone.

    Raises:
        ConfigurationError: If views shall find items for a task that there are none for.
    """
    catalog = model.catalog
    # Searches first, as their weights are written.
    ordered = sorted(behaviors, key=lambda name: name != SEARCH)
    cases = {
        behavior: build_cases(
            split,
            catalog.id_map,
            part="validation",
            behavior=behavior,
            remove_seen=remove_seen,
            max_cases=max_cases,
            seed=seed,
            periods=item_periods(catalog.items) if available_only else None,
        )
        for behavior in ordered
        if max_cases != 0 and split.targets("validation", behavior)
    }
    choices = ViewChoices.of(views, catalog)
    names = {behavior: choices.names(catalog, behavior) for behavior in ordered}
    for behavior, own_names in names.items():
        if model.finds_by_views and not own_names:
            raise ConfigurationError(
                f"`retrieve_by` is 'views', but there is no view for {behavior}; train a SASRec, or choose another "
                "`retrieve_by`."
            )
    few = {task: _sample(own, seed) for task, own in cases.items()}
    lines, likely, views = _choose_words(model, processor, cases, few, choices, names)
    chosen: dict[str, dict[str, float]] = {}
    found: dict[Behavior, dict[str, float]] = {}
    for behavior in ordered:
        if behavior not in cases:
            if model.finds_by_views:
                logger.warning("No usable %s validation example: retrieval views get equal weights.", behavior)
                chosen[behavior] = dict.fromkeys(names[behavior], LEAST_WEIGHT)
            if behavior == SEARCH and views.unsearched is not None:
                chosen.setdefault(behavior, {})["unsearched"] = 1.0
            continue
        line = lines[behavior]
        if model.finds_by_views:
            among_each_other = choose_weights(line, likely[behavior])
            # Not all of them get 0, or nothing would be found.
            if not any(among_each_other.values()):
                among_each_other = dict.fromkeys(names[behavior], 1.0)
            weights, without, beside = _weigh_beside(model, processor, cases[behavior], views, among_each_other)
        else:
            weights = choose_weights(line, likely[behavior])
            without, beside = (float(line.values(one).mean()) for one in ({}, weights))
            # What makes the targets likelier need not bring them to the front.
            weights = weights if beside > without else dict.fromkeys(names[behavior], 0.0)
        weights = {**weights, "new": _weigh_new(model, processor, few[behavior], views, weights, seed)}
        if behavior == SEARCH and views.unsearched is not None:
            weights["unsearched"] = _weigh_unsearched(model, processor, cases[behavior], views, weights)
        chosen[behavior] = weights
        found[behavior] = {
            **weights,
            f"{SELECTION_METRIC} without": without,
            f"{SELECTION_METRIC} with": max(without, beside),
        }
    model.set_views(views.only(used_views(chosen)))
    model.config.view_weights = write_view_weights(chosen)
    return found


def _sample(cases: EvaluationCases, seed: int) -> EvaluationCases:
    """Return a seeded sample of the cases, as many as the likelihood of their targets needs."""
    if len(cases) <= _FEW:
        return cases
    return cases.take(np.sort(np.random.default_rng(seed).choice(len(cases), _FEW, replace=False)))


def _choose_words(
    model: ViewedModel,
    processor: CatalogProcessor,
    cases: Mapping[Behavior, EvaluationCases],
    few: Mapping[Behavior, EvaluationCases],
    choices: ViewChoices,
    names: Mapping[Behavior, Sequence[str]],
) -> tuple[dict[Behavior, ScoredCases], dict[Behavior, dict[str, float]], Views]:
    """Choose on few cases how words are weighed, and score all of them with words weighed so.

    Returns:
        `tuple`: By task, the cases scored, and the weights at which the targets of the few are likely; and the views
        made so.
    """
    # Where views find the items, the model has no say in which are looked at.
    by: Literal["all", "views"] = "views" if model.finds_by_views else "all"

    def score(those: Mapping[Behavior, EvaluationCases], *, draws: bool = True) -> dict[Behavior, ScoredCases]:
        return {
            task: score_cases(model, processor, own, choices.asked(names[task]), by=by, draws=draws)
            for task, own in those.items()
        }

    scored = sampled = score(few)
    words = next(iter(choices.words), None)
    if SEARCH in sampled and "lexical" in names[SEARCH]:
        lines = {way: choices.scores(sampled[SEARCH], names[SEARCH], way) for way in choices.words}
        words = max(lines, key=lambda way: _found_with_words(lines[way], names[SEARCH], model))
    choices = choices.narrow(words)
    if sum(map(len, cases.values())) > sum(map(len, few.values())):
        scored = score(cases, draws=False)
    likely = {
        task: likely_weights(choices.scores(own, names[task], words), names[task], unit=model.score_unit)
        for task, own in sampled.items()
    }
    lines_of_all = {task: choices.scores(own, names[task], words) for task, own in scored.items()}
    return lines_of_all, likely, choices.views


def _found_with_words(line: ScoredCases, names: Sequence[str], model: ViewedModel) -> float:
    """Return NDCG@10 of searches with words weighed in one way, alongside the model or the views that find items."""
    if model.finds_by_views:
        return float(line.values(likely_weights(line, names, unit=model.score_unit)).mean())
    return max(float(line.values({"lexical": weight}).mean()) for weight in _WORD_WEIGHTS)


def _weigh_beside(
    model: ViewedModel,
    processor: CatalogProcessor,
    cases: EvaluationCases,
    views: Views,
    weights: Mapping[str, float],
) -> tuple[dict[str, float], float, float]:
    """Weigh the sum of views that find the items alongside the model, among the items found.

    Returns:
        `tuple`: The weights of views, and NDCG@10 of the cases by the model alone and by the sum, both of what the
        views found.
    """
    beside_model = score_cases(model, processor, cases, {"sum": (views, weights)}, by="views then model")
    share = len(beside_model.own) / len(cases)
    if not share:
        return dict(weights), 0.0, 0.0
    learned = likely_weights(beside_model, ["sum"], unit=model.score_unit)["sum"]
    # At the second they find the items and no more: so little leaves the order to the model.
    choices_of_sum = (learned, LEAST_WEIGHT / max(weights.values()))
    values = {one: share * float(beside_model.values({"sum": one}).mean()) for one in (0.0, *choices_of_sum)}
    factor = max((one for one in choices_of_sum if one), key=lambda one: values[one])
    scaled = {name: float(f"{factor * weight:.3g}") for name, weight in weights.items()}
    return scaled, values[0.0], values[factor]


def _weigh_new(
    model: ViewedModel,
    processor: CatalogProcessor,
    cases: EvaluationCases,
    views: Views,
    weights: Mapping[str, float],
    seed: int,
) -> float:
    """Return the weight of `new`, given those of the other views; 0 if it costs much, or nothing supports new items.

    It is 0 too where so many items are new that finding those like them would take longer than training.

    New items are taken to be looked for as often as others. So the items are dealt into groups, in the order of how
    many cases look for them; for each part of the cases another group is taken for new, and the cases are dealt so
    that it holds its share of the targets.
    """
    catalog = model.catalog
    known = np.flatnonzero(catalog.live & ~catalog.is_predicted)
    if "semantic" not in catalog.embeddings or len(known) < 2 * _ONE_IN:
        return 0.0
    generator = np.random.default_rng(seed)
    asked = np.bincount(cases.target_rows, minlength=len(catalog))[known]
    one_in = max(_ONE_IN, -(-len(known) // _MOST_TAKEN))
    group = np.full(len(catalog), -1)
    group[known[np.lexsort((generator.random(len(known)), asked))]] = np.arange(len(known)) % one_in
    num_new = int(catalog.live.sum()) - len(known) + len(known) // one_in
    if min(len(known), MAX_POOL) * num_new > _MOST_PAIRS:
        logger.info("`new` has the weight 0: %d of %d items are new, too many to weigh.", num_new, len(catalog))
        return 0.0
    rounds = _ROUNDS if len(known) * num_new < _MANY_PAIRS else _ROUNDS_OF_MANY
    # Items like the new ones are looked for by each view that asks them.
    views = views.only({name for name, weight in weights.items() if weight}) or views
    order = np.lexsort((generator.random(len(cases)), group[cases.target_rows]))
    asked_views = {"new": (views, {**weights, "new": _ALL_THERE_IS}), "sum": (views, weights)}
    by: Literal["all", "views then model"] = "views then model" if model.finds_by_views else "all"
    unit = model.score_unit
    totals: list[np.ndarray] = []
    marks: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    try:
        for number, taken in enumerate(generator.permutation(one_in)[:rounds].tolist()):
            model.set_catalog(replace(catalog, is_predicted=catalog.is_predicted | (group == taken)))
            part = cases.take(np.sort(order[number::rounds]))
            scored = score_cases(model, processor, part, asked_views, by=by)
            totals += list(scored.own + scored.added["sum"])
            marks += list(np.round((scored.added["new"] - scored.added["sum"]) / (unit * _ALL_THERE_IS)) * unit)
            counts += list(scored.log_counts)
    finally:
        model.set_catalog(catalog)
    # Views may find no target at all.
    if not totals:
        return 0.0
    beside = ScoredCases(pad_lines(totals, -np.inf), {"new": pad_lines(marks, 0.0)}, pad_lines(counts, 0.0))
    learned = likely_weights(beside, ["new"], unit=unit)
    is_free = beside.values(learned).mean() >= (1 - _MAY_COST) * beside.values({}).mean()
    return float(f"{learned['new']:.3g}") if is_free else 0.0


def _weigh_unsearched(
    model: ViewedModel, processor: CatalogProcessor, cases: EvaluationCases, views: Views, weights: Mapping[str, float]
) -> float:
    """Return the weight of words that no search had: 1, as they are in nats, or 0 where validation speaks against it.

    Few cases ask for such words, in many logs none, and none asks for what is typed for the first time after it.
    """
    words = views.unsearched
    if words is None:
        return 0.0
    asked = words.scores([processor.read_query(request.query or "") for request in cases.requests])
    touched = cases.take(np.flatnonzero(np.diff(asked.indptr)))
    if not len(touched):
        return 1.0
    asked_views = {name: (views, {**weights, "unsearched": float(name == "with")}) for name in ("without", "with")}
    by: Literal["all", "views then model"] = "views then model" if model.finds_by_views else "all"
    scored = score_cases(model, processor, touched, asked_views, by=by, draws=False)
    gains = scored.values({"with": 1.0}) - scored.values({"without": 1.0})
    # Views may find no target at all.
    return float(not len(gains) or gains.mean() >= -gains.std() / len(gains) ** 0.5)


__all__ = ["MAX_VIEW_CASES", "choose_view_weights"]
