# SPDX-License-Identifier: Apache-2.0
"""Collect the scores of a model and its views for the items of cases, to learn weights from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Literal

import numpy as np

from seekrec.catalog import Catalog
from seekrec.evaluation.likely_weights import ScoredCases
from seekrec.evaluation.protocols import EvaluationCases
from seekrec.models.processing import CatalogProcessor
from seekrec.models.views import NUM_VIEWED, AddedScores, CatalogViews, ViewedModel, Views, ViewWeights
from seekrec.schema import BEHAVIORS

_BATCH_SIZE = 32
# So many of the items that neither the model nor a view ranks best stand for all of these, in each case.
_NUM_DRAWN = 300


def score_cases(
    model: ViewedModel,
    processor: CatalogProcessor,
    cases: EvaluationCases,
    asked: Mapping[str, tuple[Views, Mapping[str, float]]],
    by: Literal["all", "views", "views then model"] = "all",
    draws: bool = True,
) -> ScoredCases:
    """Score what model and views rank best of each case, and its target.

    Args:
        model ([`ViewedModel`]): The model.
        processor ([`CatalogProcessor`]): Its processor.
        cases ([`EvaluationCases`]): The cases.
        asked (`Mapping`): By name, views and their weights.
        by (`str`): `"all"`: model and views find items, and both score them. `"views"`: the model does neither, and
            its scores are 0. `"views then model"`: views find them, and cases whose target is not found are left out.
        draws (`bool`): Whether some of the other items are scored, too, for a likelihood.
    """
    snapshot, id_map = model.current_snapshot(), model.catalog.id_map
    ready: dict[str, tuple[CatalogViews, ViewWeights]] = {
        name: (model.catalog_views(snapshot, views), {cases.behavior: own}) for name, (views, own) in asked.items()
    }
    behavior = BEHAVIORS.index(cases.behavior)
    generator, stands_for = np.random.default_rng(0), np.log(max(1.0, len(id_map) / _NUM_DRAWN))
    own_views = model.views
    model.set_views(None)
    lines: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    more: dict[str, list[np.ndarray]] = {name: [] for name in asked}
    try:
        for begin in range(0, len(cases), _BATCH_SIZE):
            numbers = np.arange(begin, min(begin + _BATCH_SIZE, len(cases)))
            inputs = processor(cases.requests[begin : begin + _BATCH_SIZE])
            masks: list[np.ndarray | None] = [None] * len(numbers)
            masks = masks if (allowed := cases.masks(numbers)) is None else list(allowed)
            requests = model.view_requests(inputs, [behavior] * len(numbers))
            added = {
                name: AddedScores(one.added(requests, own, model.score_unit), len(numbers), len(id_map), model.device)
                for name, (one, own) in ready.items()
            }
            best = [one.best([NUM_VIEWED] * len(numbers), masks) for one in added.values()]
            if by == "all":
                answers = model.retrieve(inputs, top_k=NUM_VIEWED, where=masks, exclude_seen=False)
                best.insert(0, [id_map.convert_to_rows(item.item_id for item in answer) for answer in answers])
            # The target first, each once.
            targets = cases.target_rows[numbers][:, None]
            found = [np.concatenate(parts) for parts in zip(targets, *best, strict=True)]
            found = [line[np.sort(np.unique(line, return_index=True)[1])] for line in found]
            kept = [
                by != "views then model" or np.isin(target, np.concatenate(own)).item()
                for target, *own in zip(targets, *best, strict=True)
            ]
            log_counts = [np.zeros(len(line)) for line in found]
            if draws and by != "views then model":
                for number, mask in enumerate(masks):
                    others = _draw_others(found[number], mask, model.catalog, generator)
                    found[number] = np.concatenate([found[number], others])
                    log_counts[number] = np.append(log_counts[number], np.full(len(others), stands_for))
            counts += compress(log_counts, kept)
            scores = [np.zeros(len(line), np.float32) for line in found]
            scores = scores if by == "views" else model.score_items(inputs, found)
            lines += compress(scores, kept)
            for name, one in added.items():
                more[name] += compress(one.at(found), kept)
    finally:
        model.set_views(own_views)
    added_scores = {name: pad_lines(scores, 0.0) for name, scores in more.items()}
    return ScoredCases(pad_lines(lines, -np.inf), added_scores, pad_lines(counts, 0.0))


def _draw_others(
    found: np.ndarray, mask: np.ndarray | None, catalog: Catalog, generator: np.random.Generator
) -> np.ndarray:
    """Return rows that may be answered and are not among those found, by lot; all of them in a small catalogue."""
    size = len(catalog)
    drawn = np.arange(size) if size <= _NUM_DRAWN else generator.integers(size, size=_NUM_DRAWN)
    may_be = catalog.live[drawn] if mask is None else mask[drawn] & catalog.live[drawn]
    others: np.ndarray = drawn[may_be & ~np.isin(drawn, found)]
    return others


def pad_lines(lines: Sequence[np.ndarray], fill: float) -> np.ndarray:
    """Return lines of several lengths as rows of one array, filled up behind: float32."""
    padded = np.full((len(lines), max(map(len, lines), default=0)), fill, np.float32)
    for target, line in zip(padded, lines, strict=True):
        target[: len(line)] = line
    return padded


__all__ = ["pad_lines", "score_cases"]
