"""Every YAML file of the recipes is read by its script's own parser."""

from pathlib import Path

import pytest
from transformers import TrainingArguments

from seekrec.corpora import TASKS
from seekrec.training import (
    CorpusArguments,
    DataArguments,
    EvaluationArguments,
    IdentifierArguments,
    ModelArguments,
    parse_arguments,
)
from seekrec.training.arguments import parse_weights

ROOT = Path(__file__).parents[2]
ARGUMENTS = {
    "gensar": (
        DataArguments,
        IdentifierArguments,
        CorpusArguments,
        ModelArguments,
        EvaluationArguments,
        TrainingArguments,
    ),
}
FILES = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name != "accelerate_configs")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_file_is_read(path, tmp_path):
    filled = parse_arguments(
        ARGUMENTS[path.parent.name], ["--config", str(path), "--output_dir", str(tmp_path), "--use_cpu", "true"]
    )
    corpus = next(part for part in filled if isinstance(part, CorpusArguments))
    assert set(parse_weights(corpus.task_weights, "task_weights")) <= {*TASKS, "item_queries"}
    training = next(part for part in filled if isinstance(part, TrainingArguments))
    # The best checkpoint is chosen by ranking, so each setting file must ask for that.
    assert training.load_best_model_at_end and training.metric_for_best_model == "eval_ndcg@10"


def test_there_are_the_four_setting_files_of_gensar():
    names = {path.stem for path in FILES if path.parent.name == "gensar"}
    assert names == {"movielens-100k", "scientific", "tiny", "paper"}


def test_the_paper_setting_is_the_papers():
    filled = parse_arguments(
        ARGUMENTS["gensar"], ["--config", str(ROOT / "recipes/gensar/paper.yaml"), "--use_cpu", "true"]
    )
    _, identifiers, corpus, model, _, training = filled
    assert model.backbone == "google-t5/t5-small"
    assert identifiers.semantic_encoder == "BAAI/bge-base-en-v1.5"
    assert (identifiers.num_shared_levels, identifiers.num_specific_levels, identifiers.codebook_size) == (2, 2, 256)
    assert (corpus.max_history_recommendations, corpus.max_history_searches) == (5, 5)
    assert not corpus.shared_history
    # 8 GPUs x 64 rows x 16 steps = 8192 rows an update.
    assert 8 * training.per_device_train_batch_size * training.gradient_accumulation_steps == 8192
    assert training.learning_rate == 1e-3 and training.num_train_epochs == 200
    assert training.weight_decay == 1e-7 and training.warmup_steps == 0.01
