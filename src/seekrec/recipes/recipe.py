# SPDX-License-Identifier: Apache-2.0
"""The run of every recipe, from a raw log to a saved model and a table of results; a family adds its own parts."""

from __future__ import annotations

import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from transformers import set_seed

from seekrec.embeddings import ItemNeighbors
from seekrec.evaluation import ModelRetriever, ResultRow, baseline_systems, compare_on_new_items, format_table
from seekrec.evaluation.protocols import RankingProtocol, Scorer
from seekrec.evaluation.tuning import Tuning
from seekrec.evaluation.validation import ValidationRanking
from seekrec.events import EventLog, Spelling, Split, has_training_events
from seekrec.events.partitions import PartitionedSplit
from seekrec.models.processing import CatalogProcessor
from seekrec.models.views import ViewedModel, Views
from seekrec.recipes.arguments import SPLIT_SEED, STAGES, DataArguments, EmbeddingArguments, IdentifierArguments
from seekrec.recipes.collaborative import sampled_sasrec
from seekrec.recipes.compare import NEW_ITEM_PART, compare_on_test, read_tested
from seekrec.recipes.fit import MOST_OF_TEST, RankingTimes, fit_to_time, time_rankings
from seekrec.recipes.items import PreparedItems, prepare_embeddings, prepare_plain_items
from seekrec.recipes.logs import open_partitions, prepare_cold_start, prepare_split, read_log
from seekrec.recipes.partitioned import PartitionedData, prepare_partitions
from seekrec.recipes.plan import Plan, fit_test
from seekrec.recipes.recipe_settings import RecipeSettings
from seekrec.recipes.record import MODEL_FOLDER, record_run, save_trained
from seekrec.recipes.stages import open_stages
from seekrec.recipes.views import add_views, choose_views, count_neighbors, fixed_views, timed_views, without_views
from seekrec.schema import BEHAVIORS, Behavior
from seekrec.training.budget import LEAST_CASES, PartTimes, TimeBudget
from seekrec.training.trainer import EvaluateModel, GenerativeTrainer, train_once

logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=ViewedModel)
ProcessorT = TypeVar("ProcessorT", bound=CatalogProcessor)
# Settings whose effect is in the split and the catalogue: the same log from another folder is the same log.
_SEEN_IN_CONTENTS = (DataArguments, EmbeddingArguments, IdentifierArguments)


@dataclass
class Recipe(RecipeSettings, ABC, Generic[ModelT, ProcessorT]):
    """A run of one family, with its settings as fields; a subclass adds those of the family.

    `run` does one stage after the other and keeps what they make. A family overrides the methods that it calls.
    """

    def __post_init__(self) -> None:
        self.output_dir = Path(str(self.training.output_dir))
        self.cache = open_stages(self.running, self.output_dir)
        self.show_progress = not self.training.disable_tqdm
        self.command = ["accelerate", "launch", *sys.argv]
        self.plan: Plan | None = None  # without a settings file: what chose the settings
        self.log: EventLog | None = None  # and what it read
        self.parts: PartitionedData | None = None
        self.neighbors: ItemNeighbors | None = None  # counted once, for views and baselines
        self.views: Views | None = None  # made to be timed, until they are weighed
        self.finishing_cases: int | None = None  # of validation, that there is time for after training
        self.time: PartTimes | None = None  # of the test
        self.train_elsewhere: Callable[[], ModelT] | None = None  # on a cluster; saves the model there, too

    def run(self) -> None:
        """Run the stages up to `stop_after`."""
        last = STAGES.index(self.running.stop_after)
        # 1. Data: read, write searches, split, audit.
        self.prepare_data()
        self.cache.set_reserve("the log was read and split")
        for folder in self.evaluation.compare_with:
            read_tested(folder, self.whole)  # rather refused now than when the model is trained
        logger.info("data: %s", self.whole.log.describe())
        if last < 1:
            return

        # 2. Embeddings: vectors of the items' texts and of SASRec, which is a baseline too.
        self.prepare_embeddings()
        if last < 2:
            return

        # 3. The catalogue: items with their vectors and, if the family writes any, identifiers.
        self.items = self.prepare_items()
        self.catalog = self.items.catalog
        if last < 3:
            return

        # 4. The processor, and what is learned from.
        set_seed(self.training.seed)
        self.processor = self.make_processor()
        self.processor.spelling = Spelling.fit((self.parts or self.split).training_queries(), self.catalog.items)
        self.prepare_corpus()
        if last < 4:
            return

        # 5. Training; the best checkpoint by validation NDCG@10, the mean of tasks and protocols.
        if self.train_elsewhere is not None:
            model = self.train_elsewhere()
        else:
            model = add_views(self, self.make_model())
            self.train(model)
            if self.training.process_index:
                return
            if self.running.max_minutes is not None and self.finishing_cases is None:
                self.finishing_cases = self.times.fit_finishing(self.cache.seconds_left())
            self.finish(model)
            choose_views(self, model)
            save_trained(model, self.processor, self.split, self.output_dir)
        if last < 5:
            return
        # 6. Evaluation beside baselines on the same split.
        self.fit_evaluation()
        rows = self.compare(model)
        record_run(
            self.output_dir / MODEL_FOLDER,
            rows,
            command=self.command,
            log=self.whole.log,
            arguments=self.settings(),
            stages=self.cache,
            quality=self.items.quality,
            plan=[] if self.plan is None else [asdict(choice) for choice in self.plan.choices],
        )
        print(format_table(rows) if rows else "No test case was ranked; see above what there was no time for.")
        self.report(model)

    def prepare_data(self) -> None:
        """Read the log and split it; one that is larger than memory, a partition at a time."""
        log = open_partitions(self.data, self.cache)
        self.whole: Split | PartitionedSplit
        if log is None:
            self.split = prepare_split(self.log or read_log(self.data, self.output_dir), self.data, self.cache)
            self.whole, self.has_events = self.split, has_training_events(self.split)
        else:
            self.parts = prepare_partitions(log, self.data, self.cache, geohash_length=self.geohash_length)
            self.whole, self.split, self.has_events = self.parts.split, self.parts.sample, self.parts.facts.has_acts
        self.log = None  # the split has it, with its searches; without them it is not kept beside

    @property
    def geohash_length(self) -> int:
        """Characters of the geohashes that the model reads; 0 if it reads none."""
        return 0

    def prepare_embeddings(self) -> None:
        """Compute the embeddings of the items."""
        self.embeddings = prepare_embeddings(
            self.split,
            self.embedding,
            self.cache,
            seed=self.training.seed,
            report_progress=self.show_progress,
            engine=self.data.engine,
            whole=None if self.parts is None else self.parts.split,
        )

    def prepare_items(self) -> PreparedItems:
        """Make the catalogue, by default without identifiers."""
        return prepare_plain_items(self.split, self.embeddings, atomic=False, has_events=self.has_events)

    @abstractmethod
    def make_processor(self) -> ProcessorT:
        """Make the processor, which writes requests as training does."""

    @abstractmethod
    def prepare_corpus(self) -> None:
        """Make the training data."""

    @abstractmethod
    def make_model(self) -> ModelT:
        """Make the model with its start weights."""

    @abstractmethod
    def make_trainers(
        self, model: ModelT, evaluate_model: EvaluateModel
    ) -> Iterator[tuple[GenerativeTrainer, Mapping[str, object]]]:
        """Make the trainings that a model goes through, one after the other.

        Args:
            model (`PreTrainedModel`): The model, which each of them changes.
            evaluate_model (`Callable`): Ranks validation.

        Yields:
            `tuple`: The Trainer, and by name what it learns from, beside the split and the catalogue.
        """

    def train(self, model: ModelT) -> None:
        """Train a model, resume its training, or load it if its training is finished."""
        # Made when it is first asked for: how many cases it has may depend on how long they take.
        make_validation = cache(lambda: self.make_validation(self.selection_protocols))
        trainers = self.make_trainers(model, lambda trained: make_validation()(self.make_retriever(trained)))
        for trainer, learnt_from in trainers:
            train_once(
                trainer,
                [group for group in self.settings() if not isinstance(group, _SEEN_IN_CONTENTS)],
                {
                    "split": self.whole.fingerprint,
                    "catalogue": self.catalog.content_hash,
                    "validation": [*self.behaviors, *self.selection_protocols, *fixed_views(model)],
                    **learnt_from,
                },
                origins=[group for group in self.settings() if isinstance(group, _SEEN_IN_CONTENTS)],
                budget=self.make_budget(trainer, model),
            )

    def make_budget(self, trainer: GenerativeTrainer, model: ModelT) -> TimeBudget | None:
        """Make the clock of `max_minutes`, and fit what the plan chose into the time that is left."""
        if self.running.max_minutes is None:
            return None
        self.times = times = self.time_rankings(model)
        budget = TimeBudget(60 * self.running.max_minutes, validation_seconds=times.validation_seconds)
        if (plan := self.plan) is not None and not plan.is_measured and "num_train_epochs" in plan.values:
            fit = fit_to_time(trainer, times, budget, most_epochs=plan.most_epochs)
            self.plan = plan = plan.with_fit(fit)
            logger.info("fitted to %g minutes: %s", self.running.max_minutes, fit)
            if not self.training.process_index:
                plan.save(self.output_dir)
            plan.apply(self.training, self.evaluation)
        number = min(self.evaluation.max_validation_cases or times.num_validation, times.num_validation)
        self.times = times = replace(times, num_validation=number)
        budget.validation_seconds = times.validation_seconds
        tested = min(self.evaluation.max_test_cases or sys.maxsize, times.num_test)
        most = max(MOST_OF_TEST * self.cache.seconds_left(), times.end_seconds(min(LEAST_CASES, tested)))
        budget.least_reserve = min(times.end_seconds(tested), most)
        return budget

    def time_rankings(self, model: ModelT) -> RankingTimes:
        """Time how long the model, as it is, takes to rank validation cases."""
        left = self.cache.seconds_left()
        parts = self.parts if left > 0 else None
        return time_rankings(
            model,
            lambda protocol, number: self.make_validation((protocol,), max_cases=number),
            self.make_retriever(model),
            self.evaluation,
            selection=self.selection_protocols,
            searches_all=self.name not in self.only_candidates,
            counts=(self.parts or self.split).num_cases(),
            behaviors=self.behaviors,
            views=timed_views(self, model),
            finishing=self.count_finishing(model),
            seconds_left=left,
            reading=parts.time_reads(self.catalog, self.evaluation, self.only_candidates) if parts else 0.0,
            num_items=len(self.catalog),
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

    def count_finishing(self, model: ModelT) -> int:
        """Return how often `finish` ranks a validation case, beside what views take."""
        return 0

    def finish(self, model: ModelT) -> None:  # noqa: B027
        """Complete the model between training and saving."""

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
        return ModelRetriever(model, self.processor, num_beams=None, behaviors=self.behaviors, show_progress=False)

    def compare(self, model: ModelT) -> list[ResultRow]:
        """Rank the test cases with the model, baselines and other saved models; then the cases of new items."""
        if self.time is not None and self.time.seconds_left() <= 0:
            self.cache.leave_out("test", "any of its cases")
            return []
        systems = {self.name: self.make_retriever(model)}
        alone = {name: self.make_retriever(one) for name, one in without_views(self.name, model).items()}
        rows = compare_on_test(
            systems,
            self.whole,
            self.catalog,
            self.evaluation,
            make_baselines=self.make_baselines,
            count_neighbors=partial(count_neighbors, self),
            train_sampled=partial(sampled_sasrec, self.split, self.whole, self.cache, seed=self.training.seed),
            sample=self.split,
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

    def report(self, model: ModelT) -> None:  # noqa: B027
        """Print what a family measures in addition to the table."""


__all__ = ["Recipe"]
