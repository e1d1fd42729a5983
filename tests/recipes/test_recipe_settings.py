"""Every YAML file of the recipes is read by its script's own parser."""

from pathlib import Path

import pytest

from seekrec.corpora import TASKS
from seekrec.events.negatives import NEGATIVE_KINDS
from seekrec.recipes import GenSARRecipe, GenSRRecipe, IntSRRecipe, SynerGenRecipe
from seekrec.util.parsing import parse_arguments, parse_weights

ROOT = Path(__file__).parents[2]
RECIPES = {"gensar": GenSARRecipe, "gensr": GenSRRecipe, "intsr": IntSRRecipe, "synergen": SynerGenRecipe}
FILES = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name in RECIPES)


def read(family, name, *options):
    """Return the recipe of a setting file."""
    path = ROOT / "recipes" / family / f"{name}.yaml"
    recipe = RECIPES[family]
    return recipe(*parse_arguments(recipe.argument_types(), ["--config", str(path), "--use_cpu", "true", *options]))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_file_is_read(path, tmp_path):
    recipe = read(path.parent.name, path.stem, "--output_dir", str(tmp_path))
    if isinstance(recipe, GenSARRecipe):
        assert set(recipe.tasks.weights) <= {*TASKS, "item_queries"}
    if isinstance(recipe, GenSRRecipe):
        assert set(parse_weights(recipe.asked.negatives, "negatives")) <= set(NEGATIVE_KINDS)
    # The best checkpoint is chosen by ranking, so each setting file must ask for that.
    training = recipe.training
    assert training.load_best_model_at_end and training.metric_for_best_model == "eval_ndcg@10"


@pytest.mark.parametrize(("family", "more"), [("gensar", set()), ("gensr", {"scientific-full-ranking"})])
def test_there_are_the_setting_files_of_families_of_identifiers(family, more):
    names = {path.stem for path in FILES if path.parent.name == family}
    assert names == {"movielens-100k", "movielens-tags", "scientific", "tiny", "paper"} | more


def test_the_paper_setting_is_the_papers():
    recipe = read("gensar", "paper")
    identifiers, config, training = recipe.identifiers, recipe.config, recipe.training
    assert recipe.t5.backbone == "google-t5/t5-small"
    assert recipe.embedding.semantic_encoder == "BAAI/bge-base-en-v1.5"
    assert (identifiers.num_shared_levels, identifiers.num_specific_levels, identifiers.codebook_size) == (2, 2, 256)
    assert (config.max_history_recommendations, config.max_history_searches) == (5, 5)
    assert config.corpus == "instructions"
    # 8 GPUs x 64 rows x 16 steps = 8192 rows an update.
    assert 8 * training.per_device_train_batch_size * training.gradient_accumulation_steps == 8192
    assert training.learning_rate == 1e-3 and training.num_train_epochs == 200
    assert training.weight_decay == 1e-7 and training.warmup_steps == 0.01


def test_the_paper_setting_of_gensr_is_the_papers_and_the_released_codes():
    recipe = read("gensr", "paper")
    collaborative, gensr, training = recipe.collaborative, recipe.config, recipe.training
    assert recipe.t5.backbone == "google/flan-t5-base" and gensr.loss_norm == "vocab"
    assert collaborative.lightgcn_behaviors == ["recommendation"]
    assert recipe.embedding.sasrec_hidden_size == 64
    assert gensr.prompt_views == ["collaborative", "semantic"] and gensr.filtered_history == "picked"
    assert gensr.yes_no_loss == "token" and not gensr.shared_prompt and not gensr.query_as_event
    assert gensr.wording == "sentence" and read("gensr", "scientific").config.wording == "short"
    assert read("gensr", "paper", "--shared_prompt", "true").config.wording == "compact"
    assert 0.001 <= gensr.contrast_weight <= 0.3 and 0.01 <= gensr.contrast_temperature <= 0.09
    # 200 rows a step: the positive and its negatives of each request.
    num_candidates = 1 + sum(parse_weights(recipe.asked.negatives, "negatives").values())
    assert training.per_device_train_batch_size * num_candidates == 200
    assert training.learning_rate == 1e-4 and training.weight_decay == 1e-3 and training.warmup_steps == 200


@pytest.mark.parametrize("family", ["intsr", "synergen"])
def test_there_are_the_setting_files_of_families_of_vectors(family):
    names = {path.stem for path in FILES if path.parent.name == family}
    assert names == {"beauty", "movielens-100k", "movielens-tags", "scientific", "tiny", "paper"}


def test_the_paper_setting_of_intsr_is_the_papers():
    recipe = read("intsr", "paper")
    model, training = recipe.config, recipe.training
    assert (model.num_hidden_layers, model.hidden_size, model.num_dsf_layers) == (3, 32, 3)
    assert model.max_history == 30 + 30 and not model.without
    assert training.learning_rate == 1e-3 and training.per_device_train_batch_size == 32
    assert model.has_scenario_tokens and not model.merge_event_tokens and model.ranking_weight > 0


def test_the_paper_setting_of_synergen_is_the_papers():
    recipe = read("synergen", "paper")
    window, model, training = recipe.window, recipe.config, recipe.training
    assert (training.learning_rate, window.sparse_learning_rate) == (1e-3, 3e-3) and training.bf16
    assert (model.temperature, model.easy_weight, model.ranking_weight) == (0.085, 0.1, 1)
    assert model.negatives == "popularity"
    assert model.time_encoding == "time" and model.use_target_time and not model.queries_in_context
    # 12 width^2 weights a layer: 100 million.
    assert model.intermediate_size == 4 * model.hidden_size
    assert 12 * model.hidden_size**2 * model.num_hidden_layers == pytest.approx(1e8, rel=0.01)
