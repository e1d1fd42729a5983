"""One of several processes that train together, each with some rows of the items; what `test_row_shards.py` starts."""

import json
import os
import sys
from pathlib import Path

import torch
from dense_questions import REQUESTS
from safetensors.torch import save_file
from small_shop import make_dense_catalog, make_intsr, make_log, make_synergen
from transformers import TrainerCallback, TrainingArguments

from seekrec import split_log
from seekrec.corpora.training_windows import build_training_windows
from seekrec.embeddings.row_shards import row_shards
from seekrec.training import row_adamw
from seekrec.training.event_windows import QueryPool, WindowCollator, make_negatives, make_window_trainer
from seekrec.training.trainer import train_once

TOTAL_BATCH, STEPS = 4, 6
SETTINGS = {"dropout": 0.0, "negatives": "popularity"}


class Stop(TrainerCallback):
    """Ends the process after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, arguments, state, control, **kwargs):
        if state.global_step == self.step:
            torch.distributed.barrier() if arguments.world_size > 1 else None
            raise KeyboardInterrupt


def train(folder, family, stop_at):
    """Train to the end, or to a step; the first process writes losses, metrics and weights."""
    catalog = make_dense_catalog()
    windows = build_training_windows(split_log(make_log()), catalog.id_map, actions=["click"], max_history=12)
    model, processor = (make_intsr if family == "intsr" else make_synergen)(catalog=catalog, **SETTINGS)
    pool = QueryPool.build(windows, catalog, processor.query_vectors, ["logged"])
    collator = WindowCollator(windows, pool, negatives=make_negatives(windows, catalog, "popularity", 3))
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=TOTAL_BATCH // num_processes,
        max_steps=STEPS,
        learning_rate=0.02,
        max_grad_norm=0.5,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=2,
        save_steps=2,
        logging_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        ddp_backend="gloo" if num_processes > 1 else None,
    )

    def rank(trained):
        answers = trained.retrieve(processor(REQUESTS), top_k=[5, 3, 7, 9])
        ordered = trained.rank(processor(REQUESTS, candidates=[["i1", "i5"]] * len(REQUESTS)))
        scores = [item.score for answer in answers + ordered for item in answer]
        return {"score": -sum(scores), "places": sum(int(item.item_id[1:]) for item in answers[0])}

    trainer = make_window_trainer(model, collator, arguments, table_learning_rate=0.05, evaluate_model=rank)
    shards = row_shards(model)
    assert [len(shard.weight) for shard in shards.values()] == ([len(catalog) // 2] if num_processes > 1 else [])
    if stop_at:
        trainer.add_callback(Stop(stop_at))
    trained = train_once(trainer, [], {"catalogue": catalog.content_hash, "windows": windows})
    if arguments.process_index:
        assert trained.items.ids.weight.is_meta
        return
    trained.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    save_file(trained.state_dict(), folder / "weights.safetensors")
    history = [line for line in trainer.state.log_history if "loss" in line or "eval_score" in line]
    names = ("loss", "grad_norm", "eval_score", "eval_places")
    history = [{name: line[name] for name in names if name in line} for line in history]
    (folder / "history.json").write_text(json.dumps(history))


if __name__ == "__main__":
    row_adamw.LARGE_CATALOG = 5
    for family in sys.argv[3:]:
        place = Path(sys.argv[1]) / family
        place.mkdir(parents=True, exist_ok=True)
        try:
            train(place, family, int(sys.argv[2]))
        except KeyboardInterrupt:
            pass
