# SPDX-License-Identifier: Apache-2.0
"""Parts of the recipes of IntSR and SynerGen: windows of events, the model over them, and the batches it reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa

from seekrec.catalog import Catalog
from seekrec.corpora.targets import report_questions
from seekrec.corpora.training_windows import (
    TrainingWindows,
    build_training_windows,
    choose_session_ids,
    log_actions,
)
from seekrec.corpora.window_shards import WindowShards
from seekrec.errors import ConfigurationError, LeakageError
from seekrec.events import Split
from seekrec.events.sessions import guess_session_ids
from seekrec.models.dense import DenseConfig, DenseModel, EventSequenceProcessor, QueryVectors
from seekrec.models.words import Vocabulary, category_names, item_word_keys, text_word_keys
from seekrec.schema import BEHAVIORS
from seekrec.training.budget import StageTime
from seekrec.training.event_windows import QueryPool, WindowCollator, make_negatives

logger = logging.getLogger(__name__)

DenseT = TypeVar("DenseT", bound=DenseModel)
EventProcessorT = TypeVar("EventProcessorT", bound=EventSequenceProcessor)


@dataclass
class WindowArguments:
    """Windows of events, and what they ask.

    Args:
        tasks (`str`): Tasks that are trained and evaluated.
        extra_requests (`list[str]`): Training requests in addition to those of the log. `recommend_searched_items`: a
            searched item also as a recommendation, without its query. `pool_searches=P`: with probability P a
            recommendation also as a search, by a query of the pool; `pool_in_place=P`: that search in place of the
            recommendation, as in the paper. The pool is for joint tasks.
        query_pool (`list[str]`): Queries that may stand for an item, of the five kinds of the paper: logged;
            information, category; description, paraphrase=MODEL, item_text; keywords; expressions, doc2query=MODEL.
            MODEL is a sequence-to-sequence model, such as doc2query/msmarco-t5-base-v1.
        item_lifetimes (`str`): Availability of items: as in the catalogue, or from their first event on.
        sparse_learning_rate (`float`, *optional*): Learning rate of the embeddings of items and actions; that of the
            rest if not given.
        start_from_sasrec (`bool`): Whether id embeddings start from those of SASRec, which every recipe trains as a
            baseline.
        ranked_items (`str`): Items of full ranking: `unseen`, all items but those of the history; `all`, these too;
            `available`, the unseen ones that are available when a request is made.
    """

    tasks: Literal["joint", "search", "recommendation"] = "joint"
    extra_requests: list[str] = field(default_factory=lambda: ["recommend_searched_items"])
    query_pool: list[str] = field(default_factory=lambda: ["logged", "category", "item_text"])
    item_lifetimes: Literal["catalog", "first_event"] = "catalog"
    sparse_learning_rate: float | None = None
    start_from_sasrec: bool = False
    ranked_items: Literal["unseen", "all", "available"] = "unseen"

    def __post_init__(self) -> None:
        pool = [request for request in self.extra_requests if request != "recommend_searched_items"]
        for request in pool:
            name, _, number = request.partition("=")
            try:
                is_probability = 0 < float(number) <= 1
            except ValueError:
                is_probability = False
            if name not in ("pool_searches", "pool_in_place") or not is_probability:
                raise ConfigurationError(
                    f"`extra_requests` has {request!r}; choose among recommend_searched_items, pool_searches=P and "
                    "pool_in_place=P, where P is a probability above 0 and up to 1."
                )
        if len(pool) > 1 or len(set(self.extra_requests)) < len(self.extra_requests):
            raise ConfigurationError(
                f"`extra_requests` is {', '.join(self.extra_requests)}; name each once, and only one of the `pool_` "
                "requests."
            )
        # One task alone makes no searches of recommendations.
        self.pool_probability = float(pool[0].partition("=")[2]) if pool and self.tasks == "joint" else 0.0
        self.pool_adds = bool(pool) and pool[0].startswith("pool_searches")


def with_lifetimes(catalog: Catalog, split: Split, settings: WindowArguments) -> Catalog:
    """Make items available from the first act on them in training on, where the settings ask for it.

    Items on which nobody acted in training stay as the catalogue has them: what came later is not known.
    """
    if settings.item_lifetimes == "catalog":
        return catalog
    timeline = split.timeline
    rows = split.training_interactions()
    first = np.full(timeline.num_items, np.iinfo(np.int64).max)
    np.minimum.at(first, timeline.item[rows], timeline.timestamp[rows])
    return start_at(catalog, first)


def start_at(catalog: Catalog, first: np.ndarray) -> Catalog:
    """Make items available from a time on.

    Args:
        catalog ([`Catalog`]): The items.
        first (`np.ndarray`): int64 time of each item; the largest int64 leaves an item as the catalogue has it.
    """
    has_event = first < np.iinfo(np.int64).max
    old = catalog.items["available_from"].to_pylist()
    values = [int(own) if known else before for own, known, before in zip(first, has_event, old, strict=True)]
    return with_starts(catalog, pa.array(values, pa.int64()))


def with_starts(catalog: Catalog, starts: pa.Array | pa.ChunkedArray) -> Catalog:
    """Return a catalogue whose items are available from these int64 times on; null for always."""
    column = catalog.items.column_names.index("available_from")
    return replace(catalog, items=catalog.items.set_column(column, "available_from", starts))


def make_window_processor(
    kind: type[EventProcessorT],
    config: DenseConfig,
    split: Split,
    catalog: Catalog,
    *,
    geohashes: Sequence[str] = (),
) -> EventProcessorT:
    """Make the processor that lays requests out as windows are; queries are embedded as items are.

    Args:
        kind (`type[EventSequenceProcessor]`): The family's processor.
        config ([`DenseConfig`]): Settings of the model.
        split (`Split`): Split whose training events name the actions.
        catalog ([`Catalog`]): The items.
        geohashes (`Sequence[str]`): The areas that the model tells apart.
    """
    config = config.with_data(session_ids=choose_session_ids(split, config.session_ids))
    return kind.from_config(config, catalog, actions=log_actions(split), geohashes=geohashes)


def make_windows(
    split: Split,
    catalog: Catalog,
    config: DenseConfig,
    window: WindowArguments,
    *,
    geohashes: Sequence[str] = (),
    use_session_mask: bool = True,
) -> TrainingWindows:
    """Cut training into windows, keep the questions of the tasks, and warn of what they leave out.

    Args:
        split (`Split`): Split whose training events are read.
        catalog ([`Catalog`]): The items.
        config ([`DenseConfig`]): The length of a history, and what `session_id` means.
        window ([`WindowArguments`]): Tasks, and the targets of training.
        geohashes (`Sequence[str]`): Geohashes that the processor knows.
        use_session_mask (`bool`): Whether the events of a session are hidden from its questions.

    Raises:
        DataError: If nothing is left to ask.
        LeakageError: If a question of a strict split sees its own answer.
    """
    if config.session_ids == "auto" and (guess := guess_session_ids(split)) is not None:
        logger.info("%s: %s", split.log.name, guess)
    windows = build_training_windows(
        split,
        catalog.id_map,
        actions=log_actions(split),
        geohashes=geohashes,
        max_history=config.max_history,
        recommend_searched_items="recommend_searched_items" in window.extra_requests,
        session_ids=config.session_ids,
        use_session_mask=use_session_mask,
    )
    if split.protocol == "strict" and (num_leaks := windows.count_leaks()):
        raise LeakageError(
            f"{num_leaks} of {len(windows.behavior)} training targets of {split.log.name!r} see their own answer."
        )
    behaviors = BEHAVIORS if window.tasks == "joint" else (window.tasks,)
    windows = windows if window.tasks == "joint" else windows.select(window.tasks)
    rows = windows.windows.values[windows.places]
    report_questions(split, rows, windows.behavior, behaviors=behaviors, is_blind=windows.is_blind)
    return windows


def make_window_model(
    kind: type[DenseT],
    config: DenseConfig,
    catalog: Catalog,
    processor: EventSequenceProcessor,
    window: WindowArguments,
    queries: Sequence[str] = (),
    **from_data: object,
) -> DenseT:
    """Make a model over a catalogue.

    Args:
        kind (`type[DenseModel]`): The family's model.
        config ([`DenseConfig`]): Its settings.
        catalog ([`Catalog`]): Items with text vectors.
        processor ([`EventSequenceProcessor`]): Says which actions are distinguished.
        window ([`WindowArguments`]): Whether id embeddings begin as those of SASRec.
        queries (`Sequence[str]`): The distinct queries of training, whose words are learned with those of the items.
        from_data: Further fields of the configuration that the log decides.
    """
    width = catalog.embeddings["semantic"].shape[1]
    texts = [item_word_keys(catalog.items), text_word_keys(queries)] if config.reads_words else []
    words = Vocabulary.choose(texts)
    model = kind(
        config.with_data(
            num_items=len(catalog),
            num_words=len(words),
            num_categories=len(category_names(catalog.items)) if "categories" in config.item_reading else 0,
            text_size=width,
            query_size=width,
            num_actions=max(1, len(processor.actions)),
            session_ids=processor.session_ids,
            **from_data,
        )
    )
    model.items.set_words(catalog.items, words, processor.query_vectors.encode)
    model.set_catalog(catalog)
    if window.start_from_sasrec:
        model.items.start_ids(catalog.embeddings["collaborative"])
    return model


def make_window_collator(
    windows: TrainingWindows | WindowShards,
    catalog: Catalog,
    config: DenseConfig,
    query_vectors: QueryVectors,
    window: WindowArguments,
    *,
    written: Mapping[str, Sequence[Sequence[str]]] | None = None,
    is_aligned: bool = True,
    spares_own: bool = False,
    seed: int,
    time: StageTime | None = None,
) -> WindowCollator:
    """Make the collator of a model, with the query pool of the settings and the negatives that a loss needs.

    Args:
        windows (`TrainingWindows` or `WindowShards`): Windows with the training questions.
        catalog ([`Catalog`]): Its items.
        config ([`DenseConfig`]): The configuration of the model: how negatives are drawn, and how many.
        query_vectors ([`QueryVectors`]): To which the queries of the pool are added.
        window ([`WindowArguments`]): The pool, and how often it is asked.
        written (`Mapping`, *optional*): What models wrote for the pool; see [`prepare_written_queries`].
        is_aligned (`bool`): Whether negatives are drawn among items available at the time.
        spares_own (`bool`): Whether none of them is an item that the user acted on; see [`make_negatives`].
        seed (`int`): Seed of all draws.
        time ([`StageTime`], *optional*): What embedding the queries may take.
    """
    negatives = None
    if config.drawn_negatives is not None:
        negatives = make_negatives(
            windows,
            catalog,
            config.drawn_negatives,
            config.num_training_negatives,
            is_aligned=is_aligned,
            spares_own=spares_own,
            seed=seed,
        )
    reads_words = "words" in config.query_reading
    pool = QueryPool.build(
        windows, catalog, query_vectors, window.query_pool, written, reads_words=reads_words, time=time
    )
    return WindowCollator(
        windows,
        pool,
        pool_probability=window.pool_probability,
        pool_adds=window.pool_adds,
        negatives=negatives,
        seed=seed,
    )


__all__ = [
    "WindowArguments",
    "make_window_collator",
    "make_window_model",
    "make_window_processor",
    "make_windows",
    "start_at",
    "with_lifetimes",
]
