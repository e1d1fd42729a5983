# SPDX-License-Identifier: Apache-2.0
"""Fit a training into the remaining time: time steps and rankings, then choose the numbers of epochs and cases."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel
from transformers.trainer import Trainer

from seekrec.evaluation.conditions import QUERY_FORMS
from seekrec.evaluation.protocols import RankingProtocol, Retriever
from seekrec.evaluation.validation import ValidationRanking
from seekrec.evaluation.view_weights import MAX_VIEW_CASES
from seekrec.events.split import SPLIT_PARTS
from seekrec.models.views import ViewedModel
from seekrec.recipes.arguments import EvaluationArguments
from seekrec.recipes.compare import CALIBRATION_PART, MAX_QUERY_FORM_CASES, NEW_ITEM_PART, QUERY_FORM_PART
from seekrec.schema import Behavior
from seekrec.training.budget import LEAST_CASES, TimeBudget, time_steps
from seekrec.util.clock import process_seconds, share_of_core

logger = logging.getLogger(__name__)

# Cases of each behavior that are ranked to time a ranking: the next number where one takes little time.
_TIMED_CASES = (4, 24, 120)
_LITTLE_TIME = 3.0
# Share of the remaining time that the final evaluation may take, and that validation may take of training.
_SHARE_OF_TEST, _SHARE_OF_VALIDATION, _SHARE_OF_ONE_VALIDATION = 0.3, 0.2, 0.1
# And what timing steps may take of it, and a first ranking that is followed by others.
_SHARE_OF_TIMING = 0.05
# What a run with a settings file reserves for its test at most.
MOST_OF_TEST = 0.5
_MOST_VALIDATIONS = 8
# Weights of views are chosen once, by so many times the cases that choose a checkpoint again and again. Each is ranked
# by the model at least twice.
_MORE_VIEW_CASES, RANKINGS_OF_VIEWS = 10, 2.0
_SHARE_OF_VIEWS = 0.15
# What a timing may be off, and the seconds that saving takes, of a checkpoint and of an item of the catalogue, and
# making the baselines.
_MARGIN = 0.9
_SECONDS_OF_SAVING, _SECONDS_OF_SAVED_ITEM = 0.3, 2e-5
_SECONDS_OF_BASELINES, _SECONDS_OF_BASELINE_CASE = 4.0, 1e-3
# Tuning those that read texts makes several indices of them.
SECONDS_OF_BASELINE_ITEM = 5e-4


@dataclass(frozen=True)
class RankingTimes:
    """Times of ranking.

    Args:
        seconds_by_protocol (`Mapping`): By protocol, the seconds of a ranking without cases, and those of a case of
            each behavior together.
        num_validation (`int`): Number of validation cases of a behavior.
        num_test (`int`): Number of test cases of a behavior.
        validation_protocols (`Sequence[str]`): Protocols of validation.
        test_protocols (`Sequence[str]`): Protocols of the final table.
        share_of_core (`float`): Share of a core that this process got so far, 1 on a machine of its own: what was not
            timed takes so much longer.
        view_seconds (`tuple[float, float]`): Seconds of choosing the weights of views without cases, and of a
            validation case of each behavior together.
        rankings (`int`): How often the model ranks a test case: with views once more, without them.
        finishing (`float`): How often what completes a model after training ranks a validation case.
        reading_seconds (`float`): Seconds that reading a log in partitions again takes, for all tables together.
        num_items (`int`): Items that baselines are made of; 0 makes none.
        num_saved (`int`): Items of the catalogue that is saved.
    """

    seconds_by_protocol: Mapping[RankingProtocol, tuple[float, float]]
    num_validation: int
    num_test: int
    validation_protocols: tuple[RankingProtocol, ...]
    test_protocols: tuple[RankingProtocol, ...]
    share_of_core: float = 1.0
    view_seconds: tuple[float, float] = (0.0, 0.0)
    rankings: int = 1
    finishing: float = 0.0
    reading_seconds: float = 0.0
    num_items: int = 0
    num_saved: int = 0

    @property
    def baseline_seconds(self) -> float:
        """Seconds of making and tuning the baselines."""
        if not self.num_items:
            return 0.0
        return (_SECONDS_OF_BASELINES + SECONDS_OF_BASELINE_ITEM * self.num_items) / self.share_of_core

    @property
    def validation_seconds(self) -> float:
        """Seconds of a validation."""
        return self._seconds(self.validation_protocols, self.num_validation)

    @property
    def saving_seconds(self) -> float:
        """Seconds of saving the model with its catalogue."""
        return (_SECONDS_OF_SAVING + _SECONDS_OF_SAVED_ITEM * self.num_saved) / self.share_of_core

    def finishing_seconds(self, num_cases: int) -> float:
        """Return the seconds of what so many validation cases of a behavior choose before the model is saved."""
        once, each = self.view_seconds
        ranking, of_case = self.seconds_by_protocol[self.validation_protocols[0]]
        return once + min(num_cases, MAX_VIEW_CASES) * each + self.finishing * (ranking + num_cases * of_case)

    def test_parts(self, num_cases: int) -> dict[str, float]:
        """Return the seconds of each part of the test with so many cases of a behavior: tables by protocol first."""
        parts: dict[str, float] = {}
        beside = _SECONDS_OF_BASELINE_CASE if self.num_items else 0.0
        for name in self.test_protocols:
            parts[name] = self.rankings * self._seconds([name], num_cases) + num_cases * beside
        once, each = self.seconds_by_protocol[self.test_protocols[0]]
        if self.num_items:
            # A sample of the searches is asked in all forms, of the model and of BM25; half of what is timed are such.
            asked = min(num_cases, MAX_QUERY_FORM_CASES, self.num_validation)
            parts[QUERY_FORM_PART] = len(QUERY_FORMS) * (once + asked * (each / 2 + _SECONDS_OF_BASELINE_CASE))
        if self.test_protocols[0] == "full":
            # How many cases look for new items is not known before; the clock ends them.
            parts[NEW_ITEM_PART] = self.rankings * (once + min(num_cases, LEAST_CASES) * each)
        if self.finishing:
            parts[CALIBRATION_PART] = once + num_cases * each
        return parts

    def test_seconds(self, num_cases: int) -> float:
        """Return the seconds of the test with so many cases of a behavior, baselines included."""
        return self.reading_seconds + self.baseline_seconds + sum(self.test_parts(num_cases).values())

    def end_seconds(self, num_cases: int) -> float:
        """Return the seconds of all after training, with so many test cases of a behavior."""
        return self.finishing_seconds(self.num_validation) + self.saving_seconds + self.test_seconds(num_cases)

    def fit_finishing(self, seconds: float) -> int:
        """Return the number of validation cases that a model is finished by, so that it can be saved and tested.

        Args:
            seconds (`float`): What is left. 0 is returned where not even a few cases fit.
        """
        left = seconds - self.saving_seconds - self.without_baselines().test_seconds(LEAST_CASES)
        number = self.num_validation
        while number >= LEAST_CASES and self.finishing_seconds(number) > left:
            number = number - 1 if number <= LEAST_CASES else max(LEAST_CASES, int(0.9 * number))
        return number if number >= min(LEAST_CASES, self.num_validation) else 0

    def fit_views(self, seconds: float) -> RankingTimes:
        """Return these times with no more validation cases than views can be weighed by in so many seconds."""
        once, each = self.view_seconds
        most = int(max(0.0, seconds - once) / each) if each else MAX_VIEW_CASES
        fewer = self.num_validation if most >= MAX_VIEW_CASES else max(LEAST_CASES, most)
        return replace(self, num_validation=min(self.num_validation, fewer))

    def without_baselines(self) -> RankingTimes:
        """Return the times of a table of the model alone."""
        return replace(self, num_items=0)

    def _seconds(self, protocols: Sequence[RankingProtocol], num_cases: int) -> float:
        times = [self.seconds_by_protocol[name] for name in protocols]
        return sum(once + num_cases * each for once, each in times)

    def fit_test(self, seconds: float) -> int:
        """Return the number of test cases of a behavior that can be ranked in so many seconds, from a few up."""
        num_cases = self.num_test
        while num_cases > LEAST_CASES and self.test_seconds(num_cases) > seconds:
            num_cases = max(LEAST_CASES, int(0.9 * num_cases))
        return num_cases


@dataclass(frozen=True)
class Fit:
    """What fits into the time.

    Args:
        num_train_epochs (`float`): Number of epochs: those of so many steps that the last one is validated.
        eval_steps (`int`): Steps between validations.
        num_validations (`int`): Number of validations.
        num_validation_cases (`int`): Number of validation cases of each task.
        num_test_cases (`int`): Number of test cases of each task.
        step_seconds (`float`): Seconds of an update.
    """

    num_train_epochs: float
    eval_steps: int
    num_validations: int
    num_validation_cases: int
    num_test_cases: int
    step_seconds: float


def time_ranking(
    model: PreTrainedModel, make_rank: Callable[[int], Callable[[], object]], *, max_seconds: float = math.inf
) -> tuple[float, float]:
    """Time rankings by a model as it is; it stays in training mode if it was.

    Args:
        model (`PreTrainedModel`): The model.
        make_rank (`Callable`): Returns what ranks so many cases of each behavior. The first time it draws them.
        max_seconds (`float`): Where the first ranking takes so long, it is the only one.

    Returns:
        `tuple[float, float]`: Seconds of a ranking without cases, and of each case. The first ranking, which makes
            what all need, counts as one without cases.
    """

    def prepare(number: int) -> Callable[[], object]:
        rank = make_rank(number)
        rank()
        return rank

    with as_answering(model):
        started = time.monotonic()
        prepare(_TIMED_CASES[0])
        if (seconds := time.monotonic() - started) > max_seconds:
            return seconds, 0.0
        found = _time_growing(prepare, _TIMED_CASES, time.monotonic)
    return _line_through(found) if len(found) > 1 else (0.0, found[0][1] / found[0][0])


@contextmanager
def as_answering(model: PreTrainedModel) -> Iterator[None]:
    """Let a model answer as it will after training, and leave its mode and all random states as they were."""
    was_training = model.training
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        model.eval()
        yield
        model.train(was_training)


def count_view_cases(max_validation_cases: int | None, *, is_timed: bool = False) -> int:
    """Return by how many validation cases of each task weights of views are chosen at most.

    Args:
        max_validation_cases (`int`, *optional*): As in the settings.
        is_timed (`bool`): Whether the run has a limit of time, where a case more takes from training.
    """
    validated = MAX_VIEW_CASES if max_validation_cases is None else max_validation_cases
    return min(validated if is_timed else _MORE_VIEW_CASES * validated, MAX_VIEW_CASES)


def time_cases(run: Callable[[int], object], *, clock: Callable[[], float] = time.monotonic) -> tuple[float, float]:
    """Time what is done with more and more cases, as long as that takes little time.

    Args:
        run (`Callable`): Does it with so many cases of each behavior.
        clock (`Callable`): Returns seconds.

    Returns:
        `tuple[float, float]`: Seconds without cases, and of each case, by the two largest numbers; where the smallest
        already takes long, its time is that without cases.
    """
    found = _time_growing(lambda number: partial(run, number), _TIMED_CASES, clock)
    return _line_through(found) if len(found) > 1 else (found[0][1], 0.0)


def _time_growing(
    prepare: Callable[[int], Callable[[], object]], numbers: Sequence[int], clock: Callable[[], float]
) -> list[tuple[int, float]]:
    """Time what is prepared for more and more cases, until it takes long: numbers of cases and seconds."""
    found: list[tuple[int, float]] = []
    for number in numbers:
        run = prepare(number)
        started = clock()
        run()
        found.append((number, clock() - started))
        if found[-1][1] > _LITTLE_TIME:
            break
    return found


def _line_through(found: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return the seconds without cases and of each, by the two largest numbers."""
    (few, least), (many, most) = found[-2:]
    each = max(0.0, most - least) / (many - few)
    return max(0.0, least - few * each), each


def time_rankings(
    model: PreTrainedModel,
    make_validation: Callable[[RankingProtocol, int], ValidationRanking],
    system: Retriever,
    settings: EvaluationArguments,
    *,
    selection: Sequence[RankingProtocol],
    searches_all: bool,
    counts: Mapping[str, Mapping[str, int]],
    behaviors: Sequence[Behavior],
    views: AbstractContextManager[tuple[float, float]],
    finishing: float = 0.0,
    reading: float = 0.0,
    num_items: int = 0,
    seconds_left: float = math.inf,
) -> RankingTimes:
    """Time how long a model, as it is, takes to rank some validation cases by each protocol.

    Args:
        model (`PreTrainedModel`): The model.
        make_validation (`Callable`): Makes the ranking of so many validation cases of each behavior by a protocol.
        system ([`Retriever`]): The model as a system.
        settings ([`EvaluationArguments`]): Protocols of the final table, and numbers of cases.
        selection (`Sequence[str]`): Protocols of validation.
        searches_all (`bool`): Whether the final table ranks the whole catalogue, too.
        counts (`Mapping`): Number of cases of each behavior, by part of the split.
        behaviors (`Sequence[str]`): Behaviors that are evaluated.
        views (context manager): Yields its `view_seconds`, as they were measured, and lets the model answer with
            views meanwhile; a case takes no less than its rankings by the model.
        finishing (`float`): Its `finishing`.
        reading (`float`): Its `reading_seconds`.
        num_items (`int`): Items of the catalogue.
        seconds_left (`float`): What is left of the run. If nothing is, nothing is ranked and all seconds are 0: what
            follows is the least.
    """
    has_time = seconds_left > 0
    test: tuple[RankingProtocol, ...] = (*(("full",) if searches_all else ()), *settings.candidate_protocols)
    test = test or tuple(selection)
    seconds: dict[RankingProtocol, tuple[float, float]] = {}
    with views if has_time else nullcontext((0.0, 0.0)) as (once, each):
        for protocol in dict.fromkeys((*selection, *test)):
            if not has_time:
                seconds[protocol] = (0.0, 0.0)
                continue

            def make_rank(number: int, protocol: RankingProtocol = protocol) -> Callable[[], object]:
                return partial(make_validation(protocol, number), system)

            seconds[protocol] = time_ranking(model, make_rank, max_seconds=_SHARE_OF_TIMING * seconds_left)
    most = {part: max(counts[part][behavior] for behavior in behaviors) for part in SPLIT_PARTS}
    if once or each:
        each = max(each, RANKINGS_OF_VIEWS * seconds[selection[0]][1])
    return RankingTimes(
        seconds,
        num_validation=min(
            most["validation"], (settings.max_validation_cases or most["validation"]) if has_time else LEAST_CASES
        ),
        num_test=most["test"],
        validation_protocols=tuple(selection),
        test_protocols=test,
        share_of_core=share_of_core(),
        view_seconds=(once, each),
        rankings=2 if once or each or (isinstance(model, ViewedModel) and model.views is not None) else 1,
        finishing=finishing,
        reading_seconds=reading,
        num_items=num_items if settings.has_baselines else 0,
        num_saved=num_items,
    )


def fit_to_time(trainer: Trainer, times: RankingTimes, budget: TimeBudget, *, most_epochs: float) -> Fit:
    """Choose epochs, validations and test cases for the time that is left; all processes choose the same.

    Args:
        trainer (`Trainer`): A Trainer that has not begun.
        times ([`RankingTimes`]): Times of ranking.
        budget ([`TimeBudget`]): The time of the run.
        most_epochs (`float`): Number of epochs that would be trained without a budget.
    """
    seconds = max(0.0, budget.max_seconds - process_seconds())
    step_seconds, updates = time_steps(trainer, max_seconds=_SHARE_OF_TIMING * seconds)
    left = max(0.0, budget.max_seconds - process_seconds()) * _MARGIN
    times = times.fit_views(_SHARE_OF_VIEWS * left)
    num_test = times.fit_test(_SHARE_OF_TEST * left - times.end_seconds(0) + times.test_seconds(0))
    left = max(0.0, left - times.end_seconds(num_test))
    fewer = int(_SHARE_OF_ONE_VALIDATION * left * times.num_validation / max(1e-9, times.validation_seconds))
    times = replace(times, num_validation=min(times.num_validation, max(LEAST_CASES, fewer)))
    validation = times.validation_seconds + _SECONDS_OF_SAVING / times.share_of_core
    share = min(left, most_epochs * updates * step_seconds) * _SHARE_OF_VALIDATION
    num_validations = int(min(_MOST_VALIDATIONS, max(1, share / validation)))
    steps = min(most_epochs * updates, max(0.0, left - num_validations * validation) / step_seconds)
    interval = max(1, int(steps / num_validations))
    # Trainer rounds up to whole steps.
    epochs = round((interval * num_validations - 0.5) / updates, 6)
    chosen = [Fit(epochs, interval, num_validations, times.num_validation, num_test, step_seconds)]
    if trainer.args.world_size > 1:
        chosen = broadcast_object_list(chosen)
    return chosen[0]


__all__ = [
    "MOST_OF_TEST",
    "RANKINGS_OF_VIEWS",
    "SECONDS_OF_BASELINE_ITEM",
    "Fit",
    "RankingTimes",
    "as_answering",
    "count_view_cases",
    "fit_to_time",
    "time_cases",
    "time_ranking",
    "time_rankings",
]
