# SPDX-License-Identifier: Apache-2.0
"""Measure training steps of one model; `training_sizes.py` starts it as a process. Prints one JSON line.

It reads the package and `training_throughput` from the path that it is started with, which may be an older checkout,
so it only uses what both have.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import training_throughput as throughput
from torch import Tensor, nn
from transformers import TrainingArguments

from seekrec import Catalog
from seekrec.embeddings import SASRecConfig, SASRecForNextItem
from seekrec.recipes.windows import WindowArguments, make_windows
from seekrec.training import make_window_optimizer

Batch = dict[str, Tensor]


def make_sasrec(num_items: int, batch_size: int, length: int, training: TrainingArguments):
    """Make SASRec as its recipe does, with an optimizer and a batch of random histories."""
    config = SASRecConfig(num_items=num_items, max_history=length, embedding_dropout=0.0, dropout=0.0)
    optimizer: torch.optim.Optimizer
    try:
        from seekrec.embeddings.softmax import LARGE_CATALOG, NUM_SHARED_NEGATIVES
        from seekrec.training.row_adamw import make_adamw, use_row_gradients
    except ImportError:
        model = SASRecForNextItem(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    else:
        config.num_sampled_negatives = NUM_SHARED_NEGATIVES if num_items > LARGE_CATALOG else 0
        model = SASRecForNextItem(config).train()
        if config.num_sampled_negatives:
            use_row_gradients(model.model.item_embedding, training)
        optimizer = make_adamw(model, [model.model.item_embedding], training, table_rate=0.0)
    tokens = torch.randint(1, num_items + 1, (batch_size, length + 1))
    return model, optimizer, {"input_ids": tokens[:, :-1], "labels": tokens[:, 1:]}


def make_windows_family(family: str, num_items: int, batch_size: int, length: int, training: TrainingArguments):
    """Make IntSR or SynerGen with default settings, with an optimizer and a batch of made-up users."""
    arguments = throughput.Arguments(num_items=num_items, batch_size=batch_size)
    split = throughput.make_split(arguments, length)
    catalog = Catalog.build(split.log.items, embeddings={"semantic": throughput.make_vectors(num_items, 0)})
    config = throughput.make_config(family, arguments, length)
    try:
        from seekrec.recipes.choices import MOST_COMPARED_ITEMS
    except ImportError:
        pass  # then the configuration decides, as plans did
    else:
        config.negatives = "full" if num_items <= MOST_COMPARED_ITEMS[family] else "popularity"
    batch = throughput.make_batch(make_windows(split, catalog, config, WindowArguments()), catalog, 0)
    model = throughput.make_family(config, split, catalog, arguments)
    return model, make_window_optimizer(model, training), batch


def clip(model: nn.Module) -> None:
    """Clip as the Trainer does."""
    if any(weight.grad is not None and weight.grad.is_sparse for weight in model.parameters()):
        from seekrec.training.row_adamw import clip_gradients

        clip_gradients(model.parameters(), 1.0)
    else:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)


def run(step: Callable[[], float], repeats: int) -> tuple[float, float]:
    """Return the median of the seconds of a step, after one that warms up, and its loss; a long one runs once."""
    seconds: list[float] = []
    for number in range(repeats + 1):
        started = time.process_time()
        loss = step()
        taken = time.process_time() - started
        if taken > throughput.LONG:
            return taken, loss
        if number:
            seconds.append(taken)
    return statistics.median(seconds), loss


def memory(name: str) -> float:
    """Return a line of `/proc/self/status` in MiB: `VmRSS`, resident now, or `VmHWM`, at the highest."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def main(family: str, num_items: int, batch_size: int, length: int, repeats: int) -> None:
    """Measure."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        training = TrainingArguments(output_dir=folder, learning_rate=0.0, use_cpu=True, report_to="none")
        if family == "sasrec":
            model, optimizer, batch = make_sasrec(num_items, batch_size, length, training)
        else:
            model, optimizer, batch = make_windows_family(family, num_items, batch_size, length, training)
    num_events = int((batch["input_ids"] != 0).sum() if family == "sasrec" else batch["history_mask"].sum())

    def step() -> float:
        optimizer.zero_grad()
        loss: Tensor = model(**batch).loss
        loss.backward()
        clip(model)
        optimizer.step()
        return loss.item()

    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the highest so far
    seconds, loss = run(step, repeats)
    line = {
        "events_per_second": round(num_events / seconds, 1),
        "seconds": round(seconds, 3),
        "step_mib": round(memory("VmHWM") - before),
        "loss": loss,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main(sys.argv[1], *(int(value) for value in sys.argv[2:]))
