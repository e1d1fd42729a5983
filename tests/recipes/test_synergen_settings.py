# SPDX-License-Identifier: Apache-2.0
"""Settings of IntSR and SynerGen: two learning rates, pairs of numbers, and the names of earlier versions."""

from __future__ import annotations

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import TrainingArguments

from seekrec.embeddings.softmax import LARGE_CATALOG
from seekrec.errors import ConfigurationError
from seekrec.models import (
    IntSRConfig,
    IntSRForSearchAndRecommendation,
    SynerGenConfig,
    SynerGenForSearchAndRecommendation,
)
from seekrec.recipes.windows import WindowArguments
from seekrec.training import make_window_optimizer
from seekrec.util.parsing import parse_arguments


@pytest.mark.parametrize("item_reading", [["vector", "text"], ["text"], ["vector", "words", "categories"]])
def test_tables_and_the_rest_have_their_own_step_sizes(tmp_path, item_reading):
    model = SynerGenForSearchAndRecommendation(
        SynerGenConfig(num_items=5, num_words=3, item_reading=item_reading, time_encoding="learned_time")
    )
    training = TrainingArguments(
        output_dir=str(tmp_path), learning_rate=1e-3, weight_decay=0.1, adam_beta2=0.98, use_cpu=True
    )
    optimizer = make_window_optimizer(model, training, table_learning_rate=3e-3)
    group = {id(weight): number for number, one in enumerate(optimizer.param_groups) for weight in one["params"]}
    names = dict(model.named_parameters())
    assert set(group) == {id(weight) for weight in names.values()} and len(group) == len(names)
    sparse = {name for name, weight in names.items() if group[id(weight)] == 0}
    tables = {"vector": "model.items.ids.weight", "words": "model.items.words.weight"}
    assert sparse == {"model.tokens.actions.weight", *(tables[name] for name in tables if name in item_reading)}
    assert group[id(names["model.tokens.ids.weight" if "vector" in item_reading else "model.tokens.text.weight"])] == 1
    assert group[id(names["model.rotary.log_scales"])] == group[id(names["retrieval_norm.weight"])] == 2
    settings = [(one["lr"], one["weight_decay"], one["betas"]) for one in optimizer.param_groups]
    assert settings == [(3e-3, 0.0, (0.9, 0.98)), (1e-3, 0.1, (0.9, 0.98)), (1e-3, 0.0, (0.9, 0.98))]
    assert make_window_optimizer(model, training).param_groups[0]["lr"] == 1e-3


def test_negatives_that_cannot_be_are_refused():
    assert SynerGenConfig(negatives="full").drawn_negatives == "uniform"
    assert SynerGenConfig(negatives="full", ranking_weight=0.0, easy_weight=1.0).drawn_negatives is None
    assert SynerGenConfig(negatives="popularity").drawn_negatives == "popularity"
    with pytest.raises(
        StrictDataclassClassValidationError, match="`negatives` is 'hard', but SynerGen's hard negativ"
    ):
        SynerGenConfig(negatives="hard")


def test_the_tables_of_intsr_have_a_step_size_of_their_own(tmp_path):
    model = IntSRForSearchAndRecommendation(IntSRConfig(num_items=5))
    training = TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-3, use_cpu=True)
    optimizer = make_window_optimizer(model, training, table_learning_rate=5e-3)
    names = {id(weight): name for name, weight in model.named_parameters()}
    first, *_ = optimizer.param_groups
    assert {names[id(weight)] for weight in first["params"]} == {
        "model.items.ids.weight",
        "model.tokens.actions.weight",
    }
    assert first["lr"] == 5e-3
    assert sum(len(one["params"]) for one in optimizer.param_groups) == len(names)


def test_negatives_are_chosen_by_the_size_of_the_catalogue():
    for kind in (IntSRConfig, SynerGenConfig):
        settings = kind()
        assert settings.negatives == "auto"
        small, large = settings.with_data(num_items=LARGE_CATALOG), settings.with_data(num_items=LARGE_CATALOG + 1)
        assert small.negatives == "full"
        assert large.negatives == "popularity"
        # What was chosen stays, whatever the size.
        assert kind(negatives="full", num_items=10**6).negatives == "full"


def test_dropout_is_one_number_or_one_for_layers_and_one_for_tokens():
    for options, rates in ((["0.4"], (0.4, 0.4)), (["0.3", "0.5"], (0.3, 0.5)), (["0"], (0, 0))):
        for kind in (IntSRConfig, SynerGenConfig):
            (config,) = parse_arguments([kind], ["--dropout", *options])
            assert (config.layer_dropout, config.token_dropout) == rates
    model = IntSRForSearchAndRecommendation(IntSRConfig(num_items=5, dropout=[0.3, 0.5]))
    assert (model.model.layers[0].dropout.p, model.model.tokens.dropout.p) == (0.3, 0.5)
    for options, message in (
        (["1.0"], r"`dropout` is 1.0; give a number from 0 up and below 1, or two"),
        (["0.1", "0.2", "0.3"], r"`dropout` is \[0.1, 0.2, 0.3\]; give"),
        (["nan"], "`dropout` is nan; give a number that is finite"),
        (["much"], "--dropout: invalid float value: 'much'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            parse_arguments([IntSRConfig], ["--dropout", *options])
    with pytest.raises(ConfigurationError, match="--embedding_dropout 0.1 is not a setting"):
        parse_arguments([IntSRConfig], ["--embedding_dropout", "0.1"])


def test_the_fusion_lies_between_tokens_and_feed_forward_layers():
    # Geometric means: of 64 and 256, of 1024 and 4096; that of 16 and 32 is 22.6.
    for sizes, expected in (((64, 256), 128), ((1024, 4096), 2048), ((16, 32), 24)):
        assert SynerGenConfig(hidden_size=sizes[0], intermediate_size=sizes[1]).fusion_size == expected


def test_position_buckets_are_those_of_t5_up_to_its_distance():
    # The largest distance is four times the history: 128 tokens of 32 events.
    for length, expected in ((6, 32), (32, 32), (33, 64), (100, 64)):
        assert IntSRConfig(max_history=length).num_position_buckets == expected
    # A model that was saved with another number keeps it.
    assert IntSRConfig.from_dict({"max_history": 60, "num_position_buckets": 32}).num_position_buckets == 32


def test_how_the_pool_is_asked_stands_among_the_requests():
    for requests, expected in (
        (["recommend_searched_items"], (0.0, False)),
        (["recommend_searched_items", "pool_searches=0.5"], (0.5, True)),
        (["pool_in_place=0.1"], (0.1, False)),
    ):
        settings = WindowArguments(extra_requests=requests)
        assert (settings.pool_probability, settings.pool_adds) == expected
    for requests, message in (
        (["pool_searches"], "`extra_requests` has 'pool_searches'; choose among .* P is a probability above 0"),
        (["pool_searches=2"], "has 'pool_searches=2'"),
        (["pool_in_place=0"], "has 'pool_in_place=0'"),
        (["pool=0.5"], "has 'pool=0.5'"),
        (
            ["pool_searches=0.5", "pool_in_place=0.5"],
            "pool_searches=0.5, pool_in_place=0.5; name each once, and only one",
        ),
        (["recommend_searched_items"] * 2, "name each once"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            WindowArguments(extra_requests=requests)


def test_settings_of_earlier_versions_are_read_under_the_names_of_today():
    old = {"negatives": "sampled", "correct_sampling": True, "num_hard_negatives": 7, "max_history": 100}
    config = IntSRConfig.from_dict({**old, "max_position_distance": 400, "attention_scale": "visible", "num_items": 3})
    assert (config.negatives, config.num_training_negatives) == ("popularity", 7)
    assert not hasattr(config, "max_position_distance") and not hasattr(config, "attention_scale")
    for kind, old, now in (
        (IntSRConfig, {"use_ids": False, "num_scenarios": 2, "temperature": 1.0}, {"item_reading": ["text"]}),
        (IntSRConfig, {"time_bias": "buckets", "use_position_bias": True}, {"relative_bias": "buckets"}),
        (IntSRConfig, {"time_bias": "none", "use_position_bias": True}, {"relative_bias": "position"}),
        (IntSRConfig, {"time_bias": "none", "use_position_bias": False}, {"relative_bias": "none"}),
        (IntSRConfig, {"use_dsfnet": False, "align_candidates": True}, {"without": ["dsfnet"]}),
        (
            IntSRConfig,
            {"use_scenario_tokens": False, "use_queries": False, "use_session_mask": False, "use_placeholders": False},
            {"without": ["scenario_tokens", "session_mask", "placeholders"], "query_reading": []},
        ),
        (SynerGenConfig, {"use_ids": True, "pairwise_weight": 1.0}, {"item_reading": ["vector", "text"]}),
        (SynerGenConfig, {"item_parts": "ids"}, {"item_reading": ["vector"], "query_reading": ["text"]}),
        (IntSRConfig, {"without": ["queries", "dsfnet"]}, {"without": ["dsfnet"], "query_reading": []}),
        (IntSRConfig, {"embedding_dropout": 0.5, "dropout": 0.3}, {"dropout": [0.3, 0.5]}),
        (SynerGenConfig, {"embedding_dropout": 0.1, "dropout": 0.1}, {"dropout": 0.1}),
        (SynerGenConfig, {"min_period": 4.0, "max_period": 9.0}, {"time_scales": [4.0, 9.0]}),
        (SynerGenConfig, {"learn_time_scales": True, "time_encoding": "both"}, {"time_encoding": "learned_both"}),
        (SynerGenConfig, {"learn_time_scales": True, "time_encoding": "order"}, {"time_encoding": "order"}),
        # One factor of the score of `retrieve`, where there are two and a knee today.
        (
            IntSRConfig,
            {"ranking_scales": [0.5, 2.0, -1.0, 0.0, 3.0, 0.25]},
            {"ranking_scales": [0.5, 2.0, 2.0, 0.0, -1.0, 0.0, 3.0, 3.0, 0.0, 0.25]},
        ),
        (SynerGenConfig, {"fusion_size": 56, "hidden_size": 16}, {"fusion_size": 56}),
    ):
        config = kind.from_dict(old)
        assert {name: getattr(config, name) for name in now} == now
        assert not any(hasattr(config, name) for name in old if name not in (*now, "temperature", "hidden_size"))
    config = SynerGenConfig.from_dict({"easy_negatives": "in_batch", "correct_popularity": True, "align_tasks": True})
    assert config.negatives == "popularity"
    for kind, settings, message in (
        (IntSRConfig, {"similarity": "cosine"}, "`similarity` is 'cosine' in the saved configuration, but only 'dot'"),
        (IntSRConfig, {"max_position_distance": 128, "max_history": 50}, "only 200 is supported today"),
        (
            IntSRConfig,
            {"use_scenario_tokens": True, "scenario_features": ["page"], "merge_event_tokens": False},
            "S tokens of",
        ),
        (SynerGenConfig, {"rotary_fraction": 0.5}, "`rotary_fraction` is 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            kind.from_dict(settings)
