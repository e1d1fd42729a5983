# SPDX-License-Identifier: Apache-2.0
import shutil

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from seekrec.errors import ConfigurationError, DataError
from seekrec.identifiers import DualRQVAEConfig, DualRQVAEModel
from seekrec.training import identifiers as module
from seekrec.training.identifiers import train_dual_rqvae


def config(**settings) -> DualRQVAEConfig:
    defaults = {
        "semantic_size": 6,
        "collaborative_size": 5,
        "hidden_sizes": [16],
        "latent_size": 4,
        "num_shared_levels": 1,
        "num_specific_levels": 1,
        "codebook_size": 8,
    }
    return DualRQVAEConfig(**{**defaults, **settings})


def vectors(num_items: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Items in a plane of each space, so that there is something to compress."""
    generator = np.random.default_rng(0)
    return tuple(
        (generator.normal(size=(num_items, 2)) @ generator.normal(size=(2, size))).astype(np.float32)
        for size in (6, 5)
    )


def train(folder, num_epochs=6, **arguments) -> DualRQVAEModel:
    defaults = {"learning_rate": 4e-3, "batch_size": 16, "seed": 3, "device": "cpu", "show_progress": False}
    return train_dual_rqvae(
        *vectors(), arguments.pop("config", config()), output_dir=folder, num_epochs=num_epochs, **defaults | arguments
    )


def weights(model: DualRQVAEModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(first: DualRQVAEModel, second: DualRQVAEModel) -> None:
    other = second.state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


class Killed(RuntimeError):
    pass


class KillAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


@pytest.fixture
def kill_at(monkeypatch):
    """Make the next training stop in the middle of nowhere, after some step."""
    original = module.GenerativeTrainer

    def set_step(step):
        class Mortal(original):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                if step is not None:
                    self.add_callback(KillAt(step))

        monkeypatch.setattr(module, "GenerativeTrainer", Mortal)

    return set_step


def test_loss_falls_and_every_parameter_moves(tmp_path):
    given = config()
    before = given.to_dict()
    torch.manual_seed(0)
    model = train(tmp_path, num_epochs=20, learning_rate=2e-2, config=given)
    assert given.to_dict() == before
    assert not model.training
    semantic, collaborative = map(torch.from_numpy, vectors())
    # At the start: the same weights, as the seed says, and the k-means codebooks.
    start = train(tmp_path / "start", num_epochs=1, learning_rate=1e-30, config=given)
    assert model(semantic, collaborative).loss < 0.5 * start.eval()(semantic, collaborative).loss
    after = weights(model)
    unmoved = {name for name, own in weights(start).items() if torch.equal(own, after[name])}
    assert unmoved <= {name for name, _ in model.named_buffers()}
    assert model.has_codebooks


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """So many codes for so few items give the revival work."""
    crowded = config(codebook_size=40)
    return crowded, train(tmp_path_factory.mktemp("whole"), config=crowded)


# 50 items in batches of 16: 4 steps an epoch, 24 in all.
@pytest.mark.parametrize(
    "step", [1, pytest.param(10, marks=pytest.mark.slow), 13, pytest.param(23, marks=pytest.mark.slow)]
)
def test_a_killed_run_ends_as_if_it_had_not_been(step, tmp_path, kill_at, crowded):
    crowded, whole = crowded
    kill_at(step)
    with pytest.raises(Killed):
        train(tmp_path / "killed", config=crowded)
    kill_at(None)
    assert_equal(whole, train(tmp_path / "killed", config=crowded))


def test_a_half_written_checkpoint_is_passed_over(tmp_path, kill_at):
    whole = train(tmp_path / "whole")
    kill_at(14)
    with pytest.raises(Killed):
        train(tmp_path / "killed")
    half = tmp_path / "killed" / "checkpoint-13"
    shutil.copytree(tmp_path / "killed" / "checkpoint-12", half)
    (half / "trainer_state.json").write_text('{"global_step": 1')
    kill_at(None)
    assert_equal(whole, train(tmp_path / "killed"))


def test_a_complete_run_is_loaded_and_not_repeated(tmp_path, kill_at):
    whole = train(tmp_path)
    kill_at(1)
    again = train(tmp_path)
    assert_equal(whole, again)
    assert again.config.to_dict() == whole.config.to_dict()
    assert again.config.name_or_path == ""  # with a catalogue it would be published
    assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == ["checkpoint-24"]


@pytest.mark.parametrize("change", [{"seed": 4}, {"config": config(latent_size=3)}, {"learning_rate": 1e-3}])
def test_other_settings_start_again(change, tmp_path, kill_at):
    train(tmp_path)
    kill_at(1)
    with pytest.raises(Killed):
        train(tmp_path, **change)


def test_other_vectors_start_again(tmp_path, kill_at):
    train(tmp_path)
    semantic, collaborative = vectors()
    kill_at(1)
    with pytest.raises(Killed):
        train_dual_rqvae(
            semantic + 1,
            collaborative,
            config(),
            output_dir=tmp_path,
            num_epochs=6,
            learning_rate=4e-3,
            batch_size=16,
            seed=3,
            device="cpu",
            show_progress=False,
        )


def test_dead_codes_are_revived_and_forgotten_by_the_optimizer(tmp_path, monkeypatch):
    # The first shared level starts with 6 of 8 codes far away from all items; after training all are near.
    original = DualRQVAEModel.initialize_codebooks

    def spoiled(self, *args, **kwargs):
        original(self, *args, **kwargs)
        with torch.no_grad():
            self.stacks["shared"].codebooks[0, 2:] = 1e4

    monkeypatch.setattr(DualRQVAEModel, "initialize_codebooks", spoiled)
    model = train(tmp_path)
    assert model.stacks["shared"].codebooks.abs().max() < 1e3
    assert len(np.unique(model.encode(*vectors()).codes["semantic"][:, 0])) > 2
    moments = torch.load(tmp_path / "checkpoint-24" / "optimizer.pt", weights_only=True)["state"]
    assert all(torch.isfinite(own["exp_avg_sq"]).all() for own in moments.values())


def test_semantic_only(tmp_path):
    semantic, _ = vectors()
    tiger = config(views=["semantic"], num_shared_levels=0, num_specific_levels=2)
    model = train_dual_rqvae(
        semantic, None, tiger, output_dir=tmp_path, num_epochs=1, learning_rate=4e-3, device="cpu", show_progress=False
    )
    assert list(model.encode(semantic).codes) == ["semantic"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_epochs": 0}, "`num_epochs` is 0; it must be positive"),
        ({"batch_size": -1}, "`batch_size` is -1"),
        ({"learning_rate": 0.0}, "`learning_rate` is 0.0"),
        ({"device": "abacus"}, "`device` is 'abacus'; this machine has cpu"),
    ],
)
def test_bad_settings_are_refused(arguments, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        train(tmp_path, **arguments)


def test_no_items(tmp_path):
    with pytest.raises(DataError, match="`semantic` contains no item; pass at least one"):
        train_dual_rqvae(
            np.ones((0, 6)), np.ones((0, 5)), config(), output_dir=tmp_path, num_epochs=1, learning_rate=4e-3
        )
