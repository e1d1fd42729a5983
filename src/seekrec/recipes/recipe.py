# SPDX-License-Identifier: Apache-2.0
"""The run that all recipes share, from a raw log to a saved model and a table of results; families add their parts."""

from __future__ import annotations

import copy
import logging
import sys
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Self

from transformers import IntervalStrategy, set_seed

from seekrec.errors import ConfigurationError
from seekrec.events import Spelling
from seekrec.events.split import LearnedAlso
from seekrec.events.splits import learn_held_out
from seekrec.recipes.answering import AnsweringRecipe, ModelT, ProcessorT
from seekrec.recipes.arguments import STAGES, DataArguments, EmbeddingArguments, IdentifierArguments
from seekrec.recipes.collaborative import best_epochs
from seekrec.recipes.compared_models import read_tested
from seekrec.recipes.fit import MOST_OF_TEST, RankingTimes, fit_to_time, time_rankings
from seekrec.recipes.items import PreparedItems, prepare_embeddings, prepare_plain_items
from seekrec.recipes.logs import open_partitions, prepare_split, read_log
from seekrec.recipes.partitioned import learn_partitions, prepare_partitions
from seekrec.recipes.record import save_trained
from seekrec.recipes.views import add_views, choose_views, fixed_views, timed_views
from seekrec.training.budget import LEAST_CASES, TimeBudget
from seekrec.training.trainer import EvaluateModel, GenerativeTrainer, train_once

logger = logging.getLogger(__name__)

_TRAINING = STAGES.index("training")
# Settings whose effect is in the split and the catalogue: the same log from another folder is the same log.
_SEEN_IN_CONTENTS = (DataArguments, EmbeddingArguments, IdentifierArguments)


@dataclass
class Recipe(AnsweringRecipe[ModelT, ProcessorT]):
    """A run of one family, with its settings as fields; a subclass adds those of the family.

    `run` does one stage after the other and keeps what they make. A family overrides the methods that it calls.
    """

    def run(self) -> None:
        """Run the stages up to `stop_after`, with one training; [`run_twice`] does what `refit` asks for.

        Raises:
            ConfigurationError: If `refit` is set.
        """
        if self.running.refit != "none":
            raise ConfigurationError(
                f"`refit` is {self.running.refit}, but this command trains only once; leave it out."
            )
        model = self.fit()
        if model is not None:
            if self.train_elsewhere is None:
                save_trained(model, self.processor, self.split, self.output_dir)
            if self.running.stop_after == "evaluation":
                self.test(model)

    def fit(self) -> ModelT | None:
        """Run the stages up to training; return the complete model, unless they end before or it is another's."""
        # 1. Data: read, write searches, split, audit.
        self.prepare_data()
        self.refuse_refit()
        self.cache.set_reserve("the log was read and split")
        # Rather refused now than when the model is trained.
        if self.evaluation.compare_with:
            tested = self.whole if self.running.refit != "validation" else self.learn_held_out("validation").whole
            for folder in self.evaluation.compare_with:
                read_tested(folder, tested)
        facts = self.whole.log.describe()
        logger.info(
            "data: %s, %d events of %d users, %d items (%d with events), %d different queries",
            *(facts[name] for name in ("name", "num_events", "num_users", "num_items", "num_items_with_events")),
            facts["num_distinct_queries"],
        )
        model = None if self.running.stop_after == "data" else self.fit_split()
        if STAGES.index(self.running.stop_after) < _TRAINING:
            self.save_plan()
        return model

    def save_plan(self) -> None:
        """Write the plan and the settings over those of a run before, once nothing is left to refuse this one."""
        if self.plan is not None and not self.training.process_index:
            self.plan.save(self.output_dir)

    def fit_split(self, *, choose: bool = True) -> ModelT | None:
        """Run the stages after the split, as [`Recipe.fit`] does.

        Args:
            choose (`bool`): Choose by validation how the model answers.
        """
        last = STAGES.index(self.running.stop_after)
        # 2. Embeddings: vectors of the items' texts and of SASRec, which is a baseline too.
        self.prepare_embeddings()
        if last < 2:
            return None

        # 3. The catalogue: items with their vectors and, if the family writes any, identifiers.
        self.items = self.prepare_items()
        self.catalog = self.items.catalog
        if last < 3:
            return None

        # 4. The processor, and what is learned from.
        set_seed(self.training.seed)
        self.processor = self.make_processor()
        self.processor.spelling = Spelling.fit((self.parts or self.split).training_queries(), self.catalog.items)
        self.prepare_corpus()
        if last < _TRAINING:
            return None

        # 5. Training; the best checkpoint by validation NDCG@10, the mean of tasks and protocols.
        self.save_plan()
        if self.train_elsewhere is not None:
            return self.train_elsewhere()
        model = add_views(self, self.make_model())
        self.train(model)
        if self.training.process_index:
            return None
        if self.running.max_minutes is not None and self.finishing_cases is None:
            self.finishing_cases = self.times.fit_finishing(self.cache.seconds_left())
        self.finish(model)
        if choose:
            self.choose(model)
        return model

    def refuse_refit(self) -> None:
        """Refuse a second training that there is none of.

        Raises:
            ConfigurationError: If several processes train.
        """
        if self.running.refit == "none":
            return
        if self.training.world_size > 1 or self.train_elsewhere is not None:
            raise ConfigurationError(
                f"`refit` is {self.running.refit}, but several processes train, and the second training runs in a "
                "single process. Start one process, or leave `refit` out."
            )

    def prepare_data(self) -> None:
        """Read the log and split it; one that is larger than memory, a partition at a time."""
        log = open_partitions(self.data, self.cache)
        if log is None:
            self.split = prepare_split(self.log or read_log(self.data, self.output_dir), self.data, self.cache)
        else:
            self.parts = prepare_partitions(log, self.data, self.cache, geohash_length=self.geohash_length)
            self.split = self.parts.sample
        self.log = None  # the split has it, with its searches; without them it is not kept alongside

    def learn_held_out(self, also: LearnedAlso) -> Self:
        """Return this recipe as it is before its stages, with a split whose training has what was held out, too.

        Args:
            also (`str`): See [`~seekrec.events.splits.learn_held_out`].
        """
        again = copy.copy(self)
        if self.parts is None:
            again.split = learn_held_out(self.split, also)
        else:
            again.parts = learn_partitions(self.parts, self.data, self.cache, also, geohash_length=self.geohash_length)
            again.split = again.parts.sample
        again.neighbors = again.views = None
        return again

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
            `tuple`: The Trainer, and by name what it learns from, in addition to the split and the catalogue.
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
            self.trained_epochs = trainer.trained_epochs()

    def make_budget(self, trainer: GenerativeTrainer, model: ModelT) -> TimeBudget | None:
        """Make the clock of `max_minutes`, and fit what the plan chose into the time that is left."""
        if self.running.max_minutes is None:
            return None
        self.times = times = self.time_rankings(model)
        budget = TimeBudget(60 * self.running.max_minutes, validation_seconds=times.validation_seconds)
        if (plan := self.plan) is not None and not plan.is_measured and "num_train_epochs" in plan.values:
            fit = fit_to_time(trainer, times, budget, most_epochs=plan.most_epochs)
            self.plan = plan = plan.with_fit(fit)
            logger.info(
                "fitted to %g minutes: %.3g epochs of %.3g s a step, validated every %d steps by %d cases, test of %d",
                *(self.running.max_minutes, fit.num_train_epochs, fit.step_seconds, fit.eval_steps),
                *(fit.num_validation_cases, fit.num_test_cases),
            )
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

    def count_finishing(self, model: ModelT) -> int:
        """Return how often `finish` ranks a validation case, in addition to what views take."""
        return 0

    def take_epochs(self, first: Self) -> None:
        """Train for the epochs after which validation was best in a first training.

        Args:
            first ([`Recipe`]): What trained it, with the same settings.
        """
        self.embedding = replace(first.embedding, sasrec_num_epochs=best_epochs(first.items.sasrec))
        self.training.num_train_epochs, self.training.max_steps = first.trained_epochs, -1
        self.training.eval_strategy, self.training.load_best_model_at_end = IntervalStrategy.NO, False

    def finish(self, model: ModelT) -> None:  # noqa: B027
        """Complete the model after training."""

    def choose(self, model: ModelT) -> None:
        """Choose by validation how a complete model answers."""
        choose_views(self, model)


__all__ = ["Recipe"]
