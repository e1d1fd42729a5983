# SPDX-License-Identifier: Apache-2.0
"""The recipe that IntSR and SynerGen share: training on windows of events, in memory or from shards."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from seekrec.corpora.training_windows import TrainingWindows
from seekrec.corpora.window_shards import WindowShards
from seekrec.evaluation import build_cases, click_calibration
from seekrec.evaluation.protocols import EvaluationCases
from seekrec.events.pool_texts import check_pool_kinds
from seekrec.models.dense import DenseConfig
from seekrec.recipes.arguments import SPLIT_SEED
from seekrec.recipes.compare import CALIBRATION_PART
from seekrec.recipes.items import PreparedItems, prepare_written_queries
from seekrec.recipes.partitioned import (
    prepare_window_shards,
)
from seekrec.recipes.ranking_scales import scale_ranking
from seekrec.recipes.recipe import Recipe
from seekrec.recipes.windows import (
    DenseT,
    EventProcessorT,
    WindowArguments,
    make_window_collator,
    make_window_model,
    make_window_processor,
    make_windows,
    start_at,
    with_lifetimes,
    with_starts,
)
from seekrec.schema import BEHAVIORS, Behavior
from seekrec.training.event_windows import make_window_trainer
from seekrec.training.trainer import EvaluateModel, GenerativeTrainer

logger = logging.getLogger(__name__)


@dataclass
class WindowRecipe(Recipe[DenseT, EventProcessorT]):
    """Shared parts of the recipes of IntSR and SynerGen.

    Args:
        window ([`WindowArguments`]): Windows, and what they ask.
        config ([`DenseConfig`]): The decoder and its losses.
    """

    window: WindowArguments
    config: DenseConfig
    # Whether no item is drawn that the user acted on; see `make_negatives`.
    spares_own: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pool_kinds(self.window.query_pool)

    @property
    @abstractmethod
    def model_type(self) -> type[DenseT]:
        """The family's model."""

    @property
    @abstractmethod
    def processor_type(self) -> type[EventProcessorT]:
        """The family's processor."""

    @property
    def behaviors(self) -> tuple[Behavior, ...]:
        """Behaviors that the model is trained and evaluated on."""
        return BEHAVIORS if self.window.tasks == "joint" else (self.window.tasks,)

    @property
    def remove_seen(self) -> bool:
        """Whether full ranking rules out the items of the history."""
        return self.window.ranked_items != "all"

    @property
    def available_only(self) -> bool:
        """Whether full ranking rules out items that are not available when a request is made."""
        return self.window.ranked_items == "available"

    @property
    def geohashes(self) -> list[str]:
        """The areas that the model tells apart."""
        return []

    @property
    def use_session_mask(self) -> bool:
        """Whether the events of a session are hidden from its questions."""
        return True

    @property
    def is_aligned(self) -> bool:
        """Whether items are drawn among those available at the time."""
        return True

    def from_data(self) -> dict[str, object]:
        """Return the fields of the family's configuration that the log decides."""
        return {}

    def prepare_items(self) -> PreparedItems:
        """Make the catalogue, and set when its items are available while the model trains."""
        items = super().prepare_items()
        if self.window.item_lifetimes == "catalog":
            return items
        self.own_times = items.catalog.items["available_from"]
        if self.parts is None:
            return replace(items, catalog=with_lifetimes(items.catalog, self.split, self.window))
        return replace(items, catalog=start_at(items.catalog, self.parts.facts.first_times))

    def finish(self, model: DenseT) -> None:
        """Restore the catalogue's own availability times after training, which used the times of first events.

        Requests with `where(at=...)` then filter by the catalogue's own times, if it has any. If test cases are ranked
        among the items available at the time (`ranked_items: available`), the times of first events stay.
        """
        super().finish(model)
        if self.window.item_lifetimes == "catalog" or self.available_only:
            return
        self.catalog = with_starts(self.catalog, self.own_times)
        self.items = replace(self.items, catalog=self.catalog)
        model.set_catalog(self.catalog)
        self.processor.set_catalog(self.catalog)

    def make_processor(self) -> EventProcessorT:
        """Make the processor that lays requests out as windows are."""
        if self.parts is not None:
            split = self.parts.split
            kind = split.session_ids if self.config.session_ids == "auto" else self.config.session_ids
            return self.processor_type.from_config(
                self.config.with_data(session_ids=kind),
                self.catalog,
                actions=sorted(split.actions),
                geohashes=self.geohashes,
            )
        return make_window_processor(
            self.processor_type, self.config, self.split, self.catalog, geohashes=self.geohashes
        )

    def prepare_corpus(self) -> None:
        """Cut training into windows with their questions, and let models write what the query pool asks of them."""
        self.windows = self.cut_windows()
        self.written = prepare_written_queries(
            self.catalog.items,
            self.window.query_pool,
            self.cache,
            seed=self.training.seed,
            report_progress=self.show_progress,
        )

    def cut_windows(self) -> TrainingWindows | WindowShards:
        """Cut training into windows with their questions."""
        if self.parts is not None:
            return prepare_window_shards(
                self.parts,
                self.cache,
                self.config,
                behaviors=self.behaviors,
                geohashes=self.processor.geohashes,
                recommend_searched_items="recommend_searched_items" in self.window.extra_requests,
                use_session_mask=self.use_session_mask,
                engine=self.data.engine,
            )
        windows = make_windows(
            self.split,
            self.catalog,
            self.config,
            self.window,
            geohashes=self.processor.geohashes,
            use_session_mask=self.use_session_mask,
        )
        logger.info("windows: %d, with %d targets", len(windows), len(windows.behavior))
        return windows

    def make_model(self) -> DenseT:
        """Make the model with its start weights."""
        return make_window_model(
            self.model_type,
            self.config,
            self.catalog,
            self.processor,
            self.window,
            self.windows.queries,
            **self.from_data(),
        )

    @property
    @abstractmethod
    def num_ranked_negatives(self) -> int:
        """Number of items that the ranking head sees alongside a target in training."""

    def choose(self, model: DenseT) -> None:
        """Scale a ranking head that begins with retrieval by validation, with the views that answers have."""
        super().choose(model)
        if model.retrieval_logit is None:
            return
        if self.finishing_cases == 0:
            self.cache.leave_out("ranking", "scaling the head by validation; it ranks as trained")
            return
        number = self.num_finishing_cases
        asked = [behavior for behavior in self.behaviors if self.split.targets("validation", behavior)]
        cases = {behavior: self.drawn_cases(model, behavior, "validation", number) for behavior in asked}
        validation = self.make_validation(self.evaluation.candidate_protocols or ("uniform",), max_cases=number)
        scale_ranking(model, self.make_retriever(model), self.catalog.id_map, cases, validation)

    def count_finishing(self, model: DenseT) -> int:
        """Return how often `finish` ranks a validation case, in addition to what views take."""
        return 4 if model.retrieval_logit is not None else 0

    def drawn_cases(
        self, model: DenseT, behavior: Behavior, part: Literal["validation", "test"], max_cases: int | None
    ) -> EvaluationCases:
        """Make cases whose negatives are drawn as in training, and are as many: the share of clicks is that of it.

        Args:
            model (`PreTrainedModel`): Says how its losses draw.
            behavior (`str`): The task.
            part (`str`): Part of the split.
            max_cases (`int`, *optional*): Number of cases.
        """
        return build_cases(
            self.split,
            self.catalog.id_map,
            behavior=behavior,
            part=part,
            protocol=model.config.drawn_negatives or "uniform",
            num_negatives=self.num_ranked_negatives,
            max_cases=max_cases,
            seed=SPLIT_SEED,
        )

    def print_calibration(self, model: DenseT) -> None:
        """Print how well the probabilities of the ranking head are calibrated.

        Args:
            model (`PreTrainedModel`): Its `rank` answers with probabilities.
        """
        if model.config.drawn_negatives is None:
            return
        number = self.evaluation.max_test_cases
        if self.time is not None:
            number = self.time.take(CALIBRATION_PART).fit_cases(number or self.times.num_test)
            if not number:
                self.cache.leave_out("calibration", "it")
                return
        for behavior in self.behaviors:
            cases = self.drawn_cases(model, behavior, "test", number)
            found = click_calibration(self.make_retriever(model), cases, self.catalog.id_map)
            print(
                f"{behavior}: expected calibration error of click probabilities {found.error:.4f} "
                f"({len(cases)} cases of {found.num_users} users; right ones would show {found.by_chance:.4f}, up to "
                f"{found.limit:.4f})"
            )

    def make_trainers(
        self, model: DenseT, evaluate_model: EvaluateModel
    ) -> Iterator[tuple[GenerativeTrainer, Mapping[str, object]]]:
        """Make the one training, on all questions."""
        time = self.cache.make_time()
        collator = make_window_collator(
            self.windows,
            self.catalog,
            model.config,
            self.processor.query_vectors,
            self.window,
            written=self.written,
            is_aligned=self.is_aligned,
            spares_own=self.spares_own,
            seed=self.training.seed,
            time=time,
        )
        self.cache.note("queries", time)
        self.training.output_dir = str(self.output_dir / self.trainer_folder)
        trainer = make_window_trainer(
            model,
            collator,
            self.training,
            table_learning_rate=self.window.sparse_learning_rate,
            evaluate_model=evaluate_model,
        )
        yield trainer, {"windows": self.windows}


__all__ = ["WindowRecipe"]
