# SPDX-License-Identifier: Apache-2.0
"""The part of a recipe that evaluates its model: validation, and the test against baselines."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from seekrec.catalog import Catalog
from seekrec.embeddings import NeighborTables, SASRecForNextItem
from seekrec.evaluation import ModelRetriever, ResultRow, baseline_systems, compare_on_new_items, format_table
from seekrec.evaluation.baselines import SASRecScorer
from seekrec.evaluation.more_baselines import SAMPLED_SASREC
from seekrec.evaluation.protocols import RankingProtocol, Scorer
from seekrec.evaluation.relearned import relearn
from seekrec.evaluation.tuning import Tuning
from seekrec.evaluation.validation import ValidationRanking
from seekrec.events import EventLog, Split, has_training_events
from seekrec.events.partitions import PartitionedSplit
from seekrec.models.processing import CatalogProcessor
from seekrec.models.views import ViewedModel, Views
from seekrec.recipes.arguments import SPLIT_SEED
from seekrec.recipes.collaborative import best_epochs, sampled_sasrec
from seekrec.recipes.compare import NEW_ITEM_PART, compare_on_test
from seekrec.recipes.fit import RankingTimes
from seekrec.recipes.items import PreparedItems
from seekrec.recipes.logs import prepare_cold_start
from seekrec.recipes.partitioned import PartitionedData
from seekrec.recipes.plan import Plan, fit_test
from seekrec.recipes.recipe_settings import RecipeSettings
from seekrec.recipes.record import MODEL_FOLDER, record_run
from seekrec.recipes.stages import open_stages
from seekrec.recipes.views import count_neighbors, without_views
from seekrec.schema import BEHAVIORS, Behavior
from seekrec.training.budget import PartTimes

ModelT = TypeVar("ModelT", bound=ViewedModel)
ProcessorT = TypeVar("ProcessorT", bound=CatalogProcessor)


@dataclass
class AnsweringRecipe(RecipeSettings, ABC, Generic[ModelT, ProcessorT]):
    """A recipe from its trained model on; a family overrides what its model cannot do, or does otherwise."""

    def __post_init__(self) -> None:
        self.output_dir = Path(str(self.training.output_dir))
        self.cache = open_stages(self.running, self.output_dir)
        self.show_progress = not self.training.disable_tqdm
        self.command = ["accelerate", "launch", *sys.argv]
        self.plan: Plan | None = None  # without a settings file: what chose the settings
        self.log: EventLog | None = None  # and what it read
        self.split: Split  # of a log in partitions a sample
        self.parts: PartitionedData | None = None
        self.items: PreparedItems
        self.catalog: Catalog
        self.processor: ProcessorT
        self.neighbors: NeighborTables | None = None  # counted once, for views and baselines
        self.views: Views | None = None  # made to be timed, until they are weighed
        self.times: RankingTimes
        self.finishing_cases: int | None = None  # of validation, that there is time for after training
        self.time: PartTimes | None = None  # of the test
        self.train_elsewhere: Callable[[], ModelT] | None = None  # on a cluster; saves the model there, too
        self.trainer_folder = "trainer"
        self.trained_epochs = 0.0  # of the checkpoint that was kept
        # What validation chose for: of a second training, the recipe of the first; and what the record says of it.
        self.first: AnsweringRecipe[ModelT, ProcessorT] = self
        self.refit_record: dict[str, object] | None = None

    @property
    def whole(self) -> Split | PartitionedSplit:
        """The split of all users."""
        return self.split if self.parts is None else self.parts.split

    @property
    def has_events(self) -> np.ndarray:
        """Bool of each item: training acts on it."""
        return has_training_events(self.split) if self.parts is None else self.parts.facts.has_acts

    def test(self, model: ModelT) -> list[ResultRow]:
        """Evaluate a model and baselines on the same split, write the results into its folder and print them."""
        self.fit_evaluation()
        rows = self.compare(model)
        self.record(rows)
        print(
            format_table(rows)
            if rows
            else "No test case was ranked; the log above says what was skipped for lack of time."
        )
        self.report(model)
        return rows

    def record(self, rows: Sequence[ResultRow]) -> None:
        """Write results and settings into the folder of the model, which this run has trained."""
        record_run(
            self.output_dir / MODEL_FOLDER,
            rows,
            command=self.command,
            log=self.whole.log,
            arguments=self.first.settings(),
            stages=self.cache,
            quality=self.items.quality,
            plan=[] if self.plan is None else [asdict(choice) for choice in self.plan.choices],
            refit=self.refit_record,
        )

    def fit_evaluation(self) -> None:
        """Share out the time that is left among the parts of the test; where it is short, rank fewer cases."""
        if self.running.max_minutes is None:
            return
        given = self.evaluation.max_test_cases if self.plan is None else self.plan.given.get("max_test_cases")
        wanted = given if isinstance(given, int) else None
        left = self.cache.seconds_left()
        chosen, self.times = fit_test(self.evaluation, self.times, left, wanted)
        if self.plan is not None:
            self.plan = self.plan.with_choices(chosen)
            self.plan.save(self.output_dir)
        parts = self.times.test_parts(min(self.evaluation.max_test_cases or sys.maxsize, self.times.num_test))
        limit = wanted or sys.maxsize
        in_all = {name: min(count, limit) for name, count in (self.parts or self.split).num_cases()["test"].items()}
        self.time = PartTimes(left, 60 * self.running.max_minutes, self.cache.clock, parts, in_all=in_all)

    def make_validation(
        self, protocols: Sequence[RankingProtocol], *, max_cases: int | None = None
    ) -> ValidationRanking:
        """Make the evaluation of the validation cases.

        Args:
            protocols (`Sequence[str]`): How they are ranked.
            max_cases (`int`, *optional*): Number of cases of each task; `max_validation_cases` if not given.
        """
        return ValidationRanking(
            self.split,
            self.catalog,
            protocols=protocols,
            behaviors=self.behaviors,
            num_negatives=self.evaluation.num_negatives,
            remove_seen=self.remove_seen,
            max_cases=self.evaluation.max_validation_cases if max_cases is None else max_cases,
            available_only=self.available_only,
            seed=SPLIT_SEED,
        )

    @property
    def num_finishing_cases(self) -> int | None:
        """Number of validation cases of each task that complete a model; `None` for all."""
        limits = (self.evaluation.max_validation_cases, self.finishing_cases)
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the model in tables."""

    @property
    def behaviors(self) -> tuple[Behavior, ...]:
        """Behaviors that the model is trained and evaluated on."""
        return BEHAVIORS

    @property
    def selection_protocols(self) -> Sequence[RankingProtocol]:
        """The protocols of validation that choose the checkpoint."""
        return ("full",)

    @property
    def only_candidates(self) -> Collection[str]:
        """The names of systems that order candidates and cannot search the whole catalogue."""
        return ()

    @property
    def remove_seen(self) -> bool:
        """Whether full ranking rules out the items of the history."""
        return True

    @property
    def available_only(self) -> bool:
        """Whether full ranking rules out items that are not available when a request is made."""
        return False

    @property
    def num_beams(self) -> int:
        """Beam width in evaluation, of saved models in the same table too."""
        return 50

    def make_retriever(self, model: Any) -> ModelRetriever:
        """Make the retriever of a model for evaluation."""
        return ModelRetriever(model, self.processor, num_beams=None, behaviors=self.behaviors)

    def compare(self, model: ModelT) -> list[ResultRow]:
        """Rank the test cases with the model, baselines and other saved models; then the cases of new items."""
        if self.time is not None and self.time.seconds_left() <= 0:
            self.cache.leave_out("test", "any of its cases")
            return []
        first = self.first
        systems = {self.name: self.make_retriever(model)}
        alone = {name: self.make_retriever(one) for name, one in without_views(self.name, model).items()}
        rows = compare_on_test(
            systems,
            self.whole,
            self.catalog,
            self.evaluation,
            make_baselines=first.make_baselines,
            count_neighbors=partial(count_neighbors, first),
            train_sampled=partial(sampled_sasrec, first.split, first.whole, self.cache, seed=self.training.seed),
            tuned_on=first.split,
            relearn=None if first is self else self.relearn,
            counts=None if self.parts is None else self.parts.facts.counts,
            beside=alone,
            behaviors=self.behaviors,
            only_candidates=self.only_candidates,
            remove_seen=self.remove_seen,
            available_only=self.available_only,
            num_beams=self.num_beams,
            seed=SPLIT_SEED,
            show_progress=self.show_progress,
            scratch=self.output_dir,
            engine=self.data.engine,
            time=self.time,
        )
        cold = self.parts.cold_start() if self.parts else prepare_cold_start(self.split, self.data, self.cache)
        rows += compare_on_new_items(
            {**alone, **systems},
            cold,
            self.catalog,
            behaviors=self.behaviors,
            only_candidates=self.only_candidates,
            with_baselines=self.evaluation.has_baselines,
            remove_seen=self.remove_seen,
            available_only=self.available_only,
            max_cases=self.evaluation.max_test_cases,
            seed=SPLIT_SEED,
            show_progress=self.show_progress,
            time=None if self.time is None else self.time.take(NEW_ITEM_PART),
        )
        for name, time in () if self.time is None else self.time.taken.items():
            self.cache.note(f"test, {name}", time)
        return rows

    def make_baselines(self, tuning: Tuning) -> Mapping[str, Scorer]:
        """Make the baselines."""
        return baseline_systems(tuning, self.catalog, self.items.sasrec)

    def recommenders(self) -> dict[str, Scorer]:
        """Return the recommenders among the baselines, by their names there."""
        return {"SASRec": SASRecScorer(self.items.sasrec, self.catalog.id_map)}

    def report(self, model: ModelT) -> None:  # noqa: B027
        """Print what a family measures in addition to the table."""

    def relearn(self, baselines: Mapping[str, Scorer]) -> dict[str, Scorer]:
        """Let baselines that a first training tuned learn from the events of this one.

        Args:
            baselines (`Mapping[str, Scorer]`): By their names in tables.
        """
        recommenders = self.recommenders()
        sampled = baselines.get(SAMPLED_SASREC)
        if isinstance(sampled, SASRecScorer) and isinstance(sampled.model, SASRecForNextItem):
            recommenders[SAMPLED_SASREC] = sampled_sasrec(
                self.split, self.whole, self.cache, seed=self.training.seed, num_epochs=best_epochs(sampled.model)
            )
        return relearn(
            baselines,
            self.split,
            self.catalog.id_map,
            whole=None if self.parts is None else self.parts.split,
            counts=None if self.parts is None else self.parts.facts.counts,
            recommenders=recommenders,
            count_neighbors=partial(count_neighbors, self),
        )


__all__ = ["AnsweringRecipe", "ModelT", "ProcessorT"]
