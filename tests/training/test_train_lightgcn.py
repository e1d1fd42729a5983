import numpy as np
import pytest
import torch

from seekrec.embeddings import InteractionGraph, LightGCNConfig, LightGCNModel
from seekrec.errors import ConfigurationError, DataError, DivergenceError
from seekrec.training.checkpoints import list_checkpoints, read_state
from seekrec.training.lightgcn import GraphValidation, train_lightgcn
from seekrec.training.trainer import GenerativeTrainer

NUM_ITEMS = 12


def halves(num_users=30, seed=0):
    """Users of even number like even items, the others odd ones; each withholds one of its six."""
    generator = np.random.default_rng(seed)
    users, items, histories, targets = [], [], [], []
    for user in range(num_users):
        liked = generator.permutation(np.arange(user % 2, NUM_ITEMS, 2))
        users += [user] * 5
        items += liked[:5].tolist()
        histories.append(liked[:5])
        targets.append(int(liked[5]))
    graph = InteractionGraph([f"u{user}" for user in range(num_users)], np.array(users), np.array(items))
    return graph, GraphValidation(np.arange(num_users), histories, np.array(targets))


def train(folder, *, graph=None, validation=None, **changes):
    settings = {"num_epochs": 4, "batch_size": 50, "seed": 3, "num_evaluations": 2, "learning_rate": 2e-2}
    config = LightGCNConfig(num_items=NUM_ITEMS, hidden_size=8)
    return train_lightgcn(graph or halves()[0], validation, config, output_dir=folder, **(settings | changes))


def test_the_withheld_item_ranks_first(tmp_path):
    graph, validation = halves()
    model = train(tmp_path, validation=validation, num_epochs=40)
    curve = read_state(list_checkpoints(tmp_path)[-1])["log_history"]
    assert [entry["eval_recall@10"] for entry in curve if "eval_recall@10" in entry][-1] == 1.0
    scores = model.score(validation.histories, validation.users).numpy()
    scores[np.repeat(np.arange(30), 5), np.concatenate(validation.histories)] = -np.inf
    # Of the seven items left, six are of the other half.
    assert (scores.argmax(1) == validation.targets).mean() > 0.9
    model.save_pretrained(tmp_path / "model")
    loaded = LightGCNModel.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(loaded.item_embeddings(), model.item_embeddings())


class Killed(Exception):
    pass


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    _, validation = halves()
    whole = train(tmp_path / "whole", validation=validation)
    original = GenerativeTrainer.training_step

    def training_step(self, *args, **kwargs):
        if self.state.global_step == 8:  # of 12, two after a checkpoint
            raise Killed
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(GenerativeTrainer, "training_step", training_step)
        with pytest.raises(Killed):
            train(tmp_path / "cut", validation=validation)
    resumed = train(tmp_path / "cut", validation=validation)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_impossible_settings_are_refused(tmp_path):
    for name in ("num_epochs", "batch_size", "num_evaluations", "num_negatives", "learning_rate"):
        with pytest.raises(ConfigurationError, match=f"`{name}` is 0"):
            train(tmp_path, **{name: 0})
    empty = InteractionGraph(["a"], np.empty(0, np.int64), np.empty(0, np.int64))
    with pytest.raises(DataError, match="no user-item pairs"):
        train(tmp_path, graph=empty)


def test_a_training_that_diverges_stops(tmp_path):
    with pytest.raises(DivergenceError, match="Training of LightGCNModel diverged at step .* a smaller learning rate"):
        train(tmp_path, learning_rate=1e38, num_epochs=20)
    assert not list_checkpoints(tmp_path)
