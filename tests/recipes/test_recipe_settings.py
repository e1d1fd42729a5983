"""Every YAML file of the recipes is read by its script's own parser."""

import runpy
from pathlib import Path

import pytest
from transformers import TrainingArguments

from seekrec.corpora import TASKS
from seekrec.events.negatives import NEGATIVE_KINDS
from seekrec.training import (
    CorpusArguments,
    GenSRArguments,
    parse_arguments,
)
from seekrec.training.arguments import parse_weights

ROOT = Path(__file__).parents[2]
ARGUMENTS = {
    family: runpy.run_path(str(ROOT / "recipes" / f"train_{family}.py"))["ARGUMENTS"]
    for family in ("gensar", "gensr", "intsr", "synergen")
}
FILES = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name in ARGUMENTS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_file_is_read(path, tmp_path):
    filled = parse_arguments(
        ARGUMENTS[path.parent.name], ["--config", str(path), "--output_dir", str(tmp_path), "--use_cpu", "true"]
    )
    for part in filled:
        if isinstance(part, CorpusArguments):
            assert set(parse_weights(part.task_weights, "task_weights")) <= {*TASKS, "item_queries"}
        if isinstance(part, GenSRArguments):
            assert set(parse_weights(part.negatives, "negatives")) <= set(NEGATIVE_KINDS)
    training = next(part for part in filled if isinstance(part, TrainingArguments))
    # The best checkpoint is chosen by ranking, so each setting file must ask for that.
    assert training.load_best_model_at_end and training.metric_for_best_model == "eval_ndcg@10"


@pytest.mark.parametrize(("family", "more"), [("gensar", set()), ("gensr", {"scientific-full-ranking"})])
def test_there_are_the_setting_files_of_families_of_identifiers(family, more):
    names = {path.stem for path in FILES if path.parent.name == family}
    assert names == {"movielens-100k", "scientific", "tiny", "paper"} | more


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


def test_the_paper_setting_of_gensr_is_the_papers_and_the_released_codes():
    filled = parse_arguments(
        ARGUMENTS["gensr"], ["--config", str(ROOT / "recipes/gensr/paper.yaml"), "--use_cpu", "true"]
    )
    _, _, collaborative, gensr, generator, _, training = filled
    assert generator.backbone == "google/flan-t5-base" and generator.loss_norm == "vocab"
    assert collaborative.lightgcn_behaviors == ["recommendation"]
    assert (collaborative.lightgcn_hidden_size, collaborative.lightgcn_num_propagations) == (64, 2)
    assert gensr.prompt_views == ["collaborative", "semantic"] and gensr.soft_filter
    assert gensr.yes_no_loss == "token" and not gensr.shared_prompt and not gensr.query_as_event
    assert 0.001 <= gensr.contrast_weight <= 0.3 and 0.01 <= gensr.contrast_temperature <= 0.09
    # 200 rows a step: the positive and its negatives of each request.
    num_candidates = 1 + sum(parse_weights(gensr.negatives, "negatives").values())
    assert training.per_device_train_batch_size * num_candidates == 200
    assert training.learning_rate == 1e-4 and training.weight_decay == 1e-3 and training.warmup_steps == 200


@pytest.mark.parametrize("family", ["intsr", "synergen"])
def test_there_are_the_five_setting_files_of_families_of_vectors(family):
    names = {path.stem for path in FILES if path.parent.name == family}
    own = {"alignment-movielens", "alignment-simulated"} if family == "intsr" else set()
    assert names == {"beauty", "movielens-100k", "scientific", "tiny", "paper"} | own


def test_the_paper_setting_of_intsr_is_the_papers():
    filled = parse_arguments(
        ARGUMENTS["intsr"], ["--config", str(ROOT / "recipes/intsr/paper.yaml"), "--use_cpu", "true"]
    )
    _, _, window, model, _, training = filled
    assert (model.num_hidden_layers, model.hidden_size, model.num_scenarios, model.num_dsf_layers) == (3, 32, 2, 3)
    assert window.max_history == 30 + 30 and window.align_candidates
    assert training.learning_rate == 1e-3 and training.per_device_train_batch_size == 32
    assert model.use_scenario_tokens and not model.merge_event_tokens and model.ranking_weight > 0


def test_the_paper_setting_of_synergen_is_the_papers():
    filled = parse_arguments(
        ARGUMENTS["synergen"], ["--config", str(ROOT / "recipes/synergen/paper.yaml"), "--use_cpu", "true"]
    )
    _, _, window, model, _, training = filled
    assert (training.learning_rate, window.sparse_learning_rate) == (1e-3, 3e-3) and training.bf16
    assert (model.temperature, model.easy_weight, model.pairwise_weight, model.ranking_weight) == (0.085, 0.1, 1, 1)
    assert window.negatives == "popularity" and window.correct_sampling and model.similarity == "dot"
    assert model.time_encoding == "time" and model.use_target_time and not model.queries_in_context
    # 12 width^2 weights a layer: 100 million.
    assert model.intermediate_size == 4 * model.hidden_size
    assert 12 * model.hidden_size**2 * model.num_hidden_layers == pytest.approx(1e8, rel=0.01)
