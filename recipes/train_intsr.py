# SPDX-License-Identifier: Apache-2.0
"""Train IntSR, or plain HSTU: from a raw log to a saved model and a table of results.

```bash
accelerate launch recipes/train_intsr.py --config recipes/intsr/beauty.yaml --data_dir amazon14-beauty
accelerate launch recipes/train_intsr.py --config recipes/intsr/scientific.yaml --data_dir amazon18-scientific
```

Any setting of the YAML file can be given on the command line. A run that was killed goes on where it was; a finished
stage is not repeated unless something it depends on changed. `<output_dir>/model` is complete: weights, processor,
catalogue with text vectors, vectors of the training queries, and `results.json`.
"""

import logging
from pathlib import Path

import torch
from transformers import TrainingArguments, set_seed

from seekrec.evaluation import (
    ModelRetriever,
    compare_on_new_items,
    compare_on_test,
    format_table,
    make_validation,
    rival_systems,
)
from seekrec.hub import record_run
from seekrec.schema import BEHAVIORS, RECOMMENDATION
from seekrec.training import (
    STAGES,
    DataArguments,
    EvaluationArguments,
    IdentifierArguments,
    IntSRArguments,
    WindowArguments,
    make_intsr_collator,
    make_intsr_model,
    make_intsr_processor,
    make_window_trainer,
    make_windows,
    open_stages,
    prepare_cold_start,
    prepare_embeddings,
    prepare_plain_items,
    prepare_split,
    run_recipe,
    save_trained,
    train_once,
    training_stages,
    with_lifetimes,
)

logger = logging.getLogger("train_intsr")

ARGUMENTS = (
    DataArguments,
    IdentifierArguments,
    WindowArguments,
    IntSRArguments,
    EvaluationArguments,
    TrainingArguments,
)


def main(
    data: DataArguments,
    identifiers: IdentifierArguments,
    window: WindowArguments,
    settings: IntSRArguments,
    evaluation: EvaluationArguments,
    training: TrainingArguments,
) -> None:
    """Run the stages up to `evaluation.stop_after`."""
    output_dir = Path(training.output_dir)
    cache = open_stages(training, evaluation)
    last = STAGES.index(evaluation.stop_after)
    show_progress = not training.disable_tqdm
    # Plain HSTU reads no query, so it is asked for recommendations alone.
    tasks = window.tasks if settings.use_placeholders else RECOMMENDATION
    behaviors = BEHAVIORS if tasks == "joint" else (tasks,)

    # 1. Data: read, search, split, audit.
    split = prepare_split(data, cache)
    logger.info("data: %s", split.log.describe())
    if last < 1:
        return

    # 2. Embeddings: text vectors of the items; SASRec is a rival.
    embeddings = prepare_embeddings(split, identifiers, cache, seed=training.seed, report_progress=show_progress)
    items = prepare_plain_items(split, embeddings, identifiers, atomic=False)
    catalog = with_lifetimes(items.catalog, split, window)
    if last < 3:
        return

    # 3. Windows and their questions; the vectors of all queries in them.
    set_seed(training.seed)
    processor = make_intsr_processor(split, catalog, window, settings)
    windows = make_windows(
        split, catalog, window, geohashes=processor.geohashes, use_session_mask=settings.use_session_mask
    )
    logger.info("windows: %d with %d questions", len(windows), len(windows.behavior))
    if last < 4:
        return

    # 4. Training; the best checkpoint by validation NDCG@10, the mean of the tasks.
    model = make_intsr_model(catalog, processor, settings, window, items.sasrec)
    ranking = make_validation(split, catalog, evaluation, behaviors=behaviors, seed=data.split_seed)

    def retriever(trained: torch.nn.Module) -> ModelRetriever:
        return ModelRetriever(trained, processor, num_beams=None, behaviors=behaviors, show_progress=False)

    parts = (data, identifiers, window, settings, evaluation)
    learnt_from = {"split": split.fingerprint(), "catalogue": catalog.content_hash}
    for folder, asked, arguments in training_stages(windows, window, training):
        arguments.output_dir = str(output_dir / folder)
        collator = make_intsr_collator(
            asked, catalog, processor, window, ranks=settings.ranking_weight > 0, seed=training.seed
        )
        trainer = make_window_trainer(
            model, collator, arguments, settings=window, evaluate_model=lambda trained: ranking(retriever(trained))
        )
        model = train_once(trainer, parts, {**learnt_from, "windows": asked})
    if not trainer.is_world_process_zero():
        return
    model_dir = save_trained(model, processor, split, output_dir)
    if last < 5:
        return

    # 5. Evaluation beside baselines on the same split.
    systems = {"IntSR" if settings.use_placeholders else "HSTU": retriever(model)}
    rows = compare_on_test(
        systems,
        split,
        catalog,
        evaluation,
        make_rivals=lambda: rival_systems(split, catalog, items.sasrec),
        behaviors=behaviors,
        seed=data.split_seed,
        show_progress=show_progress,
    )
    rows += compare_on_new_items(
        systems,
        prepare_cold_start(split, data, cache),
        catalog,
        evaluation,
        behaviors=behaviors,
        seed=data.split_seed,
        show_progress=show_progress,
    )
    record_run(model_dir, rows, log=split.log, arguments=parts, seconds=cache.seconds)
    print(format_table(rows))


if __name__ == "__main__":
    run_recipe(__file__, ARGUMENTS, main)
