# SPDX-License-Identifier: Apache-2.0
"""Measure ranking over a cached history, against reading the history for each candidate. Prints JSON lines.

    OMP_NUM_THREADS=1 python recipes/benchmarks/ranking.py

One user, an IntSR of random weights with the paper's S, Q, I and F tokens. `cached` reads the history once and answers
for all candidates from its keys and values (appendix C of the paper); `naive` runs the whole model for each candidate
alone, on at most `naive_candidates` of them, and multiplies. Seconds are medians of processor time. The ratios that
matter:

- `naive_over_cached`: how many times faster cached is, reading the history included;
- `per_candidate_over_naive`: what one more candidate costs, as a share of a naive one, from the smallest to the
  largest number of candidates;
- `largest_difference`: between both ways' probabilities.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from transformers import BatchFeature

from seekrec import Catalog, Event, IntSRConfig, IntSRForSearchAndRecommendation, IntSRProcessor, Request
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

HOUR = 3600


@dataclass
class Arguments:
    """What is measured."""

    histories: list[int] = field(default_factory=lambda: [50, 200, 1000], metadata={"help": "Events of the user."})
    candidates: list[int] = field(default_factory=lambda: [10, 100, 1000], metadata={"help": "Items to order."})
    hidden_size: int = field(default=64, metadata={"help": "Width."})
    num_hidden_layers: int = field(default=3, metadata={"help": "Blocks."})
    merge_event_tokens: bool = field(default=False, metadata={"help": "One token an event, not up to four."})
    naive_candidates: int = field(default=10, metadata={"help": "Candidates that are run alone."})
    repeats: int = field(default=5, metadata={"help": "Runs of which the median is taken."})
    seed: int = field(default=0, metadata={"help": "Seed of weights, histories and candidates."})


def make_model(arguments: Arguments) -> tuple[IntSRForSearchAndRecommendation, IntSRProcessor]:
    """Make a model whose position bias and other weights are random, over as many items as are ordered."""
    num_items = max(arguments.candidates)
    items = pa.table(
        {"item_id": [f"i{row}" for row in range(num_items)], "title": [f"thing {row}" for row in range(num_items)]}
    )
    catalog = Catalog.build(items)
    torch.manual_seed(arguments.seed)
    config = IntSRConfig(
        num_items=num_items,
        text_size=0,
        hidden_size=arguments.hidden_size,
        num_hidden_layers=arguments.num_hidden_layers,
        merge_event_tokens=arguments.merge_event_tokens,
        max_history=max(arguments.histories),
        ranking_weight=1.0,
    )
    model = IntSRForSearchAndRecommendation(config).eval()
    model.set_catalog(catalog)
    return model, IntSRProcessor.from_config(config, catalog)


def measure(call: Callable[[], object], repeats: int) -> float:
    """Return the median processor seconds of a call."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


@torch.no_grad()
def main(arguments: Arguments) -> None:
    """Measure each length of history with each number of candidates."""
    # 1. A model, and as many events of one user as the longest history has.
    model, processor = make_model(arguments)
    generator = np.random.default_rng(arguments.seed)
    rows = generator.integers(max(arguments.candidates), size=max(arguments.histories))
    events = [Event(f"i{row}", timestamp=place * HOUR) for place, row in enumerate(rows.tolist())]

    def lay_out(num_events: int, items: list[str]) -> BatchFeature:
        request = Request(events[:num_events], timestamp=len(events) * HOUR)
        return processor(request, candidates=[items])

    # 2. Both ways, on the same candidates.
    for num_events in arguments.histories:
        seconds: dict[int, float] = {}
        alone = 0.0
        for num_candidates in arguments.candidates:
            items = [f"i{row}" for row in range(num_candidates)]
            few = items[: arguments.naive_candidates]
            together = lay_out(num_events, items)
            each = [lay_out(num_events, [item]) for item in few]
            cached = model.score_candidates(together)[0, 0]
            naive = torch.stack([model.score_candidates(one)[0, 0, 0] for one in each])
            state = model.encode_history(together)
            seconds[num_candidates] = measure(lambda one=together: model.score_candidates(one), arguments.repeats)
            from_state = measure(
                lambda one=together, kept=state: model.score_candidates(one, state=kept), arguments.repeats
            )
            alone = measure(lambda all_=each: [model.score_candidates(one) for one in all_], arguments.repeats)
            alone /= len(few)
            line = {
                "history": num_events,
                "tokens": int(state.positions.is_real.sum()),
                "candidates": num_candidates,
                "cached_seconds": round(seconds[num_candidates], 6),
                "from_state_seconds": round(from_state, 6),
                "naive_seconds": round(alone * num_candidates, 6),
                "naive_over_cached": round(alone * num_candidates / max(seconds[num_candidates], 1e-9), 1),
                "largest_difference": float((cached[: len(few)] - naive).abs().max()),
            }
            print(json.dumps(line), flush=True)
        least, most = min(seconds), max(seconds)
        if most > least:
            slope = (seconds[most] - seconds[least]) / (most - least)
            print(json.dumps({"history": num_events, "per_candidate_over_naive": round(slope / max(alone, 1e-9), 5)}))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak_mib": round(peak)}))


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
