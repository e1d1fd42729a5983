# SPDX-License-Identifier: Apache-2.0
"""Train GenSR: from a raw log to a saved model and a table of results.

```bash
accelerate launch recipes/train_gensr.py --config recipes/gensr/movielens-100k.yaml
accelerate launch recipes/train_gensr.py --config recipes/gensr/scientific.yaml --data_dir amazon18-scientific
```

Any setting of the YAML file can be given on the command line. A run that was killed goes on where it was; a finished
stage is not repeated unless something it depends on changed. `<output_dir>/model` is complete: weights, the frozen
collaborative table, tokenizer, catalogue, generation settings and `results.json`. With `--compare_with FOLDER` saved
models, a GenSAR for example, stand in the same table.
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
from seekrec.schema import BEHAVIORS
from seekrec.training import (
    STAGES,
    CollaborativeArguments,
    DataArguments,
    EvaluationArguments,
    GeneratorArguments,
    GenSRArguments,
    IdentifierArguments,
    add_lora,
    make_gensr_model,
    make_gensr_processor,
    make_gensr_trainer,
    merge_lora,
    open_stages,
    prepare_cold_start,
    prepare_collaborative,
    prepare_embeddings,
    prepare_items,
    prepare_lightgcn,
    prepare_plain_items,
    prepare_split,
    run_recipe,
    save_trained,
    set_collaborative,
    train_once,
    training_requests,
)

logger = logging.getLogger("train_gensr")

ARGUMENTS = (
    DataArguments,
    IdentifierArguments,
    CollaborativeArguments,
    GenSRArguments,
    GeneratorArguments,
    EvaluationArguments,
    TrainingArguments,
)


def main(
    data: DataArguments,
    identifiers: IdentifierArguments,
    collaborative: CollaborativeArguments,
    settings: GenSRArguments,
    generator: GeneratorArguments,
    evaluation: EvaluationArguments,
    training: TrainingArguments,
) -> None:
    """Run the stages up to `evaluation.stop_after`."""
    output_dir = Path(training.output_dir)
    cache = open_stages(training, evaluation)
    last = STAGES.index(evaluation.stop_after)
    show_progress = not training.disable_tqdm
    behaviors = BEHAVIORS if settings.tasks == "joint" else (settings.tasks,)

    # 1. Data: read, search, split, audit.
    split = prepare_split(data, cache)
    logger.info("data: %s", split.log.describe())
    if last < 1:
        return

    # 2. Embeddings: text vectors of the items, SASRec and LightGCN, and what the collaborative view reads of these.
    embeddings = prepare_embeddings(split, identifiers, cache, seed=training.seed, report_progress=show_progress)
    lightgcn, graph = prepare_lightgcn(split, collaborative, cache, seed=training.seed)
    source = prepare_collaborative(
        split, embeddings.sasrec, lightgcn, identifiers, collaborative, settings, cache, seed=training.seed
    )
    if last < 2:
        return

    # 3. Identifiers, if the model writes any.
    if settings.identifier_weight and settings.identifiers == "dual":
        items = prepare_items(
            split,
            embeddings,
            identifiers,
            cache,
            seed=training.seed,
            published_identifiers=evaluation.published_identifiers,
        )
    else:
        items = prepare_plain_items(split, embeddings, identifiers, atomic=settings.identifier_weight > 0)
    catalog = items.catalog
    if last < 3:
        return

    # 4. Tokenizer and training requests.
    set_seed(training.seed)
    processor = make_gensr_processor(split, catalog, generator, settings)
    requests = training_requests(split, catalog, settings, seed=training.seed)
    logger.info("requests: %s", requests.count())
    if last < 4:
        return

    # 5. Training; the best checkpoint by validation NDCG@10, the mean of tasks and protocols.
    model = make_gensr_model(catalog, processor, source.training, generator, settings, seed=training.seed)
    if generator.lora_rank:
        model = add_lora(model, generator)
    ranking = make_validation(
        split, catalog, evaluation, behaviors=behaviors, protocols=settings.selection_protocols, seed=data.split_seed
    )

    def retriever(trained: torch.nn.Module) -> ModelRetriever:
        return ModelRetriever(trained, processor, num_beams=evaluation.num_beams, show_progress=False)

    training.output_dir = str(output_dir / "trainer")
    trainer = make_gensr_trainer(
        model,
        processor,
        split,
        requests,
        settings,
        training,
        evaluate_model=lambda trained: ranking(retriever(trained)),
    )
    parts = (data, identifiers, collaborative, settings, generator, evaluation)
    learnt_from = {"split": split.fingerprint(), "catalogue": catalog.content_hash, "requests": requests}
    trained = train_once(trainer, parts, {**learnt_from, "tokenizer": processor.tokenizer})
    if not trainer.is_world_process_zero():
        return
    trained = merge_lora(trained, output_dir / "adapter")
    if source.answering is not source.training:
        set_collaborative(trained, source.answering)
    model_dir = save_trained(trained, processor, split, output_dir)
    if last < 5:
        return

    # 6. Evaluation beside baselines on the same split.
    systems = {"GenSR": retriever(trained)}
    # A model that writes no identifiers orders candidates and cannot search all items; its rivals can.
    only_candidates = () if settings.identifier_weight or settings.retrieve_by == "answer" else ("GenSR",)
    rows = compare_on_test(
        systems,
        split,
        catalog,
        evaluation,
        make_rivals=lambda: rival_systems(
            split,
            catalog,
            items.sasrec,
            lightgcn=lightgcn,
            user_ids=graph.user_ids,
        ),
        behaviors=behaviors,
        only_candidates=only_candidates,
        seed=data.split_seed,
        show_progress=show_progress,
    )
    rows += compare_on_new_items(
        systems,
        prepare_cold_start(split, data, cache),
        catalog,
        evaluation,
        behaviors=behaviors,
        only_candidates=only_candidates,
        seed=data.split_seed,
        show_progress=show_progress,
    )
    record_run(model_dir, rows, log=split.log, arguments=parts, seconds=cache.seconds, quality=items.quality)
    print(format_table(rows))


if __name__ == "__main__":
    run_recipe(__file__, ARGUMENTS, main)
