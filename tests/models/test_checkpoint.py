# SPDX-License-Identifier: Apache-2.0
"""A checkpoint folder holds one model with its own processor, catalogue and results, or says which part is not."""

from __future__ import annotations

import collections
import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from dense_questions import assert_same_scores
from kill_points import run_killed
from small_shop import make_gensar, make_intsr, make_synergen
from transformers import AutoModel, AutoProcessor

from seekrec.catalog import Catalog
from seekrec.errors import CatalogError, CheckpointError, ConfigurationError
from seekrec.models import save_checkpoint
from seekrec.models.manifest import check_part, replace_part
from seekrec.schema import Event, Request

REQUEST = Request([Event(f"i{number}", timestamp=number) for number in range(8)])
CONFIG, WEIGHTS, SETTINGS = "config.json", "model.safetensors", "processor_config.json"


@pytest.fixture(scope="module")
def pairs():
    """Two models of the same items, whose processors read histories of different lengths."""
    found = []
    for seed in (0, 1):
        model, processor = make_intsr(seed)
        processor.max_history = 3 + seed
        processor.query_vectors.add([f"red {seed}"])
        found.append((model, processor))
    return found


@pytest.fixture(scope="module")
def folders(pairs, tmp_path_factory):
    """Each of the two, saved by one call, with results."""
    saved = []
    for number, (model, processor) in enumerate(pairs):
        folder = tmp_path_factory.mktemp("saved") / str(number)
        save_checkpoint(model, processor, folder)
        with replace_part(folder, "results") as new:
            (new / "results.json").write_text(json.dumps({"number": number}))
        saved.append(folder)
    return saved


@pytest.fixture
def folder(folders, tmp_path):
    return shutil.copytree(folders[0], tmp_path / "model")


def ask(folder):
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    check_part(folder, "results")
    return [
        (item.item_id, round(item.score, 4))
        for item in model.retrieve(processor(REQUEST), top_k=5, exclude_seen=False)[0]
    ]


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def without_manifests(folder):
    for path in folder.glob("*_manifest.json"):
        path.unlink()


def test_one_checkpoint_loads(folder, pairs):
    model, processor = pairs[0]
    expected = [
        (item.item_id, round(item.score, 4))
        for item in model.retrieve(processor(REQUEST), top_k=5, exclude_seen=False)[0]
    ]
    assert ask(folder) == expected
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text())))  # the same settings, laid out otherwise
    assert ask(folder) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (CONFIG, "config.json is not the file that was saved with the model"),
        (WEIGHTS, "model.safetensors is not the file that was saved with the model"),
        (SETTINGS, "processor_config.json is not the file that was saved with the processor"),
        ("query_vectors.safetensors", "query_vectors.safetensors is not the file that was saved with the processor"),
        ("results.json", "results.json is not the file that was saved with the results"),
        ("processor_manifest.json", "processor_config.json is not the file"),
        ("model_manifest.json", "is not the file that was saved with the model"),
    ],
)
def test_a_file_of_another_checkpoint_is_named(folder, folders, name, message):
    if name == CONFIG:
        change(folder / name, dropout=0.5)  # both were made with the same configuration
    else:
        shutil.copy(folders[1] / name, folder / name)
    with pytest.raises(CheckpointError, match=message):
        ask(folder)


def test_whole_parts_of_another_checkpoint_are_named(folder, folders):
    for name in (SETTINGS, "query_vectors.safetensors", "processor_manifest.json"):
        shutil.copy(folders[1] / name, folder / name)
    with pytest.raises(
        CheckpointError, match=r"The processor in .* was saved with another model .*Save this model's proc"
    ):
        ask(folder)
    for name in (WEIGHTS, CONFIG, "model_manifest.json"):
        shutil.copy(folders[1] / name, folder / name)
    with pytest.raises(CheckpointError, match=r"The results in .* were saved with another model"):
        ask(folder)


def test_a_swapped_tokenizer_is_named(aisles, tmp_path):
    model, processor = make_gensar(aisles)
    save_checkpoint(model, processor, tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"] = content["added_tokens"][::-1]
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not the file that was saved with the processor"):
        AutoProcessor.from_pretrained(tmp_path)


def test_a_model_and_its_processor_hold_one_catalogue(folder):
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert model.catalog is processor.catalog
    removed = model.catalog.remove_items(["i1"])
    removed.save(folder / "catalog")
    again = AutoModel.from_pretrained(folder)
    assert again.catalog.content_hash == removed.content_hash
    assert model.catalog is processor.catalog


def test_a_file_that_would_be_read_too_is_named(folder):
    (folder / "chat_template.jinja").write_text("x")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja does not belong to the processor saved there"):
        ask(folder)


@pytest.mark.parametrize(
    "change_it",
    [
        lambda folder: (folder / WEIGHTS).unlink(),
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100]),
        lambda folder: (folder / CONFIG).write_text('{"model_type": "intsr", "num_it'),
        lambda folder: (folder / "model_manifest.json").write_text("[]"),
        lambda folder: change(folder / "model_manifest.json", files={"../x": "0"}),
    ],
    ids=["lost weights", "cut weights", "cut configuration", "no manifest", "a path in the manifest"],
)
def test_damage_is_an_error_of_ours(folder, change_it):
    change_it(folder)
    with pytest.raises(CheckpointError, match="fetch the folder again|Save it again|save the folder again|fetch it"):
        check_part(folder, "model")


def test_folders_without_manifests_load(folder, folders):
    without_manifests(folder)
    assert ask(folder) == ask(folders[0])


@pytest.mark.parametrize(
    ("change_it", "message"),
    [
        (
            lambda folder: change(folder / SETTINGS, actions=["click", "buy"]),
            "`num_actions` is 2, but the model there",
        ),
        (lambda folder: change(folder / SETTINGS, max_history=1000), "`max_history` is 1000, but the model there has"),
        (lambda folder: change(folder / SETTINGS, max_history=-5), "`max_history` is -5; it must be at least 1"),
        (lambda folder: change(folder / SETTINGS, max_history=0), "`max_history` is 0; it must be at least 1"),
        (lambda folder: change(folder / SETTINGS, max_history="x"), "'max_history' expected int, got str"),
        (lambda folder: change(folder / SETTINGS, actions=["click", "click"]), r"`actions` is \['click', 'click'\]"),
        (
            lambda folder: change(folder / CONFIG, num_hidden_layers=10**9),
            r"num_hidden_layers 1000000000, but the weights next to it have \d+ tensors",
        ),
        (
            lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100]),
            "model.safetensors cannot be read .*truncated or damaged",
        ),
        (
            lambda folder: change(folder / CONFIG, num_hidden_layers=5),
            r"lack \d+ tensors of IntSRForSearchAndRecommendation",
        ),
    ],
)
def test_contradictions_are_named_without_manifests(folder, change_it, message):
    without_manifests(folder)
    change_it(folder)
    with pytest.raises((CheckpointError, ConfigurationError), match=message):
        ask(folder)


def test_a_catalogue_with_other_vectors_is_refused(folder, pairs):
    catalog = pairs[0][0].catalog
    other = type(catalog).build(catalog.items, embeddings={"semantic": catalog.embeddings["semantic"][::-1]})
    with pytest.raises(CatalogError, match="their text vectors differ from those it was trained with"):
        pairs[0][0].set_catalog(other)
    other.save(folder / "catalog")
    with pytest.raises(CatalogError, match="their text vectors differ from those it was trained with"):
        ask(folder)


def test_saving_in_two_calls_gives_what_one_call_gives(folder, folders, pairs):
    model, processor = pairs[1]
    model.save_pretrained(folder)
    with pytest.raises(CheckpointError, match="was saved with another model"):
        AutoProcessor.from_pretrained(folder)
    processor.save_pretrained(folder)
    assert ask(folder) == ask(folders[1]) != ask(folders[0])


def test_results_of_other_weights_are_deleted(folder, pairs):
    (folder / "notes.txt").write_text("mine")
    save = pairs[0][0].save_pretrained
    save(folder)
    assert (folder / "results.json").is_file()  # of these weights
    pairs[1][0].save_pretrained(folder)
    assert not (folder / "results.json").exists() and not (folder / "results_manifest.json").exists()
    assert (folder / "notes.txt").read_text() == "mine"
    with replace_part(folder, "results") as new:
        (new / "results.json").write_text("{}")
    save_checkpoint(*pairs[0], folder)
    assert not (folder / "results.json").exists() and (folder / "notes.txt").read_text() == "mine"


def test_a_model_saved_over_an_older_version_leaves_its_processor_to_the_old_weights(folder, pairs):
    without_manifests(folder)
    pairs[0][0].save_pretrained(folder)
    AutoProcessor.from_pretrained(folder)
    without_manifests(folder)
    pairs[1][0].save_pretrained(folder)
    with pytest.raises(CheckpointError, match="was saved with another model"):
        AutoProcessor.from_pretrained(folder)
    assert not (folder / "results.json").exists()


def test_shards_replace_one_file_and_one_file_shards(folder, folders, pairs):
    pairs[0][0].save_pretrained(folder, max_shard_size="4KB")
    assert not (folder / WEIGHTS).exists() and len(list(folder.glob("model-*.safetensors"))) > 1
    assert ask_model(folder) == ask_model(folders[0])
    pairs[0][0].save_pretrained(folder)
    assert (folder / WEIGHTS).exists() and list(folder.glob("model-*")) == []


def ask_model(folder):
    return {name: tensor.sum().item() for name, tensor in AutoModel.from_pretrained(folder).state_dict().items()}


def test_weights_that_are_not_of_a_checkpoint_load_as_transformers_does(tmp_path):
    """`from_t5` and the like start from weights that lack ours; a model without a catalogue is no checkpoint."""
    model, _ = make_intsr()
    plain = type(model)(type(model.config)(num_items=3, text_size=0, hidden_size=8, num_hidden_layers=1))
    plain.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert torch.equal(loaded.items.ids.weight, plain.items.ids.weight)


def save_in_two_calls(model, processor, folder):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("save", [save_checkpoint, save_in_two_calls])
def test_a_checkpoint_is_old_or_new_wherever_the_process_is_killed(folders, pairs, tmp_path, capsys, save):
    """Prints the counts; two calls have a moment in which the processor of the old model is refused."""
    old, new = ask(folders[0]), ask(folders[1])
    states, leftovers, kill_at, killed = collections.Counter(), 0, 1, True
    while killed:
        folder = shutil.copytree(folders[0], tmp_path / str(kill_at) / "model")
        killed = run_killed(lambda folder=folder: save(*pairs[1], folder), kill_at)
        try:
            found = ask(folder)
            states["old" if found == old else "new" if found == new else "neither"] += 1
        except CheckpointError as error:
            assert "The processor" in str(error) and "with another model" in str(error)
            states["refused"] += 1
        save(*pairs[1], folder)
        assert ask(folder) == new
        leftovers += len(list(folder.parent.rglob("*.seekrec-*"))) + (len(list(folder.parent.iterdir())) - 1)
        kill_at += 1
    with capsys.disabled():
        sys.stdout.write(f"\n{save.__name__}: {kill_at - 2} kill points: {dict(states)}, leftovers {leftovers}\n")
    assert states["neither"] == leftovers == 0 and states["old"] and states["new"]
    assert states["refused"] == 0 or save is save_in_two_calls


def test_an_encoder_that_only_the_checkpoint_names_is_not_loaded(folder):
    (folder / "processor_manifest.json").unlink()
    change(folder / SETTINGS, text_encoder="attacker/encoder")
    processor = AutoProcessor.from_pretrained(folder)
    processor([Request(query="red 0")])  # known
    with pytest.raises(ConfigurationError, match="names the text encoder 'attacker/encoder' .* Pass `text_encoder=`"):
        processor([Request(query="never logged")])
    trusted = AutoProcessor.from_pretrained(folder, text_encoder="/mine/encoder")
    assert (trusted.query_vectors.encoder_name, trusted.query_vectors.encoder_is_trusted) == ("/mine/encoder", True)
    assert trusted.to_dict()["text_encoder"] == "encoder"  # a place of this machine is not published


@pytest.mark.parametrize(
    ("make", "settings", "old"),
    [
        (
            make_intsr,
            {"item_reading": ["text"], "relative_bias": "buckets", "without": ["session_mask"]},
            {"use_ids": False, "time_bias": "buckets", "use_position_bias": True, "max_position_distance": 48}
            | {"attention_scale": "visible", "num_hard_negatives": 20, "negatives": "sampled", "similarity": "dot"}
            | {"use_scenario_tokens": True, "use_session_mask": False, "use_dsfnet": True, "align_candidates": True}
            | {"temperature": 1.0, "num_scenarios": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-6},
        ),
        (
            make_synergen,
            {"time_encoding": "learned_both", "time_scales": [4.0, 400.0], "dropout": [0.1, 0.2]},
            {"time_encoding": "both", "learn_time_scales": True, "min_period": 4.0, "max_period": 400.0}
            | {"dropout": 0.1, "embedding_dropout": 0.2, "fusion_size": 24, "rank_by": "ranking"}
            | {"use_ids": True, "easy_negatives": "in_batch", "correct_popularity": True, "use_session_mask": True}
            | {"align_tasks": True, "use_question_action": True, "rotary_fraction": 1.0, "pairwise_weight": 1.0},
        ),
    ],
)
def test_a_checkpoint_with_the_settings_of_earlier_versions_answers_as_it_did(tmp_path, make, settings, old):
    model, processor = make(**settings)
    save_checkpoint(model, processor, tmp_path)
    without_manifests(tmp_path)
    content = json.loads((tmp_path / CONFIG).read_text())
    of_today = (
        *("item_reading", "relative_bias", "session_ids", "without"),
        *("num_training_negatives", "time_scales"),
    )
    kept = {name: value for name, value in content.items() if name not in of_today}
    (tmp_path / CONFIG).write_text(json.dumps({**kept, **old}))
    loaded, again = AutoModel.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    assert again.max_history == 12
    inputs = processor(REQUEST, candidates=[["i1", "i9", "i20"]])
    pairs = [
        (loaded.retrieve(again(REQUEST), top_k=5), model.retrieve(inputs, top_k=5)),
        (loaded.rank(inputs), model.rank(inputs)),
    ]
    for found, expected in pairs:
        assert_same_scores(found, expected)
        # Scores may be rounded otherwise; items, their order and their titles are the same.
        own, its = ([[replace(item, score=0.0) for item in answer] for answer in one] for one in (found, expected))
        assert own == its


def save_processor_first(model, processor, folder):
    processor.save_pretrained(folder)
    model.save_pretrained(folder)


@pytest.mark.parametrize("owner", ["model", "processor"])
@pytest.mark.parametrize("save", [save_checkpoint, save_in_two_calls, save_processor_first])
def test_two_catalogues_are_not_saved_as_one(tmp_path, save, owner):
    """What only one of the two holds would be gone; equal catalogues need not be one object."""
    model, processor = make_intsr()
    removed = model.catalog.remove_items(["i1"])  # as many items, and others
    number = len(removed)
    (model if owner == "model" else processor).set_catalog(removed)
    said = rf"{number} items .*{number} .*`processor\.set_catalog\(model\.catalog\)` or .*nothing was written"
    with pytest.raises(CatalogError, match=said):
        save(model, processor, tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    if save is save_checkpoint:
        assert written == set()
    else:  # what was saved first stays as it was
        first = (model if save is save_in_two_calls else processor).catalog
        assert ("config.json" in written) != (SETTINGS in written)
        assert Catalog.load(tmp_path).content_hash == first.content_hash
    model.set_catalog(removed)
    processor.set_catalog(replace(removed, items=removed.items.slice(0)))
    save(model, processor, tmp_path / "one")
    assert AutoProcessor.from_pretrained(tmp_path / "one").catalog.content_hash == removed.content_hash


def test_the_catalogue_of_a_saved_pair_is_changed_by_the_model_first(folder):
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    removed = model.catalog.remove_items(["i1"])
    processor.set_catalog(removed)
    with pytest.raises(CatalogError, match=r"holds a model and its catalogue of"):
        processor.save_pretrained(folder)
    model.set_catalog(removed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert model.catalog is processor.catalog
    assert model.catalog.content_hash == removed.content_hash
