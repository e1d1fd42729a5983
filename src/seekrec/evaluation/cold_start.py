# SPDX-License-Identifier: Apache-2.0
"""How new items are found: a trained model against text search, on questions that only a new item answers."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from seekrec.catalog import Catalog, item_periods
from seekrec.errors import CatalogError
from seekrec.evaluation.evaluator import evaluate_system
from seekrec.evaluation.protocols import Retriever, Scorer, build_cases
from seekrec.evaluation.report import ResultRow
from seekrec.evaluation.retrievers import ModelRetriever
from seekrec.evaluation.rivals import text_systems
from seekrec.events import ColdStart
from seekrec.schema import BEHAVIORS, Behavior

logger = logging.getLogger(__name__)


def compare_on_new_items(
    systems: Mapping[str, ModelRetriever],
    cold: ColdStart,
    catalog: Catalog,
    *,
    behaviors: Sequence[Behavior] = BEHAVIORS,
    only_candidates: Collection[str] = (),
    with_baselines: bool = True,
    remove_seen: bool = True,
    on_offer_only: bool = False,
    max_cases: int | None = None,
    seed: int,
    show_progress: bool = True,
) -> list[ResultRow]:
    """Rank the test cases that look for new items, in full ranking: searches by what was typed, the others by taste.

    Items that were held out are added to the models by `add_items` first, and taken back afterwards.

    Args:
        systems (`Mapping[str, ModelRetriever]`): What was trained, by names in reports; all over `catalog`.
        cold ([`ColdStart`]): The new items and who asks for them.
        catalog ([`Catalog`]): What the systems were trained with.
        behaviors (`Sequence[str]`): What is asked.
        only_candidates (`Collection[str]`): Systems that cannot search the whole catalogue; they are left out.
        with_baselines (`bool`): Rank with BM25 and dense text, too.
        remove_seen (`bool`): Rule out the items of the history.
        on_offer_only (`bool`): Rule out items that are not available when a request is made.
        max_cases (`int`, *optional*): Number of cases of each behavior.
        seed (`int`): Seed of the cases and intervals.
        show_progress (`bool`): Show progress bars.

    Returns:
        `list[ResultRow]`: Rows of BM25, dense text and the systems, with the protocol `"full, held-out items"`, or
        `"full, untrained items"` where the items were in the catalogue. Without the systems where their catalogue
        cannot grow; empty where nothing asks for new items.
    """
    asked = [behavior for behavior in behaviors if not cold.item_ids.isdisjoint(cold.split.targets("test", behavior))]
    if not asked:
        logger.info("No test question looks for an item without training events; `num_cold_items` holds some out.")
        return []
    everyone = {name: system for name, system in systems.items() if name not in only_candidates}
    grown = catalog
    if cold.held_out:
        try:
            grown = catalog.add_items(cold.items)
        except CatalogError as error:
            logger.warning("New items cannot be asked for: %s", error)
            return []
    baselines: Mapping[str, Scorer] = text_systems(grown) if with_baselines else {}
    kind = "held-out items" if cold.held_out else "untrained items"
    rows = []
    with answering_from(grown, list(everyone.values())):
        for behavior in asked:
            cases = build_cases(
                cold.split,
                grown.id_map,
                behavior=behavior,
                remove_seen=remove_seen,
                max_cases=max_cases,
                seed=seed,
                periods=item_periods(grown.items) if on_offer_only else None,
                only_targets=cold.item_ids,
            )
            cases = replace(cases, protocol=f"{cases.protocol}, {kind}")
            everyone_here: dict[str, Scorer | Retriever] = {**baselines, **everyone}
            rows += [
                evaluate_system(
                    system, cold.split, grown.id_map, name=name, cases=cases, seed=seed, show_progress=show_progress
                )
                for name, system in everyone_here.items()
                if behavior in system.behaviors
            ]
    return rows


@contextmanager
def answering_from(catalog: Catalog, systems: Sequence[ModelRetriever]) -> Iterator[None]:
    """Let models and their processors answer from a catalogue, and afterwards from the one they had before."""
    parts: list[Any] = [part for system in systems for part in (system.model, system.processor)]
    before = [part.catalog for part in parts]
    try:
        for part in parts:
            part.set_catalog(catalog)
        yield
    finally:
        for part, own in zip(parts, before, strict=True):
            part.set_catalog(own)


__all__ = ["answering_from", "compare_on_new_items"]
