# SPDX-License-Identifier: Apache-2.0
"""A folder belongs to one training: another setting, other data or another start is another training."""

import copy

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from transformers import TrainingArguments

from seekrec.models import GenSRConfig, IntSRConfig
from seekrec.recipes.arguments import DataArguments, EvaluationArguments
from seekrec.recipes.windows import WindowArguments
from seekrec.training.identity import IDENTITY_FILE, Identity, claim_folder, content_digest, training_identity
from seekrec.util.ragged import Ragged
from seekrec.util.settings import option_names


def identity(*, bias=0.0, settings=(), origins=(), contents=None, **training):
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.fill_(bias)
    arguments = TrainingArguments(use_cpu=True, **({"num_train_epochs": 2} | training))
    return training_identity(model, arguments, settings, {"split": "a", **(contents or {})}, origins=origins)


SAME = [
    {"output_dir": "elsewhere"},
    {"logging_steps": 7, "disable_tqdm": True, "save_total_limit": 1, "report_to": "none"},
    {
        "origins": (DataArguments(data_dir="elsewhere"),),
        "settings": (EvaluationArguments(max_test_cases=3, baselines=["none"]),),
    },
]
OTHER = [
    ({"learning_rate": 1e-3}, "`learning_rate` was 5e-05 and is 0.001"),
    ({"seed": 9}, "`seed` was 42 and is 9"),
    ({"settings": (EvaluationArguments(max_validation_cases=5),)}, "`max_validation_cases` was 2000"),
    ({"contents": {"split": "b"}}, "split differs"),
    ({"contents": {"validation": ["search", "full"]}}, "validation differs"),
    ({"bias": 1e-7}, "the model before training differs"),
    ({"num_train_epochs": 1}, "`num_train_epochs` was 2.0 and is 1.0"),
    ({"max_steps": 5}, "`max_steps` was -1.0 and is 5.0"),
]


def base(**changes):
    return identity(**({"origins": (DataArguments(),), "settings": (EvaluationArguments(),)} | changes))


@pytest.mark.parametrize("changes", SAME, ids=str)
def test_what_leaves_the_weights_as_they_are_is_the_same_training(changes):
    assert base(**changes).goes_on_from(base()) and base(**changes).name() == base().name()


@pytest.mark.parametrize(("changes", "said"), OTHER, ids=str)
def test_anything_else_is_another_training_and_is_named(changes, said):
    other = base(**changes)
    assert not other.goes_on_from(base()) and other.name() != base().name()
    assert said in "; ".join(other.differences(base()))


def test_how_a_model_answers_is_no_matter_of_its_training():
    def trained(**answers):
        model, config = nn.Linear(2, 2), GenSRConfig(**answers)
        model.config = config
        with torch.no_grad():
            model.weight.zero_()
            model.bias.zero_()
        return training_identity(model, TrainingArguments(use_cpu=True), [config], {})

    before = trained(retrieve_by="answer")
    assert trained(retrieve_by="views", view_weights=["validation"]).goes_on_from(before)
    assert not trained(retrieve_by="answer", max_history=3).goes_on_from(before)


def test_more_epochs_go_on_where_all_else_is_the_same():
    assert base(num_train_epochs=3).goes_on_from(base())
    assert not base(num_train_epochs=3, seed=1).goes_on_from(base())


def test_other_processes_go_on_where_a_step_reads_as_much():
    two = base(per_device_train_batch_size=4)
    two.settings["num_processes"] = 2
    assert two.goes_on_from(base()) and base().goes_on_from(two) and two.name() != base().name()
    two.settings["per_device_train_batch_size"] = 8
    assert not two.goes_on_from(base()) and "`num_processes` was 1 and is 2" in two.differences(base())


def test_every_setting_of_a_family_counts_unless_it_is_known_not_to():
    """A setting that is added tomorrow is one that changes the weights until somebody says otherwise."""
    for group in (WindowArguments(), IntSRConfig()):
        for name in set(option_names(type(group))) - set(getattr(group, "after_training", ())):
            changed = copy.copy(group)
            object.__setattr__(changed, name, "something else")
            assert identity(settings=(changed,)).differences(identity(settings=(group,))), name


def test_no_secret_is_written(tmp_path):
    found = identity(hub_token="hf_secret", push_to_hub=False)
    found.write(tmp_path)
    assert "hf_secret" not in (tmp_path / IDENTITY_FILE).read_text()
    assert Identity.read(tmp_path) == found


def train(folder, number):
    """What a training would leave."""
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "weights").write_text(str(number))


def weights(folder):
    path = folder / "checkpoint-1" / "weights"
    return path.read_text() if path.exists() else None


def test_a_folder_of_another_training_is_set_aside_and_taken_back(tmp_path, caplog):
    folder, first, second = tmp_path / "trainer", base(), base(seed=9)
    claim_folder(folder, first)
    train(folder, 1)
    claim_folder(folder, first)
    assert weights(folder) == "1"
    claim_folder(folder, second)
    assert weights(folder) is None
    assert "`seed` was 42 and is 9" in caplog.text and f"moved to {tmp_path / 'trainer'}-{first.name()}" in caplog.text
    train(folder, 2)
    claim_folder(folder, first)
    assert weights(folder) == "1"
    claim_folder(folder, second)
    assert weights(folder) == "2"
    assert Identity.read(folder) == second


def test_a_longer_training_takes_the_place_of_the_shorter(tmp_path):
    folder = tmp_path / "trainer"
    claim_folder(folder, base())
    train(folder, 1)
    claim_folder(folder, base(num_train_epochs=5))
    assert weights(folder) == "1"
    claim_folder(folder, base())  # of 5 epochs the first 2 are not a training of 2
    assert weights(folder) is None


def test_checkpoints_of_nobody_are_not_gone_on_from(tmp_path):
    folder = tmp_path / "trainer"
    folder.mkdir()
    train(folder, 1)
    claim_folder(folder, base())
    assert weights(folder) is None and weights(tmp_path / "trainer-unknown") == "1"
    (folder / IDENTITY_FILE).write_text('{"settings"')
    train(folder, 2)
    claim_folder(folder, base())
    assert weights(folder) is None and weights(tmp_path / "trainer-unknown.2") == "2"


def test_digests_tell_contents_apart():
    table = pa.table({"a": [1, 2]})
    contents = [
        *(None, 1, 1.0, True, "1", [1], [[1]], ["1"], ["1", "1"], ["11"], {"a": 1}, {"b": 1}, {"a": {"b": 1}}),
        *(np.array([1]), np.array([1.0]), np.array([[1]]), torch.tensor([1]), torch.tensor([1.0])),
        *(torch.tensor([1.0], dtype=torch.bfloat16), table, table.slice(1), nn.Linear(1, 1), nn.Linear(1, 2)),
        *(Ragged.from_lists([[1], [2]]), Ragged.from_lists([[1, 2]])),
    ]
    assert len({content_digest(content) for content in contents}) == len(contents)
    assert content_digest(pa.concat_tables([table, table])) == content_digest(pa.table({"a": [1, 2, 1, 2]}))
    assert content_digest({"a": 1, "b": 2}) == content_digest({"b": 2, "a": 1})
    with pytest.raises(TypeError, match="Cannot compute a digest of a object"):
        content_digest(object())
