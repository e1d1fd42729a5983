# SPDX-License-Identifier: Apache-2.0
"""The weights of what is added to a model's scores, learned from validation cases.

What the views know was made from training events alone, so validation is new to them as the test is. The items looked
at for a case are its target and those that the model, or one of the views, holds among the best of the catalogue.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seekrec.catalog import item_periods
from seekrec.evaluation.metrics import metric_values, ranks_from_scores
from seekrec.evaluation.protocols import EvaluationCases, build_cases
from seekrec.events import Split
from seekrec.models.processing import CatalogProcessor
from seekrec.models.views import (
    LEXICAL_CHOICES,
    AddedScores,
    LexicalIndex,
    ViewedModel,
    ViewName,
    Views,
    write_view_weights,
)
from seekrec.schema import BEHAVIORS, SEARCH, Behavior

logger = logging.getLogger(__name__)

# What ways to weigh words are compared at: from hardly anything to what decides.
WEIGHTS = (0.0, *(round(float(weight), 3) for weight in np.geomspace(0.05, 20, 14)))
# Best items of the model and of each view that are ordered anew.
_NUM_BEST = 100
_BATCH_SIZE = 32
_METRIC = "ndcg@10"
# Of the squares of weights: where words tell every target, no weight is large enough.
_PENALTY = 1e-4
# A view with less weight changes nothing that is worth its time.
_LEAST = 0.02
# Of the factor of a model's own score, which divides weights: one near it tells nothing.
_LEAST_FACTOR = 0.05


@dataclass(frozen=True, eq=False)
class _Scored:
    """Validation cases, and what model and views say of the items looked at.

    Args:
        own (`np.ndarray`): float32 `(num_cases, most_items)`, minus infinity for padding; the target stands first.
        views (`dict`): By name, what is added at weight 1, of the same shape.
    """

    own: np.ndarray
    views: dict[str, np.ndarray]

    def values(self, weights: dict[str, float]) -> np.ndarray:
        """Return the metric of each case with some weights."""
        total = self.own
        for name, weight in weights.items():
            if weight:
                total = total + np.float32(weight) * self.views[name]
        ranks = ranks_from_scores(total, np.zeros(len(total), np.int64))
        found: np.ndarray = metric_values(ranks, _METRIC)
        return found


def choose_view_weights(
    model: ViewedModel,
    processor: CatalogProcessor,
    split: Split,
    views: Views,
    *,
    behaviors: Sequence[Behavior] = BEHAVIORS,
    remove_seen: bool = True,
    available_only: bool = False,
    max_cases: int | None = 1000,
    seed: int = 0,
) -> dict[Behavior, dict[str, float]]:
    """Give a model views, with weights learned from its validation cases.

    Task by task: of the ways to weigh words that `LEXICAL_CHOICES` lists the best beside the model alone is kept; then
    the weights of all views are those at which the targets are likeliest, if NDCG@10 gets better by them.

    Args:
        model ([`ViewedModel`]): Trained; gets `views`, and the weights in `config.view_weights`.
        processor ([`CatalogProcessor`]): Its processor.
        split (`Split`): Its validation part is used, nothing of the test.
        views ([`Views`]): Made from the training events of the split.
        behaviors (`Sequence[str]`): Tasks to choose weights for.
        remove_seen (`bool`): Whether items of the history are ruled out, as in the evaluation.
        available_only (`bool`): Whether items are ruled out that are not available when a request is made.
        max_cases (`int`, *optional*): Use a seeded sample of so many cases of each task.
        seed (`int`): Seed of the sample.

    Returns:
        `dict`: By task, the weight of each view, and `ndcg@10` of the sample without and with them under
        `ndcg@10 without` and `ndcg@10 with`.
    """
    catalog = model.catalog
    chosen: dict[str, dict[str, float]] = {}
    found: dict[Behavior, dict[str, float]] = {}
    # Searches choose how words are weighed; recommendations read none.
    for behavior in sorted(behaviors, key=lambda name: name != SEARCH):
        if not split.targets("validation", behavior):
            continue
        cases = build_cases(
            split,
            catalog.id_map,
            part="validation",
            behavior=behavior,
            remove_seen=remove_seen,
            max_cases=max_cases,
            seed=seed,
            periods=item_periods(catalog.items) if available_only else None,
        )
        if behavior == SEARCH:
            views = _choose_words(model, processor, cases, views)
        names = [name for name in views.names(catalog) if behavior == SEARCH or name in ("collaborative", "semantic")]
        scored = _score(model, processor, cases, [(name, views, name) for name in names])
        weights = _learn_weights(scored, names, unit=model.score_unit)
        without, beside = (float(scored.values(one).mean()) for one in ({}, weights))
        # What makes the targets likelier need not bring them to the front.
        weights = weights if beside > without else dict.fromkeys(names, 0.0)
        chosen[behavior] = weights
        found[behavior] = {**weights, f"{_METRIC} without": without, f"{_METRIC} with": max(without, beside)}
    used = {name for own in chosen.values() for name, weight in own.items() if weight}
    model.set_views(
        replace(
            views,
            recommender=views.recommender if "collaborative" in used else None,
            lexical=views.lexical if "lexical" in used else None,
            query_log=views.query_log if "query_log" in used else None,
        )
        if used
        else None
    )
    model.config.view_weights = write_view_weights(chosen)
    return found


def _choose_words(model: ViewedModel, processor: CatalogProcessor, cases: EvaluationCases, views: Views) -> Views:
    """Return the views with the weights of words that help the model most; the first of the best."""
    made = [LexicalIndex.fit(model.catalog.items, settings) for settings in LEXICAL_CHOICES]
    choices = [replace(views, lexical=index) for index in made if index is not None]
    if len(choices) < 2:
        return views
    asked: list[tuple[str, Views, ViewName]] = [
        (f"lexical {number}", one, "lexical") for number, one in enumerate(choices)
    ]
    scored = _score(model, processor, cases, asked)
    best = [max(scored.values({name: weight}).mean() for weight in WEIGHTS) for name, _, _ in asked]
    return choices[int(np.argmax(best))]


def _learn_weights(scored: _Scored, names: Sequence[str], *, unit: float = 1.0) -> dict[str, float]:
    """Return the weights at which the targets are likeliest among the items looked at.

    A logistic regression of the target among the items of its case, with the model's own score times a factor, which
    divides the weights afterwards, and no weight below 0. It uses every case, where NDCG@10 changes with a few and
    follows their noise. Beside a model that tells nothing of the targets weights end where views alone decide:
    the factor has a limit, in units of a log-probability, of which one is `unit` of the scores.
    """
    is_item = torch.from_numpy(scored.own > -np.inf)
    own = torch.from_numpy(scored.own).masked_fill(~is_item, 0.0) / unit
    views = torch.stack([torch.from_numpy(scored.views[name]) for name in names]) / unit
    logits = torch.zeros(1 + len(names), requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=60, line_search_fn="strong_wolfe")

    def split() -> tuple[Tensor, Tensor]:
        # Above the limit, not cut off at it, where no gradient would lead back.
        return _LEAST_FACTOR + logits[0].exp(), F.softplus(3 * logits[1:] - 3)

    def step() -> Tensor:
        optimizer.zero_grad()
        factor, weights = split()
        scores = (factor * own + (weights[:, None, None] * views).sum(0)).masked_fill(~is_item, -1e9)
        loss = -scores.log_softmax(1)[:, 0].mean() + _PENALTY * weights.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(step)
    factor, weights = split()
    if factor < 1.2 * _LEAST_FACTOR:
        logger.warning(
            "On validation, the scores of the model tell a target from other items hardly at all; with these weights "
            "its answers are those of the views. Train it longer, or look at its loss."
        )
    learned = dict(zip(names, (weights / factor).tolist(), strict=True))
    return {name: float(f"{weight:.3g}") if weight >= _LEAST else 0.0 for name, weight in learned.items()}


def _score(
    model: ViewedModel,
    processor: CatalogProcessor,
    cases: EvaluationCases,
    asked: Sequence[tuple[str, Views, ViewName]],
) -> _Scored:
    """Score what model and views hold best of each case, and its target."""
    snapshot, id_map = model.current_snapshot(), model.catalog.id_map
    ready = [(name, view, model.catalog_views(snapshot, views)) for name, views, view in asked]
    behavior = BEHAVIORS.index(cases.behavior)
    own_views = model.views
    model.set_views(None)
    lines: list[np.ndarray] = []
    more: dict[str, list[np.ndarray]] = {name: [] for name, _, _ in asked}
    try:
        for begin in range(0, len(cases), _BATCH_SIZE):
            numbers = np.arange(begin, min(begin + _BATCH_SIZE, len(cases)))
            inputs = processor(cases.requests[begin : begin + _BATCH_SIZE])
            masks: list[np.ndarray | None] = [None] * len(numbers)
            masks = masks if (allowed := cases.masks(numbers)) is None else list(allowed)
            answers = model.retrieve(inputs, top_k=_NUM_BEST, where=masks, exclude_seen=False)
            rows = [id_map.convert_to_rows(item.item_id for item in answer) for answer in answers]
            requests = model.view_requests(inputs, [behavior] * len(numbers))
            added = {
                name: AddedScores(
                    one.added(requests, {cases.behavior: {view: 1.0}}, model.score_unit), len(numbers), len(id_map)
                )
                for name, view, one in ready
            }
            best = [one.best([_NUM_BEST] * len(rows), masks) for one in added.values()]
            # The target first, each once.
            targets = cases.target_rows[numbers][:, None]
            found = [np.concatenate(parts) for parts in zip(targets, rows, *best, strict=True)]
            found = [line[np.sort(np.unique(line, return_index=True)[1])] for line in found]
            lines += model.score_items(inputs, found)
            for name, scores in added.items():
                more[name] += scores.at(found)
    finally:
        model.set_views(own_views)
    return _Scored(_pad(lines, -np.inf), {name: _pad(scores, 0.0) for name, scores in more.items()})


def _pad(lines: Sequence[np.ndarray], fill: float) -> np.ndarray:
    padded = np.full((len(lines), max(map(len, lines))), fill, np.float32)
    for target, line in zip(padded, lines, strict=True):
        target[: len(line)] = line
    return padded


__all__ = ["WEIGHTS", "choose_view_weights"]
