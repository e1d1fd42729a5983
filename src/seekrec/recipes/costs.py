# SPDX-License-Identifier: Apache-2.0
"""Estimate time, memory and disk of the stages of a run.

For each stage: its floating-point operations, divided by this machine's speed in a short probe, times a factor that
was measured once (`FACTORS`). Small models wait for memory and Python more than they multiply, so factors are large;
they were measured on one core for logs of a hundred thousand events. Other work is estimated in core seconds, and a
process on a busy machine gets only a share of a core. Expect estimates within a factor of two. A run with a budget
times its real steps before it trains; see `recipes/fit.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seekrec.corpora.stream import HISTORY_TASKS
from seekrec.embeddings.softmax import LARGE_CATALOG
from seekrec.models.views import BY_VALIDATION, NUM_VIEWED
from seekrec.recipes.collaborative import NUM_FINISHING_EPOCHS
from seekrec.recipes.fit import RANKINGS_OF_VIEWS, SECONDS_OF_BASELINE_ITEM, count_view_cases
from seekrec.recipes.situation import Choice, Situation
from seekrec.recipes.stages import SHARE_OF_A_STAGE
from seekrec.util.parsing import parse_weights
from seekrec.util.units import format_bytes, format_seconds

# So many operations of the probe take as long as a counted one of a stage; measured on a shop of 110,000 events with
# 1,500 items. GenSR's prompts share their beginning, so a candidate costs less than it counts.
FACTORS = {
    "semantic": 0.3,
    "sasrec": 4.0,
    "lightgcn": 300.0,
    "identifiers": 9.0,
    "gensar": 2.4,
    "gensr": 0.55,
    "intsr": 7.0,
    "synergen": 18.0,
}
# The same for answering a case.
CASE_FACTORS = {"gensar": 1.0, "gensr": 0.12, "intsr": 4.0, "synergen": 8.0}
# Seconds of a step of IntSR and SynerGen, however small it is.
_SECONDS_PER_STEP = {"intsr": 0.015, "synergen": 0.015}
# Seconds of an event from reading to an audited split, and of starting.
_SECONDS_PER_EVENT, _SECONDS_TO_START = 6e-6, 7.0
# Seconds of an event of a partition that is read again and gone through. Before training all are read for facts, for
# what is learned from and for views, after it for the test.
_SECONDS_PER_EVENT_READ, _READINGS_BEFORE, _READINGS_AFTER = 1e-6, 3, 2
# Seconds of an item whose words are weighed in all ways for views, and of a case by which views are weighed.
_SECONDS_PER_VIEWED_ITEM, _SECONDS_PER_WEIGHED_CASE = 1.5e-4, 0.012
# MiniLM: operations of a word piece, and pieces of a title with its description.
_ENCODER_OPERATIONS, _TEXT_TOKENS, _QUERY_TOKENS, _TEXT_SIZE = 44e6, 24, 8, 384
# What the clock ends if it takes more than its share, in the order of a run.
_TIMED = ("semantic", "sasrec_num_epochs", "lightgcn_num_epochs", "identifier_num_epochs", "queries")
# What a second training does again; nothing is validated.
_LEARNED_ANEW = ("sasrec_num_epochs", "lightgcn_num_epochs", "identifier_num_epochs", "training")
# Steps after which more of them rarely help, at the sizes that are chosen here.
_ENOUGH_STEPS = {"gensar": 3000, "gensr": 1500, "intsr": 3000, "synergen": 3000}
_MOST_EPOCHS = {"gensar": 30, "gensr": 6, "intsr": 15, "synergen": 15}
# Shares of a budget that trainings before the model's may take.
_SHARE_OF_STAGES = {"gensar": 0.35, "gensr": 0.35, "intsr": 0.3, "synergen": 0.3}
# A GPU multiplies small matrices far below its speed.
_SHARE_OF_TEST, _SHARE_OF_VALIDATION, _LEAST_CASES = 0.25, 0.15, 50
_BASE_MEMORY = 1_200_000_000


@dataclass(frozen=True)
class StageCost:
    """Expected cost of a stage.

    Args:
        stage (`str`): Name of the stage.
        seconds (`float`): Time.
        memory (`int`): Bytes of memory at the peak.
        disk (`int`): Bytes that stay on the disk.
    """

    stage: str
    seconds: float
    memory: int
    disk: int


@dataclass(frozen=True)
class _Sizes:
    """Sizes of a run that costs follow from.

    Args:
        rows (`float`): Rows of an epoch: windows, histories or requests.
        row_operations (`float`): Operations of a row, forward and backward.
        parameters (`float`): Number of trained parameters.
        case_operations (`float`): Operations of answering a test case.
        batch (`int`): Rows of a step.
        activations (`float`): Numbers that a row keeps for its backward pass.
    """

    rows: float
    row_operations: float
    parameters: float
    case_operations: float
    batch: int
    activations: float


def estimate_costs(family: str, situation: Situation, values: Mapping[str, object]) -> list[StageCost]:
    """Estimate the cost of every stage.

    Args:
        family (`str`): gensar, gensr, intsr or synergen.
        situation ([`Situation`]): The log and the machine.
        values (`Mapping`): Settings, by name.
    """
    log, sizes = situation.log, _measure(family, situation, values)
    seconds = _stage_seconds(family, situation, values)
    events, items = log.num_events, log.num_items
    log_bytes = 400 * events + 1000 * items
    vectors = 4 * items * (_TEXT_SIZE + _number(values, "sasrec_hidden_size", 64))
    training = 16 * sizes.parameters + 4 * sizes.batch * sizes.activations
    memory = {
        "data": _BASE_MEMORY + 2 * log_bytes,
        "embeddings": _BASE_MEMORY + log_bytes + 3 * vectors,
        "identifiers": _BASE_MEMORY + log_bytes + 3 * vectors,
        "training": _BASE_MEMORY + log_bytes + vectors + training,
        "evaluation": _BASE_MEMORY + 2 * log_bytes + vectors + 4 * sizes.parameters + 64 * 12 * items,
    }
    disk = {
        "data": 40 * events,
        "embeddings": vectors,
        "identifiers": vectors if seconds["identifiers"] else 0,
        # Two checkpoints with the state of the optimizer, and the model with its catalogue.
        "training": 28 * sizes.parameters + vectors + 200 * items,
        "evaluation": 0,
    }
    # A second training keeps its own checkpoints; its model takes the place of the first.
    memory["refit"], disk["refit"] = memory["training"], 24 * sizes.parameters + vectors
    return [
        StageCost(stage, seconds[stage], int(memory[stage]), int(disk[stage]))
        for stage in memory
        if seconds[stage] > 0
    ]


def most_epochs(family: str, situation: Situation, values: Mapping[str, object]) -> float:
    """Return the number of epochs that would be trained if time did not matter."""
    sizes = _measure(family, situation, values)
    steps = max(1.0, sizes.rows / sizes.batch)
    return float(min(_MOST_EPOCHS[family], max(2, round(_ENOUGH_STEPS[family] / steps))))


def add_epochs(
    family: str, situation: Situation, values: Mapping[str, object], max_minutes: float | None
) -> list[Choice]:
    """Choose the numbers of epochs: what learning needs, or what the time allows.

    Args:
        family (`str`): gensar, gensr, intsr or synergen.
        situation ([`Situation`]): The log and the machine.
        values (`Mapping`): The other settings, by name.
        max_minutes (`float`, *optional*): Minutes of the whole run.
    """
    most = most_epochs(family, situation, values)
    sizes = _measure(family, situation, values)
    updates = f"{sizes.rows / sizes.batch:,.0f} steps an epoch, estimated"
    if max_minutes is None:
        return [Choice("num_train_epochs", most, updates)]
    found = _shorten_stages(family, situation, values, max_minutes)
    values = {**values, **{one.name: one.value for one in found}}
    found += _shorten_rankings(family, situation, values, max_minutes)
    values = {**values, **{one.name: one.value for one in found}}
    parts = _part_seconds(family, situation, {**values, "num_train_epochs": 1.0})
    epoch = parts.pop("training")
    left = 60 * max_minutes - sum(parts.values())
    epochs = min(most, max(1 / max(1.0, sizes.rows / sizes.batch), 0.9 * left / max(1e-9, epoch)))
    reason = f"{updates}; {max_minutes:g} minutes; timed again before training"
    return [*found, Choice("num_train_epochs", float(round(epochs)) if epochs >= 3 else round(epochs, 3), reason)]


def _shorten_stages(
    family: str, situation: Situation, values: Mapping[str, object], max_minutes: float
) -> list[Choice]:
    """Shorten the trainings before the model's, all by the same factor, where they take more than their share."""
    names = ("sasrec_num_epochs", "identifier_num_epochs", "lightgcn_num_epochs")
    parts = _whole_seconds(family, situation, values)
    trained = sum(parts[name] for name in names)
    budget = 60 * max_minutes
    # Those who train later have what the clock leaves of texts.
    texts = min(parts["semantic"], SHARE_OF_A_STAGE * max(0.0, budget - parts["data"]))
    room = max(0.05 * budget, _SHARE_OF_STAGES[family] * budget - parts["data"] - texts)
    found = []
    for name in names if trained > room else ():
        epochs = _number(values, name, 0)
        fitting = epochs * room / trained
        shortened = max(1, int(fitting))
        if shortened < epochs:
            reason = f"shortened to a share of {max_minutes:g} minutes"
            found.append(
                Choice(name, shortened, reason if fitting >= 1 else f"{reason}; the clock will end it earlier")
            )
    return found


def _shorten_rankings(
    family: str, situation: Situation, values: Mapping[str, object], max_minutes: float
) -> list[Choice]:
    """Rank fewer cases, less often, where validation or test would take more than their share."""
    budget, found = 60 * max_minutes, []
    parts = _part_seconds(family, situation, values)
    cases, validated = _count_cases(situation, values)
    fewer = max(_LEAST_CASES, int(cases * _SHARE_OF_TEST * budget / parts["evaluation"]))
    if fewer < cases:
        found.append(Choice("max_test_cases", fewer, f"of each task: a share of {max_minutes:g} minutes"))
    once = parts["validation"] / _count_validations(values)
    if 2 * once > _SHARE_OF_VALIDATION * budget:
        number = max(_LEAST_CASES, int(validated * _SHARE_OF_VALIDATION * budget / (2 * once)))
        once *= min(1.0, number / validated)
        if number < validated:
            found.append(Choice("max_validation_cases", number, f"a share of {max_minutes:g} minutes"))
    times = int(min(_count_validations(values), max(1, _SHARE_OF_VALIDATION * budget / max(1e-9, once))))
    if times < _count_validations(values):
        share = round(1 / times, 4) if times > 1 else 0.9999
        found += [Choice("eval_steps", share, f"{times} times in all"), Choice("save_steps", share, "as often")]
    return found


def format_costs(costs: Sequence[StageCost]) -> list[str]:
    """Write costs as the lines of a table."""
    total = StageCost(
        "in all",
        sum(one.seconds for one in costs),
        max(one.memory for one in costs),
        sum(one.disk for one in costs),
    )
    lines = [f"{'stage':<12}{'time':>10}{'memory':>11}{'disk':>10}"]
    for one in (*costs, total):
        time, memory, disk = format_seconds(one.seconds), format_bytes(one.memory), format_bytes(one.disk)
        lines.append(f"{one.stage:<12}{time:>10}{memory:>11}{disk:>10}")
    return lines


def _stage_seconds(family: str, situation: Situation, values: Mapping[str, object]) -> dict[str, float]:
    parts = _part_seconds(family, situation, values)
    return {
        "data": parts["data"],
        "embeddings": parts["semantic"] + parts["sasrec_num_epochs"] + parts["lightgcn_num_epochs"],
        "identifiers": parts["identifier_num_epochs"],
        "training": parts["queries"] + parts["views"] + parts["training"] + parts["validation"],
        "evaluation": parts["evaluation"],
        "refit": sum(parts[name] for name in _LEARNED_ANEW) if values.get("refit", "none") != "none" else 0.0,
    }


def _part_seconds(family: str, situation: Situation, values: Mapping[str, object]) -> dict[str, float]:
    """Return the seconds of each part as the clock of a run with a budget ends it; see [`_whole_seconds`]."""
    parts = _whole_seconds(family, situation, values)
    if situation.minutes is not None:
        left = max(0.0, 60 * situation.minutes - parts["data"])
        for name in _TIMED:
            parts[name] = min(parts[name], SHARE_OF_A_STAGE * left)
            left -= parts[name]
    return parts


def _whole_seconds(family: str, situation: Situation, values: Mapping[str, object]) -> dict[str, float]:
    """Return the seconds of each part, those that train by the name of their number of epochs."""
    log, sizes = situation.log, _measure(family, situation, values)
    speed, share = situation.machine.gflops * 1e9, situation.machine.share_of_core
    items, width = log.num_items, _number(values, "sasrec_hidden_size", 64)
    compared = min(items, 4096 if items > LARGE_CATALOG else items)
    # GenSR trains one without the last events, which then learns them.
    epochs = _number(values, "sasrec_num_epochs", 40)
    passes = 2 * epochs + min(epochs, NUM_FINISHING_EPOCHS) if _number(values, "num_unseen_events", 0) else epochs
    sasrec = log.num_interactions * (6 * 24 * width * width + 6 * compared * width)
    graph = 3 * log.num_interactions * width * 6 + (log.num_users + items) * width * 12
    text = 2.0 * items * _TEXT_TOKENS * _ENCODER_OPERATIONS / 2 if log.has_text else 0.0
    queries = log.num_queries * _QUERY_TOKENS * _ENCODER_OPERATIONS if family in _SECONDS_PER_STEP else 0.0
    reading = _SECONDS_PER_EVENT_READ * log.num_events if situation.is_partitioned else 0.0
    learner = items * 6 * 3e5
    cases, validated = _count_cases(situation, values)
    tasks = 2 if situation.has_searches else 1
    rate, case_rate = FACTORS[family] / speed, CASE_FACTORS[family] / speed
    # Each case is also ranked by the baselines, in a matrix of items.
    answers = tasks * cases * (sizes.case_operations * case_rate + (3e-3 + 2e-8 * items) / share)
    weighs_views = _list(values, "view_weights") == [BY_VALIDATION]
    weighing = count_view_cases(_most_validated(values), is_timed=situation.minutes is not None)
    weighed = tasks * min(log.num_users_to_hold_out, weighing)
    views = (_SECONDS_PER_VIEWED_ITEM * items + _SECONDS_PER_WEIGHED_CASE * weighed) / share
    views += RANKINGS_OF_VIEWS * weighed * sizes.case_operations * case_rate
    return {
        "data": (_SECONDS_TO_START + _SECONDS_PER_EVENT * log.num_events + _READINGS_BEFORE * reading) / share,
        "semantic": FACTORS["semantic"] * text / speed,
        "queries": FACTORS["semantic"] * queries / speed,
        "sasrec_num_epochs": passes * sasrec * FACTORS["sasrec"] / speed,
        "lightgcn_num_epochs": (
            _number(values, "lightgcn_num_epochs", 0) * graph * FACTORS["lightgcn"] / speed
            if family == "gensr"
            else 0.0
        ),
        "identifier_num_epochs": (
            _number(values, "identifier_num_epochs", 0) * learner * FACTORS["identifiers"] / speed
        ),
        "training": _number(values, "num_train_epochs", 1)
        * sizes.rows
        * (sizes.row_operations * rate + _SECONDS_PER_STEP.get(family, 0.0) / sizes.batch / share),
        "views": views if weighs_views else 0.0,
        "validation": _count_validations(values) * tasks * validated * sizes.case_operations * case_rate,
        "evaluation": answers + (SECONDS_OF_BASELINE_ITEM * items + _READINGS_AFTER * reading) / share,
    }


def _measure(family: str, situation: Situation, values: Mapping[str, object]) -> _Sizes:
    """Return the sizes of a family's training."""
    log = situation.log
    batch = int(_number(values, "per_device_train_batch_size", 8) * _number(values, "gradient_accumulation_steps", 1))
    if family in ("intsr", "synergen"):
        return _measure_dense(family, situation, values, batch)
    width = _number(values, "d_model", 512)
    layers = _number(values, "num_layers", 6)
    layer = 12 * width * width
    vocabulary = _number(values, "tokenizer_vocab_size", 32000) + 8 * _number(values, "codebook_size", 256)
    parameters = vocabulary * width + 2.5 * layers * layer
    if family == "gensar":
        history = _number(values, "max_history_recommendations", 5) + _number(values, "max_history_searches", 5)
        rows = log.num_users_to_hold_out + 2 * log.num_interactions / history
        # Other tasks have their share of rows alongside the histories.
        weights = parse_weights([str(one) for one in _list(values, "task_weights")] or ["nrip=1"], "task_weights")
        rows *= 1 + sum(weight for name, weight in weights.items() if name not in HISTORY_TASKS)
        # The encoder reads a vector per event, the decoder writes four codes for each target.
        tokens = history * (1 + 5 * 2)
        operations = 6 * tokens * (layers * layer + 0.1 * vocabulary * width)
        beams = _number(values, "num_beams", 50)
        case = 2 * beams * 4 * (layers * layer * 2 + vocabulary * width) + 2 * history * layers * layer
        return _Sizes(rows, operations, parameters, case, batch, tokens * layers * width * 20)
    candidates = 9
    asked = min(log.num_interactions, log.num_users_to_hold_out * _number(values, "num_unseen_events", 0) or 1e18)
    rows = asked * (1.5 if situation.has_searches else 1.0) + (log.num_items if situation.has_searches else 0)
    prompt, each = 40, 24
    operations = 6 * (prompt + candidates * each) * layers * layer * 2
    beams = 100 + 4 * _number(values, "num_beams", 50)
    full = {"answer": log.num_items, "views": NUM_VIEWED}.get(str(values.get("retrieve_by")), beams)
    case = 2 * full * each * layers * layer * 2
    return _Sizes(rows, operations, parameters, case, batch, (prompt + candidates * each) * layers * width * 20)


def _measure_dense(family: str, situation: Situation, values: Mapping[str, object], batch: int) -> _Sizes:
    log = situation.log
    width, layers = _number(values, "hidden_size", 64), _number(values, "num_hidden_layers", 2)
    history = _number(values, "max_history", 50)
    # A later act on the same item is asked in a window of its own.
    rows = log.num_users + 2 * log.num_interactions / history * (1 + log.share_repeats)
    length = min(history, max(4.0, log.num_interactions / max(1, log.num_users)))
    compared = log.num_items if values.get("negatives") == "full" else batch * 8
    layer = 12 * width * width + 4 * history * width
    # Comparing is plain products of large matrices, whose factor is 1.
    token = 2 * layers * layer + compared * width / FACTORS[family]
    parameters = log.num_items * width + 24 * layers * width * width + _TEXT_SIZE * width * 4
    case = 2 * (length * layers * layer + log.num_items * width)
    return _Sizes(rows, 6 * length * token, parameters, case, batch, length * layers * width * 30)


def _count_cases(situation: Situation, values: Mapping[str, object]) -> tuple[float, float]:
    """Return the numbers of test and of validation cases of a task."""
    users = situation.log.num_users_to_hold_out
    return min(users, _number(values, "max_test_cases", users)), min(users, _most_validated(values))


def _most_validated(values: Mapping[str, object]) -> int:
    """Return the number of validation cases of a task that the settings allow."""
    return int(_number(values, "max_validation_cases", 2000))


def _count_validations(values: Mapping[str, object]) -> float:
    """Return the number of validations of a training."""
    interval = _number(values, "eval_steps", 0.125)
    return max(1.0, round(1 / interval)) if 0 < interval < 1 else 8.0


def _list(values: Mapping[str, object], name: str) -> list[object]:
    value = values.get(name)
    return list(value) if isinstance(value, list | tuple) else []


def _number(values: Mapping[str, object], name: str, default: float) -> float:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) else float(default)


__all__ = ["CASE_FACTORS", "FACTORS", "StageCost", "add_epochs", "estimate_costs", "format_costs", "most_epochs"]
