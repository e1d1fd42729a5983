# SPDX-License-Identifier: Apache-2.0
"""Places in the scenario of IntSR: from the events of a log to what the model answers."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch
from dense_questions import assert_same_scores, collate, scores_of
from small_shop import AisleVectors, make_dense_catalog, make_intsr, make_log
from transformers import TrainingArguments

from seekrec.corpora.training_windows import build_training_windows, log_geohashes
from seekrec.errors import ConfigurationError, DataError
from seekrec.events import EventLog, split_log
from seekrec.events.columns import number_geohashes
from seekrec.models import IntSRConfig, IntSRProcessor
from seekrec.recipes.arguments import DataArguments, EmbeddingArguments, EvaluationArguments, RunArguments
from seekrec.recipes.intsr import IntSRRecipe
from seekrec.recipes.windows import WindowArguments
from seekrec.schema import Event, Request

PLACES = ["u33d", "u33e"]
SETTINGS = {"scenario_features": ["hour", "page", "geohash"], "num_geohashes": 2}


def make_placed(**settings):
    model, processor = make_intsr(**SETTINGS | settings)
    return model, IntSRProcessor(processor.catalog, model.config, query_vectors=AisleVectors(), geohashes=PLACES)


def make_placed_log():
    """Every user alternates between two places and stands once, at the first event, in a third."""
    log = make_log()
    users = log.events["user_id"].to_pylist()
    places = [
        f"u33{'de'[row % 2]}{'bc'[row // 2 % 2]}" if row and users[row] == users[row - 1] else None
        for row in range(len(users))
    ]
    places[1] = "9q8yy"
    return EventLog(
        log.name, log.events.append_column("geohash", pa.array(places)), log.items, query_source=log.query_source
    )


def test_places_are_told_apart_by_how_they_begin():
    places = pa.array(["u33dc", "u33e", None, "u33", "9q8yy"])
    assert number_geohashes(places, PLACES).tolist() == [1, 2, 0, 0, 0]
    assert number_geohashes(places, []).tolist() == [0] * 5
    assert number_geohashes(pa.array([], pa.string()), PLACES).tolist() == []


def test_places_are_learned_from_training_events():
    split = split_log(make_placed_log())
    assert log_geohashes(split, 4) == PLACES  # 9q8y has one event
    assert log_geohashes(split, 5) == ["u33db", "u33dc", "u33eb", "u33ec"]
    with pytest.raises(DataError, match="No two training events .* share a geohash of 6 characters; leave"):
        log_geohashes(split, 6)
    with pytest.raises(DataError, match="have no column 'geohash', only user_id, .* leave 'geohash' out"):
        log_geohashes(split_log(make_log()), 4)


def test_the_recipes_processor_reads_places_where_the_scenario_has_them():
    split, catalog = split_log(make_placed_log()), make_dense_catalog()
    for features, expected in ((["geohash"], ["u33db", "u33dc", "u33eb", "u33ec"]), (["page"], [])):
        recipe = IntSRRecipe(
            DataArguments(),
            EmbeddingArguments(),
            EvaluationArguments(),
            RunArguments(),
            TrainingArguments(use_cpu=True),
            WindowArguments(),
            IntSRConfig(scenario_features=features),
        )
        recipe.split, recipe.catalog = split, catalog
        assert recipe.make_processor().geohashes == expected


def test_a_request_is_laid_out_as_training_was():
    split = split_log(make_placed_log())
    _, processor = make_placed()
    catalog = processor.catalog
    table = build_training_windows(split, catalog.id_map, actions=["click"], geohashes=PLACES, max_history=12)
    batch = collate((split, catalog, table), processor, list(range(len(table))))
    assert batch["history_geohash_ids"].unique().tolist() == [0, 1, 2]
    # A question is asked where its target was met.
    events = batch["question_events"].clamp_min(0)
    is_asked = batch["labels"] >= 0
    assert torch.equal(
        batch["question_geohash_ids"][is_asked], batch["history_geohash_ids"].gather(1, events)[is_asked]
    )
    inputs = processor(Request([Event("i0", geohash="u33dc"), Event("i1", timestamp=9)], geohash="u33ez"))
    assert inputs["history_geohash_ids"].tolist() == [[1, 0]] and inputs["question_geohash_ids"].tolist() == [[2]]
    model = make_placed(ranking_weight=0.0)[0].train()
    model(**batch).loss.backward()
    assert (model.model.tokens.geohashes.weight.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("way", [{}, {"merge_event_tokens": True}, {"without": ["scenario_tokens"]}])
def test_answers_depend_on_where_they_are_asked(tmp_path, way):
    model, processor = make_placed(**way)
    history = [Event("i0", timestamp=1000, geohash="u33dc"), Event("i9", timestamp=5000, geohash="u33e")]

    def ask(where, one=None):
        asked = (one or processor)(Request(history, timestamp=9000, geohash=where))
        return model.retrieve(asked, top_k=5, exclude_seen=False)

    assert_same_scores(ask("u33dc"), ask("u33d"), atol=0)
    assert_same_scores(ask(None), ask("9q8yy"), atol=0)
    assert len({str(scores_of(ask(where))) for where in ("u33d", "u33e", None)}) == 3
    # A state that grows by an event knows where that was.
    state = model.extend(model.encode_history(processor(Request(history[:1]))), processor.events([history[1:]]))
    inputs = processor(Request(timestamp=9000, geohash="u33e"))
    assert_same_scores(model.retrieve(inputs, top_k=5, state=state, exclude_seen=False), ask("u33e"))
    processor.save_pretrained(tmp_path)
    loaded = IntSRProcessor.from_pretrained(tmp_path)
    assert loaded.geohashes == PLACES
    assert_same_scores(ask("u33e", loaded), ask("u33e"), atol=0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(Exception, match="`num_geohashes` is 0; with 'geohash' in `scenario_features` it must be"):
        IntSRConfig(scenario_features=["geohash"], num_items=3)
    with pytest.raises(ConfigurationError, match="from 2 to 4 characters long; pass them in one length"):
        IntSRProcessor(geohashes=["u3", "u33d"])
