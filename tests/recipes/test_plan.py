# SPDX-License-Identifier: Apache-2.0
"""Settings follow from the log, the machine and the minutes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

from seekrec.events.report import summarize_log
from seekrec.events.simulator import simulate
from seekrec.recipes.arguments import EvaluationArguments
from seekrec.recipes.choices import choose
from seekrec.recipes.costs import add_epochs, estimate_costs
from seekrec.recipes.fit import RankingTimes, time_cases, time_rankings
from seekrec.recipes.machine import Machine
from seekrec.recipes.plan import Plan, fit_test
from seekrec.recipes.situation import Situation
from seekrec.util.units import format_bytes, format_seconds

FAMILIES = ("gensar", "gensr", "intsr", "synergen")
CPU = Machine(
    num_cores=2, num_threads=1, memory=16 << 30, free_disk=1 << 40, gpu=None, gpu_memory=0, gflops=100, has_bf16=False
)
READ = ["vector", "text", "categories", "words"]
GPU = replace(CPU, gpu="a GPU", gpu_memory=80 << 30, gflops=10_000, has_bf16=True)


@pytest.fixture(scope="module")
def summary():
    return summarize_log(simulate(3000).log)


def chosen(family, log, machine=CPU, given=None, minutes=None):
    situation = Situation(log, machine, log.has_categories, given or {}, minutes)
    values = {one.name: one.value for one in choose(family, situation)}
    epochs = add_epochs(family, situation, values, minutes)
    return situation, values | {one.name: one.value for one in epochs}


def seconds(situation, family, values):
    return sum(one.seconds for one in estimate_costs(family, situation, values))


def test_sizes_of_log_and_machine_decide(summary):
    recommended = replace(summary, share_searches=0.0, share_items_with_categories=0.0)
    large = replace(summary, num_items=200_000, num_interactions=5_000_000, num_users_to_hold_out=100_000)
    for log, machine, family, expected in (
        (summary, CPU, "intsr", {"negatives": "full", "hidden_size": 64, "use_cpu": True, "tasks": "joint"}),
        (large, CPU, "intsr", {"negatives": "popularity", "max_test_cases": 5000, "per_device_train_batch_size": 64}),
        (large, GPU, "intsr", {"hidden_size": 128, "use_cpu": False, "bf16": True}),
        (replace(summary, num_items=9_000, p90_events_of_user=500.0), CPU, "intsr", {"max_history": 100}),
        (replace(summary, num_items=20_000), CPU, "intsr", {"negatives": "popularity"}),
        (replace(summary, num_items=20_000), GPU, "intsr", {"negatives": "full"}),
        (replace(summary, num_items=20_000), CPU, "synergen", {"negatives": "full", "ranks_with_retrieval": True}),
        (summary, CPU, "intsr", {"item_reading": READ, "query_reading": ["text", "words"], "temperature": 0.3}),
        (
            replace(summary, share_items_with_text=0.0),
            CPU,
            "intsr",
            {"item_reading": READ[::2], "query_reading": ["text"]},
        ),
        (large, CPU, "intsr", {"item_reading": ["vector", "text"], "query_reading": None, "temperature": None}),
        (recommended, CPU, "synergen", {"item_reading": ["vector", "text"], "temperature": 1.0}),
        (recommended, CPU, "intsr", {"item_reading": ["vector", "text"], "temperature": None}),
        (summary, CPU, "synergen", {"seen_compete": False, "session_ids": "visit", "view_weights": ["validation"]}),
        (replace(summary, sessions=None), CPU, "synergen", {"session_ids": None}),
        (summary, CPU, "gensar", {"codebook_size": 64, "corpus": "stream", "d_model": 128}),
        (large, GPU, "gensar", {"codebook_size": 256, "d_model": 256, "num_beams": 50}),
        (replace(large, num_items=1_000_000), CPU, "gensar", {"codebook_size": 1024}),
        (replace(summary, num_items=400), CPU, "gensr", {"retrieve_by": "answer", "view_weights": ["validation"]}),
        (large, CPU, "gensr", {"retrieve_by": "views", "view_weights": ["validation"], "identifier_weight": None}),
        (replace(summary, has_time=False), CPU, "synergen", {"time_encoding": "order"}),
        (replace(summary, times_are_days=True), CPU, "synergen", {"time_scales": [172_800.0, 3.2e8]}),
    ):
        _, values = chosen(family, log, machine)
        assert {name: values.get(name) for name in expected} == expected


def test_what_is_given_changes_what_goes_with_it(summary):
    _, values = chosen("synergen", summary, given={"negatives": "popularity"})
    assert "easy_weight" not in values
    _, values = chosen("synergen", summary, given={"ranking_weight": 0.0})
    assert "ranks_with_retrieval" not in values
    _, values = chosen("synergen", summary, given={"tasks": "recommendation"})
    assert (values["temperature"], values["item_reading"]) == (1.0, ["vector", "text"])
    _, values = chosen("intsr", summary, given={"ranked_items": "all"})
    assert "seen_compete" not in values
    _, values = chosen("gensr", summary, given={"retrieve_by": "identifier"})
    assert values["identifier_weight"] == 1.0 and values["codebook_size"] == 64
    _, values = chosen("gensar", summary, given={"backbone": "t5"})
    assert "d_model" not in values and "tokenizer_vocab_size" not in values
    _, values = chosen("intsr", replace(summary, share_searches=0.0), given={"construction": "none"})
    assert values["tasks"] == "recommendation" and values["construction"] == "none"


@pytest.mark.parametrize("family", FAMILIES)
def test_fewer_minutes_are_fewer_epochs_and_cases_and_the_estimate_keeps_to_them(family, summary):
    log = replace(summary, num_events=300_000, num_interactions=200_000, num_users=9_000, num_users_to_hold_out=8_000)
    epochs = []
    for minutes in (2, 20, 80):
        situation, values = chosen(family, log, minutes=minutes)
        assert seconds(situation, family, values) < 1.1 * 60 * minutes
        epochs.append(values["num_train_epochs"])
    _, without = chosen(family, log)
    assert 0 < epochs[0] < epochs[1] <= epochs[2] <= without["num_train_epochs"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_estimate_keeps_to_few_minutes_of_many_events_and_counts_reading_partitions(family, summary):
    log = replace(
        summary,
        num_events=5_000_000,
        num_interactions=3_400_000,
        num_users=180_000,
        num_users_to_hold_out=170_000,
        num_items=20_000,
        num_queries=100_000,
    )
    situation, values = chosen(family, log, minutes=3)
    assert seconds(situation, family, values) < 1.3 * 180
    assert values["sasrec_num_epochs"] == 1
    apart = replace(situation, minutes=None)
    # Read five times, at a second a million events.
    more = seconds(replace(apart, is_partitioned=True), family, values) - seconds(apart, family, values)
    assert more == pytest.approx(25)


def test_what_there_is_no_time_for_is_left_out_of_the_table(summary):
    plan = Plan("intsr", "shop", "a machine", [], [], "key", {}, 1.0)
    times = RankingTimes({"full": (0.5, 0.01)}, 300, 2000, ("full",), ("full",), num_items=20_000)
    evaluation = EvaluationArguments()
    chosen, left = fit_test(evaluation, times, 13.0, None)
    # Baselines of so many items take 14 seconds; without them there is time for some 1,100 cases.
    assert not evaluation.has_baselines and plan.with_choices(chosen).values["baselines"] == ["none"]
    assert left.test_seconds(evaluation.max_test_cases) <= 13.0 < left.test_seconds(1.2 * evaluation.max_test_cases)
    # Minutes count for more than what else was given; fewer cases than were wanted are none more.
    given = EvaluationArguments(max_test_cases=30)
    assert fit_test(given, times, 1e9, 30)[0] == [] and given.max_test_cases == 30 and given.has_baselines
    # Where training left more time than was planned, so many more cases are ranked as fit; all, if they do.
    assert fit_test(given, times, 1e9, None)[0][0].value == given.max_test_cases == 2000
    assert (
        fit_test(given, times, 30.0, 1000)[0][0].value == given.max_test_cases == min(1000, times.fit_test(30.0)) > 30
    )


def test_a_slower_machine_takes_longer_and_a_larger_log_more_memory(summary):
    situation, values = chosen("intsr", summary)
    slow = replace(situation, machine=replace(CPU, gflops=50))
    assert seconds(slow, "intsr", values) > seconds(situation, "intsr", values)
    larger = replace(situation, log=replace(summary, num_events=10**8))
    peaks = [max(one.memory for one in estimate_costs("intsr", at, values)) for at in (situation, larger)]
    assert peaks[1] > peaks[0] + 40 * 10**9


def test_as_many_cases_are_tested_as_fit():
    times = RankingTimes({"full": (0.5, 0.01)}, 300, 2000, ("full",), ("full",), num_items=2000)
    # Five seconds for the baselines of 2000 items, 0.5 once and 0.01 + 0.001 a case; 300 searches in five forms, each
    # form once 0.5, then half of 0.01 and 0.001 a search; 20 cases of new items.
    assert times.validation_seconds == pytest.approx(3.5)
    assert times.test_seconds(1000) == pytest.approx(5 + 0.5 + 11 + 5 * (0.5 + 300 * 0.006) + 0.7)
    assert list(times.test_parts(1000)) == ["full", "query forms", "new items"]
    # And saving: 0.3, and 0.2 for ten thousand items.
    assert times.end_seconds(1000) == pytest.approx(0.3 + times.test_seconds(1000))
    assert replace(times, num_saved=10_000).end_seconds(0) == pytest.approx(0.5 + times.test_seconds(0))
    assert times.fit_test(1e9) == 2000 and times.fit_test(0) == 20
    few = times.fit_test(26)
    assert times.test_seconds(few) <= 26 < times.test_seconds(int(1.2 * few))
    assert replace(times, share_of_core=0.5).end_seconds(0) == pytest.approx(2 * 5.3 + 7 * 0.5)
    # With views the model ranks each case twice; all else stays.
    twice = replace(times, rankings=2)
    assert twice.test_seconds(1000) - times.test_seconds(1000) == pytest.approx(0.5 + 1000 * 0.01 + 0.7)
    # Reading partitions takes 8 seconds whatever is ranked; views take 2 and 0.02 a validation case.
    more = replace(times, view_seconds=(2.0, 0.02), reading_seconds=8.0)
    assert more.test_seconds(0) == pytest.approx(5 + 7 * 0.5 + 8)
    assert more.end_seconds(0) == pytest.approx(5 + 7 * 0.5 + 8 + 0.3 + 2 + 300 * 0.02)
    assert times.without_baselines().test_seconds(1000) == pytest.approx(0.5 + 10 + 0.7)
    assert [more.fit_views(seconds).num_validation for seconds in (1.0, 4.0, 9.0)] == [20, 100, 300]
    # Saving, and a test of 20 cases with reading: 0.3 + 8 + 0.7 + 0.7. What is left beyond weighs views.
    found = [more.fit_finishing(9.7 + seconds) for seconds in (9.0, 5.0, 2.5, 2.3)]
    assert found[0] == 300 and 130 <= found[1] <= 150 and 20 <= found[2] <= 25 and found[3] == 0
    # A head that is scaled ranks the same cases four times more.
    scaled = replace(more, finishing=4)
    assert scaled.finishing_seconds(100) == pytest.approx(2 + 100 * 0.02 + 4 * (0.5 + 100 * 0.01))
    assert "calibration" in scaled.test_parts(20)


class Clock:
    """Stands still until somebody works."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("once", "each", "expected", "runs"),
    [
        (0.1, 0.02, (0.1, 0.02), [4, 24, 120]),
        (1.0, 0.1, (1.0, 0.1), [4, 24]),
        (5.0, 0.1, (5.4, 0.0), [4]),
    ],
)
def test_cases_are_timed_while_that_takes_little_time(once, each, expected, runs):
    clock, done = Clock(), []

    def work(number):
        done.append(number)
        clock.now += once + number * each

    assert time_cases(work, clock=clock) == pytest.approx(expected) and done == runs


@pytest.mark.parametrize("seconds", [0.01, -1.0])
def test_the_machine_is_seen_and_written(monkeypatch, seconds):
    # Where others have the machine the time of the probe may be over before it began; so it is at -1.
    monkeypatch.setattr("seekrec.recipes.machine._PROBE_SECONDS", seconds)
    machine = Machine.measure("a/folder/that/is/not/there", use_cpu=True)
    assert machine.num_cores >= 1 and machine.gpu is None and machine.gflops > 0.1 and machine.memory > 1 << 28
    assert "no GPU" in str(machine) and "GFLOP/s" in str(machine)
    assert (format_seconds(40), format_seconds(720), format_seconds(12_600)) == ("40 s", "12 min", "3.5 h")
    assert (format_bytes(12_000_000), format_bytes(3_500_000_000)) == ("12 MB", "3.5 GB")


def test_where_the_time_is_over_nothing_is_timed_and_the_least_follows():
    def rank(*_):
        raise AssertionError("there was no time to rank")

    times = time_rankings(
        None,
        rank,
        None,
        EvaluationArguments(candidate_protocols=["uniform"]),
        selection=("full",),
        searches_all=True,
        counts={part: {"search": 500} for part in ("validation", "test")},
        behaviors=["search"],
        views=nullcontext((5.0, 5.0)),
        seconds_left=-2.0,
    )
    assert times.num_validation == 20 and times.validation_seconds == 0 and times.view_seconds == (0.0, 0.0)
    # Over by two seconds: the model is not finished by validation cases, and saved.
    assert times.fit_finishing(-2.0) == 0 and list(times.test_parts(20)) == ["full", "uniform", "new items"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_training_costs_what_learns_from_events_without_validation(summary, family):
    situation, values = chosen(family, summary)
    once = {one.stage: one for one in estimate_costs(family, situation, values)}
    twice = {one.stage: one for one in estimate_costs(family, situation, {**values, "refit": "everything"})}
    again = twice.pop("refit")
    assert twice == once
    assert (
        0
        < again.seconds
        < sum(once[stage].seconds for stage in ("embeddings", "identifiers", "training") if stage in once)
    )
    assert again.memory == once["training"].memory and again.disk < once["training"].disk
