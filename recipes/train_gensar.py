# SPDX-License-Identifier: Apache-2.0
"""Train GenSAR: from a raw log to a saved model and a table of results.

```bash
accelerate launch recipes/train_gensar.py --config recipes/gensar/movielens-100k.yaml
accelerate launch recipes/train_gensar.py --config recipes/gensar/scientific.yaml --data_dir amazon18-scientific
```

Any setting of the YAML file can be given on the command line. A run that was killed goes on where it was; a finished
stage is not repeated unless something it depends on changed. `<output_dir>/model` is complete: weights, tokenizer,
catalogue, generation settings and `results.json`.
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
from seekrec.training import (
    STAGES,
    CorpusArguments,
    DataArguments,
    EvaluationArguments,
    IdentifierArguments,
    ModelArguments,
    add_lora,
    make_corpus,
    make_model,
    make_processor,
    make_tokenizer,
    make_trainer,
    merge_lora,
    open_stages,
    prepare_cold_start,
    prepare_embeddings,
    prepare_items,
    prepare_split,
    run_recipe,
    save_trained,
    train_once,
)

logger = logging.getLogger("train_gensar")

ARGUMENTS = (
    DataArguments,
    IdentifierArguments,
    CorpusArguments,
    ModelArguments,
    EvaluationArguments,
    TrainingArguments,
)


def main(
    data: DataArguments,
    identifiers: IdentifierArguments,
    corpus_arguments: CorpusArguments,
    model_arguments: ModelArguments,
    evaluation: EvaluationArguments,
    training: TrainingArguments,
) -> None:
    """Run the stages up to `evaluation.stop_after`."""
    output_dir = Path(training.output_dir)
    cache = open_stages(training, evaluation)
    last = STAGES.index(evaluation.stop_after)
    show_progress = not training.disable_tqdm

    # 1. Data: read, search, split, audit.
    split = prepare_split(data, cache)
    logger.info("data: %s", split.log.describe())
    if last < 1:
        return

    # 2. Embeddings: text vectors of the items, and SASRec.
    embeddings = prepare_embeddings(split, identifiers, cache, seed=training.seed, report_progress=show_progress)
    if last < 2:
        return

    # 3. Identifiers.
    items = prepare_items(
        split,
        embeddings,
        identifiers,
        cache,
        seed=training.seed,
        published_identifiers=evaluation.published_identifiers,
    )
    catalog = items.catalog
    if last < 3:
        return

    # 4. Tokenizer and corpus.
    set_seed(training.seed)
    tokenizer, vocabulary = make_tokenizer(split, catalog, model_arguments)
    corpus = make_corpus(split, catalog, tokenizer, vocabulary, corpus_arguments, seed=training.seed)
    logger.info("corpus: %s", {name: len(rows) for name, rows in corpus.items()})
    if last < 4:
        return

    # 5. Training; the best checkpoint by validation NDCG@10, both tasks' mean.
    processor = make_processor(catalog, tokenizer, corpus_arguments)
    model = make_model(catalog, tokenizer, vocabulary, model_arguments, corpus_arguments, seed=training.seed)
    if model_arguments.lora_rank:
        model = add_lora(model, model_arguments)

    ranking = make_validation(split, catalog, evaluation, seed=data.split_seed)

    def make_retriever(trained: torch.nn.Module) -> ModelRetriever:
        return ModelRetriever(
            trained,
            processor,
            num_beams=evaluation.num_beams,
            candidate_scoring=evaluation.candidate_scoring,
            show_progress=False,
        )

    def evaluate_model(trained: torch.nn.Module) -> dict[str, float]:
        return ranking(make_retriever(trained))

    training.output_dir = str(output_dir / "trainer")
    trainer = make_trainer(model, processor, corpus, corpus_arguments, training, evaluate_model=evaluate_model)
    parts = (data, identifiers, corpus_arguments, model_arguments, evaluation)
    learnt_from = {"split": split.fingerprint(), "catalogue": catalog.content_hash, "corpus": corpus}
    trained = train_once(trainer, parts, {**learnt_from, "tokenizer": tokenizer})
    if not trainer.is_world_process_zero():
        return
    trained = merge_lora(trained, output_dir / "adapter")
    model_dir = save_trained(trained, processor, split, output_dir)
    if last < 5:
        return

    # 6. Evaluation beside baselines on the same split.
    systems = {"GenSAR": make_retriever(trained)}
    rows = compare_on_test(
        systems,
        split,
        catalog,
        evaluation,
        make_rivals=lambda: rival_systems(split, catalog, items.sasrec),
        seed=data.split_seed,
        show_progress=show_progress,
    )
    rows += compare_on_new_items(
        systems,
        prepare_cold_start(split, data, cache),
        catalog,
        evaluation,
        seed=data.split_seed,
        show_progress=show_progress,
    )
    record_run(model_dir, rows, log=split.log, arguments=parts, seconds=cache.seconds, quality=items.quality)
    print(format_table(rows))


if __name__ == "__main__":
    run_recipe(__file__, ARGUMENTS, main)
