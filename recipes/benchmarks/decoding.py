# SPDX-License-Identifier: Apache-2.0
"""Measure the search for identifiers, against `generate` and against the matrix products alone. Prints JSON lines.

    python recipes/benchmarks/decoding.py
    python recipes/benchmarks/decoding.py --shapes small --threads 1 --batches 1 --beams 50 --catalogs 800000
    python recipes/benchmarks/decoding.py --quick

Weights and identifiers are random, which does not affect speed. Ratios are of medians of runs that took turns in one
process; slow cases run less often (see `runs`). `target` is the upper limit of a ratio, `holds` whether it was met. If
a target is missed, a profile of the search follows.
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from decoding_cases import CODEBOOK_SIZE, OFFSETS, Case, make_codes, make_dict, make_inputs, make_model
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from seekrec.generation import BeamOutput, IdentifierTrie, packed_linears, score_candidates
from seekrec.generation.sessions import T5Session
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

# The most that own / generate may be, for the small shape and 50 beams, by batch size.
STOCK_TARGETS, PACKED_TARGETS = {1: 0.20, 16: 0.10}, {1: 0.10, 16: 0.06}
# Seconds that the repeated runs of one contender should take together, two of them at least, and the seconds of a run
# that is not repeated at all.
BUDGET, TOO_SLOW = 4.0, 8.0


@dataclass
class Arguments:
    """What is measured."""

    shapes: list[str] = field(default_factory=lambda: ["small", "tiny"], metadata={"help": "Shapes of the model."})
    threads: list[int] = field(default_factory=lambda: [1, 2], metadata={"help": "Threads of torch."})
    batches: list[int] = field(default_factory=lambda: [1, 16], metadata={"help": "Requests in a batch."})
    beams: list[int] = field(default_factory=lambda: [10, 20, 50], metadata={"help": "Beams of a request."})
    catalogs: list[int] = field(
        default_factory=lambda: [10_000, 800_000, 7_000_000],
        metadata={"help": "Items, rising. The middle one is searched in most lines, growth is last against first."},
    )
    repeats: int = field(default=5, metadata={"help": "Runs of each contender, fewer where one takes seconds."})
    input_length: int = field(default=256, metadata={"help": "Tokens of an encoder input."})
    num_candidates: int = field(default=100, metadata={"help": "Candidates to score."})
    seed: int = field(default=0, metadata={"help": "Seed of all draws."})
    quick: bool = field(default=False, metadata={"help": "Everything once, small, in seconds; targets mean nothing."})

    @property
    def main_catalog(self) -> int:
        """Items of the catalogue that most lines are about."""
        return self.catalogs[len(self.catalogs) // 2]

    def __post_init__(self) -> None:
        if self.quick:
            self.shapes, self.threads, self.batches, self.beams = ["tiny"], [1], [2], [5]
            self.catalogs, self.repeats, self.input_length, self.num_candidates = [500, 2_000, 5_000], 1, 16, 10


class Timing(NamedTuple):
    """Median seconds of `runs` runs, and what the last one gave."""

    seconds: float
    runs: int
    result: Any


def emit(place: Case | dict[str, Any], measure: str, value: float, target: float | None = None, **more: Any) -> bool:
    """Print a line; says whether its target is missed."""
    where = place.place if isinstance(place, Case) else place
    verdict = {} if target is None else {"target": target, "holds": value <= target}
    kind = "ratio" if " / " in measure else "value"
    print(json.dumps({"measure": measure, **where, **more, kind: round(value, 4), **verdict}), flush=True)
    return target is not None and value > target


def take_turns(contenders: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Timing]:
    """Time contenders in turns, after a first run that counts only where it is the only one."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    results: dict[str, Any] = {}
    wanted = dict.fromkeys(contenders, 1)
    for turn in range(repeats + 1):
        for name, run in contenders.items():
            if turn <= wanted[name]:
                start = time.perf_counter()
                results[name] = run()
                seconds[name].append(time.perf_counter() - start)
            if turn == 0:
                first = seconds[name][0]
                wanted[name] = min(repeats, max(2, int(BUDGET / first))) if first < TOO_SLOW else 0
    return {
        name: Timing(statistics.median(times[1:] or times), len(times[1:] or times), results[name])
        for name, times in seconds.items()
    }


def milliseconds(timings: dict[str, Timing]) -> dict[str, Any]:
    """Return timings in milliseconds, as a line shows them."""
    return {
        "ms": {name: round(1e3 * timing.seconds, 2) for name, timing in timings.items()},
        "runs": {name: timing.runs for name, timing in timings.items()},
    }


def measure_trie(arguments: Arguments, num_items: int) -> IdentifierTrie:
    """Build a trie and a mask of 1 % over it."""
    codes = make_codes(num_items, arguments.seed)
    where = np.random.default_rng(arguments.seed + 1).random(num_items) < 0.01
    built = take_turns({"build": partial(IdentifierTrie.from_codes, codes, CODEBOOK_SIZE)}, 3)["build"]
    trie: IdentifierTrie = built.result
    start = time.perf_counter()
    trie.mask(where)
    counted = time.perf_counter()
    trie.mask(where)
    again = time.perf_counter()
    place, millions = {"items": num_items}, num_items / 1e6
    emit(place, "trie: megabytes per million items", trie.nbytes / 1e6 / millions, 10.0)
    emit(place, "trie: seconds per million items", built.seconds / millions, 0.3, runs=built.runs)
    masks = {"first_ms": round(1e3 * (counted - start), 2), "again_ms": round(1e3 * (again - counted), 2)}
    emit(place, "mask: seconds per million items", (counted - start) / millions, **masks)
    return trie


@contextmanager
def model_clock(model: T5ForConditionalGeneration) -> Iterator[list[float]]:
    """Collect the seconds spent inside the model's own modules and its head."""
    inside = [0.0]
    depth, start = 0, 0.0

    def enter(*_: Any) -> None:
        nonlocal depth, start
        start = start if depth else time.perf_counter()
        depth += 1

    def leave(*_: Any) -> None:
        nonlocal depth
        depth -= 1
        inside[0] += 0.0 if depth else time.perf_counter() - start

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            enter()
            result = method(*args)
            leave()
            return result

        return call

    decoder = model.get_decoder()
    layers = [layer for block in decoder.block for layer in block.layer]
    modules = [model.get_encoder(), decoder, decoder.embed_tokens, decoder.final_layer_norm, *layers]
    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        for name in ("block_logits", "log_partition"):
            stack.enter_context(patch.object(T5Session, name, timed(getattr(T5Session, name))))
        yield inside


def share_outside_model(case: Case, trie: IdentifierTrie, repeats: int) -> float:
    """Return the median share of a search that is neither encoder, decoder nor head."""
    shares = []
    for _ in range(repeats):
        with model_clock(case.model) as inside:
            start = time.perf_counter()
            case.own(trie)
            shares.append(1 - inside[0] / (time.perf_counter() - start))
    return statistics.median(shares)


def print_profile(case: Case, trie: IdentifierTrie, name: str, model: Any) -> None:
    """Print the operators that take most of a search."""
    with torch.profiler.profile() as profile:
        case.own(trie, model=model)
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    shares = {event.key: round(event.self_cpu_time_total / total, 4) for event in events[:8]}
    print(json.dumps({"measure": "profile", **case.place, "of": name, "share_of_time": shares}), flush=True)


def measure_search(arguments: Arguments, case: Case, packed: Any, trie: IdentifierTrie, root: dict[int, Any]) -> None:
    """Compare the search with `generate`, with the floor, and with itself under a mask."""
    is_aim = case.shape == "small" and case.beams == 50
    mask = trie.mask(np.random.default_rng(arguments.seed + 1).random(trie.num_items) < 0.01)
    states = case.encode()
    timings = take_turns(
        {
            "own": partial(case.own, trie),
            "own_vocab": partial(case.own, trie, "vocab"),
            "packed": partial(case.own, trie, model=packed),
            "packed_vocab": partial(case.own, trie, "vocab", model=packed),
            "masked": partial(case.own, trie, masks=mask),
            "encoder": case.encode,
            "products": partial(case.multiply, states),
            "generate_dict": partial(case.generate_with_dict, root),
            "generate_processor": partial(case.generate_with_processor, trie),
        },
        arguments.repeats,
    )
    seconds = {name: timing.seconds for name, timing in timings.items()}
    peers, more = seconds["generate_dict"], {"items": trie.num_items, **milliseconds(timings)}
    stock, aim = (STOCK_TARGETS.get(case.batch), PACKED_TARGETS.get(case.batch)) if is_aim else (None, None)
    missed = [
        emit(case, "own / generate with a dict", seconds["own"] / peers, stock, norm="level", **more),
        emit(case, "packed / generate with a dict", seconds["packed"] / peers, aim, norm="level"),
        emit(case, "own / generate with a dict", seconds["own_vocab"] / peers, norm="vocab"),
        emit(case, "packed / generate with a dict", seconds["packed_vocab"] / peers, norm="vocab"),
        emit(case, "own / generate with the processor", seconds["own_vocab"] / seconds["generate_processor"]),
    ]
    floor = seconds["encoder"] + seconds["products"]
    missed += [
        emit(case, "own / floor", seconds["own"] / floor, 1.4 if case.shape == "small" else None),
        emit(case, "mask of 1 % / none", seconds["masked"] / seconds["own"], 1.1),
        emit(case, "share of trie, mask, top-k, reorder", share_outside_model(case, trie, timings["own"].runs), 0.03),
    ]
    check_items(case, trie, timings["own_vocab"].result, timings["generate_processor"].result)
    if any(missed):
        print_profile(case, trie, "own", case.model)
        print_profile(case, trie, "packed", packed)


def check_items(case: Case, trie: IdentifierTrie, own: BeamOutput, reference: BeamOutput) -> None:
    """Compare the items of the search with those of `generate`, request by request."""
    pairs = list(zip(own.rows, (rows[: case.beams] for rows in reference.rows), strict=True))
    different = sum(int((left != right).sum()) if len(left) == len(right) else case.beams for left, right in pairs)
    gap = max(float(np.abs(a - b[: len(a)]).max()) for a, b in zip(own.scores, reference.scores, strict=True))
    more = {"items": trie.num_items, "norm": "vocab", "of": sum(len(rows) for rows in own.rows)}
    emit(case, "items unlike generate's", float(different), 0.0, **more, largest_score_difference=float(f"{gap:.2g}"))


def measure_growth(arguments: Arguments, case: Case, tries: list[IdentifierTrie]) -> None:
    """Compare catalogues of different sizes."""
    timings = take_turns({str(trie.num_items): partial(case.own, trie) for trie in tries}, arguments.repeats)
    first, *_, last = timings.values()
    emit(
        case,
        f"{tries[-1].num_items} / {tries[0].num_items} items",
        last.seconds / first.seconds,
        1.1,
        **milliseconds(timings),
    )
    for trie in (tries[0], tries[-1]):
        check_items(case, trie, case.own(trie, "vocab"), case.generate_with_processor(trie))


@torch.no_grad()
def measure_candidates(arguments: Arguments, case: Case, packed: Any) -> None:
    """Compare scores of one request's candidates with the model's plain forward."""
    codes = make_codes(arguments.num_candidates, arguments.seed)
    tokens = torch.from_numpy(codes + np.array(OFFSETS)).long()
    inputs = torch.cat([torch.zeros((len(tokens), 1), dtype=torch.int64), tokens[:, :-1]], 1)

    def read(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return logits.log_softmax(-1).gather(2, wanted[..., None])[..., 0].sum(1)

    def separate() -> torch.Tensor:
        rows = zip(inputs.split(1), tokens.split(1), strict=True)
        return torch.cat([read(case.model(**case.prompt, decoder_input_ids=row).logits, own) for row, own in rows])

    def batched() -> torch.Tensor:
        states = case.encode().expand(len(tokens), -1, -1)
        outputs = case.model(encoder_outputs=BaseModelOutput(last_hidden_state=states), decoder_input_ids=inputs)
        return read(outputs.logits, tokens)

    def own(norm: str, model: Any) -> np.ndarray:
        options = {"level_offsets": OFFSETS, "codebook_size": CODEBOOK_SIZE, "decoder_prefix": case.decoder_prefix}
        return score_candidates(model, **case.prompt, codes=[codes], norm=norm, **options)[0]

    timings = take_turns(
        {
            "own": partial(own, "level", case.model),
            "own_vocab": partial(own, "vocab", case.model),
            "packed": partial(own, "level", packed),
            "separate": separate,
            "batch": batched,
        },
        arguments.repeats,
    )
    seconds = {name: timing.seconds for name, timing in timings.items()}
    expected = timings["separate"].result.numpy()
    difference = float(np.abs(timings["own_vocab"].result - expected).max())
    more = {"candidates": len(codes), **milliseconds(timings)}
    emit(case, "candidates: own / separate forwards", seconds["own"] / seconds["separate"], 0.025, **more)
    emit(case, "candidates: own / one batch", seconds["own"] / seconds["batch"], 0.15)
    emit(case, "candidates: packed / one batch", seconds["packed"] / seconds["batch"])
    emit(case, "candidates: largest difference from separate forwards, nats", difference, 1e-4, norm="vocab")


def measure_memory(arguments: Arguments, shape: str) -> None:
    """Measure the peak of own and `generate`, each in its own process."""
    last = {"threads": arguments.threads[-1], "batch": arguments.batches[-1], "beams": arguments.beams[-1]}
    place = {"shape": shape, **last}
    options = {**place, "length": arguments.input_length, "num_items": arguments.main_catalog, "seed": arguments.seed}
    peaks = {}
    for name in ("own", "own_vocab", "generate_dict"):
        command = [sys.executable, str(Path(__file__).with_name("decoding_cases.py")), name, json.dumps(options)]
        # Freed arrays go back to the system at once, so that what was there before the search hides nothing.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        peaks[name] = float(process.stdout.split()[-1])
    mebibytes = {name: round(peak) for name, peak in peaks.items()}
    emit(place, "peak memory: own / generate with a dict", peaks["own"] / peaks["generate_dict"], mib=mebibytes)


def main(arguments: Arguments) -> None:
    """Measure one thing after the other."""
    # 1. Tries and masks of all sizes. The nested dict of a large catalogue takes minutes: the middle one's is built.
    torch.set_num_threads(arguments.threads[0])
    tries = {num_items: measure_trie(arguments, num_items) for num_items in arguments.catalogs}
    trie = tries[arguments.main_catalog]
    start = time.perf_counter()
    root = make_dict(make_codes(trie.num_items, arguments.seed))
    millions = trie.num_items / 1e6
    emit({"items": trie.num_items}, "nested dict: seconds per million items", (time.perf_counter() - start) / millions)

    # 2. Searches and scores.
    for shape in arguments.shapes:
        model = make_model(shape, arguments.seed)
        packed = copy.deepcopy(model)
        with packed_linears(packed) as num_packed:
            emit({"shape": shape}, "linear layers packed", num_packed)
            for threads in arguments.threads:
                torch.set_num_threads(threads)
                inputs = [make_inputs(batch, arguments.input_length, arguments.seed) for batch in arguments.batches]
                for input_ids, beams in product(inputs, arguments.beams):
                    measure_search(arguments, Case(shape, threads, beams, model, input_ids), packed, trie, root)
                case = Case(shape, threads, arguments.beams[-1], model, inputs[0])
                measure_growth(arguments, case, list(tries.values()))
                measure_candidates(arguments, Case(shape, threads, 1, model, inputs[0][:1]), packed)

    # 3. Memory.
    for shape in arguments.shapes:
        measure_memory(arguments, shape)


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
