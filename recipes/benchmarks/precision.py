# SPDX-License-Identifier: Apache-2.0
"""Measure what `bf16` gains or costs in training on this processor. Prints one JSON line.

    OMP_NUM_THREADS=1 python recipes/benchmarks/precision.py

Forward and backward passes of a T5 of the size in GenSAR's recipes, in float32 and under bfloat16 autocast, take
turns:

- `has_bf16`: whether the processor supports bfloat16 natively; if not, trainings with `bf16` use float32;
- `float32_seconds`, `bf16_seconds`: medians of processor time;
- `speedup`: float32 over bfloat16.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from functools import partial

import torch
from transformers import T5Config, T5ForConditionalGeneration
from turns import time_in_turns

from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments
from seekrec.util.precision import cpu_has_bf16

_VOCABULARY, _WRITTEN = 3_000, 12


@dataclass
class Arguments:
    """What is measured."""

    width: int = field(
        default=128, metadata={"help": "Width of the model; feed-forward layers are four times as wide."}
    )
    batch_size: int = field(default=32, metadata={"help": "Sequences of a step."})
    length: int = field(default=200, metadata={"help": "Tokens of a sequence."})
    repeats: int = field(default=5, metadata={"help": "Steps of which the median is taken."})


def main(arguments: Arguments) -> None:
    """Measure."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"d_model": arguments.width, "d_ff": 4 * arguments.width, "d_kv": 32, "num_layers": 2, "num_heads": 4}
    model = T5ForConditionalGeneration(T5Config(vocab_size=_VOCABULARY, decoder_start_token_id=0, **sizes))
    read = torch.randint(_VOCABULARY, (arguments.batch_size, arguments.length))
    written = torch.randint(_VOCABULARY, (arguments.batch_size, _WRITTEN))

    def step(is_half: bool) -> None:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            loss = model(input_ids=read, labels=written).loss
        loss.backward()

    ways = {"float32": partial(step, False), "bf16": partial(step, True)}
    whole, half = time_in_turns(ways, arguments.repeats, time.process_time).values()
    line = {
        "has_bf16": cpu_has_bf16(),
        "float32_seconds": round(whole, 3),
        "bf16_seconds": round(half, 3),
        "speedup": round(whole / half, 2),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
