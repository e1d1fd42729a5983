# SPDX-License-Identifier: Apache-2.0
import shutil

import numpy as np
import pytest
import torch

from seekrec.embeddings import SASRecConfig, SASRecForNextItem, write_sequences
from seekrec.errors import ConfigurationError, DataError, DivergenceError, RequestError
from seekrec.training import sasrec
from seekrec.training.checkpoints import list_checkpoints, read_state
from seekrec.training.embedding_runs import rank_targets
from seekrec.training.sasrec import BlockShuffle, rank_validation, train_sasrec
from seekrec.training.trainer import GenerativeTrainer
from seekrec.util.ragged import Ragged

NUM_ITEMS = 8


def checkerboard(num_users=40, seed=0):
    """Users of even number like even items, the others odd ones; each has all but one, in a random order.

    Gives the sequences without the withheld item, and the pairs (sequence, withheld item).
    """
    generator = np.random.default_rng(seed)
    sequences, withheld = [], []
    for user in range(num_users):
        liked = generator.permutation(np.arange(user % 2, NUM_ITEMS, 2))
        sequences.append(liked[:-1])
        withheld.append((liked[:-1], int(liked[-1])))
    return sequences, withheld


def tiny(**changes):
    settings = {"num_items": NUM_ITEMS, "hidden_size": 16, "num_hidden_layers": 1, "max_history": 6}
    return SASRecConfig(**(settings | changes))


def train(folder, *, sequences=None, validation=None, config=None, **changes):
    settings = {"num_epochs": 6, "batch_size": 8, "seed": 3, "num_evaluations": 3}
    sequences = checkerboard()[0] if sequences is None else sequences
    return train_sasrec(sequences, validation, config or tiny(), output_dir=folder, **(settings | changes))


def curve_of(folder):
    """What the last checkpoint tells of losses and evaluations."""
    entries = read_state(list_checkpoints(folder)[-1])["log_history"]
    return [{name: value for name, value in entry.items() if name != "eval_runtime"} for entry in entries]


def test_withheld_item_ranks_first(tmp_path):
    sequences, withheld = checkerboard()
    model = train(tmp_path, sequences=sequences, validation=withheld, num_epochs=30, learning_rate=1e-2)
    scores = model.score([history for history, _ in withheld])
    for (history, target), row in zip(withheld, scores, strict=True):
        row[history] = -torch.inf
        assert row.argmax().item() == target
    assert rank_validation(model, withheld) == {"recall@10": 1.0, "ndcg@10": 1.0}
    losses = [entry["loss"] for entry in curve_of(tmp_path) if "loss" in entry]
    assert losses[-1] < losses[0] - 0.1


def test_training_can_start_from_a_model(tmp_path):
    first = train(tmp_path / "first", num_epochs=1)
    begun = train(tmp_path / "begun", num_epochs=1, learning_rate=1e-12, start_from=first)
    for name, value in begun.state_dict().items():
        torch.testing.assert_close(value, first.state_dict()[name], rtol=0, atol=1e-7)
    # What it starts from is part of what makes two runs one.
    other = train(tmp_path / "other", num_epochs=1, seed=4)
    again = train(tmp_path / "begun", num_epochs=1, learning_rate=1e-12, start_from=other)
    assert not torch.allclose(again.model.item_embedding.weight, begun.model.item_embedding.weight, atol=1e-3)


def test_every_parameter_moves(tmp_path):
    moved = train(tmp_path / "a", num_epochs=1)
    start = train(tmp_path / "b", num_epochs=1, learning_rate=1e-12)
    still = [
        name
        for name, value in moved.state_dict().items()
        if torch.allclose(value, start.state_dict()[name], rtol=0, atol=1e-7)
    ]
    assert still == []


class Killed(Exception):
    pass


def kill_at(monkeypatch, step):
    """Make the optimizer raise at a step, as a killed process would stop there."""
    original = GenerativeTrainer.training_step

    def training_step(self, *args, **kwargs):
        if self.state.global_step == step:
            raise Killed
        return original(self, *args, **kwargs)

    monkeypatch.setattr(GenerativeTrainer, "training_step", training_step)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """An uninterrupted run: 5 steps an epoch, a checkpoint every 10 steps, 30 steps in all."""
    folder = tmp_path_factory.mktemp("whole")
    sequences, withheld = checkerboard()
    model = train(folder, sequences=sequences, validation=withheld)
    return model.state_dict(), curve_of(folder)


@pytest.mark.parametrize(
    ("step", "is_half_written"), [pytest.param(3, False, marks=pytest.mark.slow), (17, False), (29, True)]
)
def test_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch, whole_run, step, is_half_written):
    sequences, withheld = checkerboard()
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(Killed):
            train(tmp_path, sequences=sequences, validation=withheld)
    if is_half_written:  # killed while it wrote: the checkpoint before must serve
        shutil.copytree(tmp_path / "checkpoint-20", tmp_path / "checkpoint-25")
        (tmp_path / "checkpoint-25/trainer_state.json").write_text('{"epoch": 4')
    weights, curve = whole_run
    resumed = train(tmp_path, sequences=sequences, validation=withheld).state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())
    assert curve_of(tmp_path) == curve


def test_complete_run_is_loaded_and_changed_settings_train_again(tmp_path, monkeypatch):
    first = train(tmp_path, num_epochs=2)
    with monkeypatch.context() as patch:
        kill_at(patch, 0)
        again = train(tmp_path, num_epochs=2)  # would raise if it trained
        assert np.array_equal(again.item_embeddings(), first.item_embeddings())
        with pytest.raises(Killed):
            train(tmp_path, num_epochs=2, learning_rate=2e-3)
        with pytest.raises(Killed):
            train(tmp_path, num_epochs=2, sequences=checkerboard(seed=1)[0])


def test_another_training_is_set_aside(tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        kill_at(patch, 7)
        with pytest.raises(Killed):
            train(tmp_path / "cut", num_epochs=2)
    assert (tmp_path / "cut/checkpoint-5").is_dir()
    fresh = train(tmp_path / "fresh", num_epochs=2, learning_rate=5e-3)
    with caplog.at_level("WARNING", logger="seekrec.training.identity"):
        other = train(tmp_path / "cut", num_epochs=2, learning_rate=5e-3)
    assert "contained another training (`learning_rate` was 0.001 and is 0.005)" in caplog.text
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in fresh.state_dict().items())


def test_last_epoch_is_evaluated_too(tmp_path):
    sequences, withheld = checkerboard()
    train(tmp_path, sequences=sequences, validation=withheld, num_epochs=5, num_evaluations=3)
    curve = curve_of(tmp_path)
    # Three evaluations of five epochs: every second epoch, and the last.
    assert [entry["epoch"] for entry in curve if "eval_ndcg@10" in entry] == [2, 4, 5]


def test_best_weights_are_kept_not_the_last(tmp_path, monkeypatch):
    from seekrec.training import sasrec

    values = iter([0.1, 0.9, 0.2])
    monkeypatch.setattr(sasrec, "rank_validation", lambda *_: {"recall@10": 0.0, "ndcg@10": next(values)})
    best = train(tmp_path / "best", validation=checkerboard()[1])
    monkeypatch.undo()
    with monkeypatch.context() as patch:  # stop where the best checkpoint lies and read it
        kill_at(patch, 20)
        with pytest.raises(Killed):
            train(tmp_path / "cut")
    expected = SASRecForNextItem.from_pretrained(tmp_path / "cut/checkpoint-20")
    assert all(torch.equal(value, best.state_dict()[name]) for name, value in expected.state_dict().items())
    assert read_state(list_checkpoints(tmp_path / "best")[-1])["best_metric"] == 0.9


def test_long_sequences_are_cut_from_the_end_and_no_label_is_lost():
    from seekrec.training.sasrec import SequenceWindows

    # Start token 9, then items 1..8; the last window has `max_history` inputs, the first what is left.
    windows = SequenceWindows(Ragged.from_lists([np.arange(8), [], [4]]), tiny(max_history=3))
    tokens = [windows[number]["tokens"].tolist() for number in range(len(windows))]
    assert tokens == [[5, 6, 7, 8], [2, 3, 4, 5], [9, 1, 2], [9, 5]]


def test_ranking_by_hand():
    class Scores:
        def score(self, histories, batch_size):
            return torch.tensor([[9.0, 5.0, 7.0, 5.0], [1.0, 2.0, 3.0, 4.0]])[: len(histories)]

    # Item 0 is seen; items 1 and 3 tie below item 2: ranks 2 and 3, each in half of the orders.
    first = (np.array([0]), 1)
    assert rank_validation(Scores(), [first]) == {
        "recall@10": 1.0,
        "ndcg@10": pytest.approx((1 / np.log2(3) + 1 / np.log2(4)) / 2, abs=1e-6),
    }
    # A scorer that cannot tell 20 items apart finds the target among the first 10 in half of the orders.
    assert rank_targets(lambda part: torch.zeros(1, 20), [np.array([], np.int64)], np.array([3])) == {
        "recall@10": pytest.approx(10 / 20),
        "ndcg@10": pytest.approx(sum(1 / np.log2(1 + rank) for rank in range(1, 11)) / 20),
    }
    # The second target is in its own history: a miss.
    assert rank_validation(Scores(), [first, (np.array([3, 2]), 3)])["recall@10"] == 0.5


def test_no_item_is_refused(tmp_path):
    with pytest.raises(DataError, match="None of the 1 `sequences` contains an item"):
        train(tmp_path, sequences=[np.array([], np.int64)])


def test_empty_validation_is_refused(tmp_path):
    with pytest.raises(DataError, match="`validation` is empty; pass None"):
        train(tmp_path, validation=[])


def test_unknown_row_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"item row 8, but the model knows rows 0\.\.7"):
        train(tmp_path, sequences=[np.array([1, 8])])


@pytest.mark.parametrize("name", ["num_epochs", "batch_size", "num_evaluations", "learning_rate"])
def test_impossible_settings_are_refused(tmp_path, name):
    with pytest.raises(ConfigurationError, match=f"`{name}` is 0"):
        train(tmp_path, **{name: 0})


def test_a_training_that_diverges_stops(tmp_path):
    with pytest.raises(DivergenceError, match="Training of SASRecForNextItem diverged at step .* a smaller"):
        train(tmp_path, learning_rate=1e38, num_epochs=20)
    assert not (tmp_path / "model.safetensors").exists()


def test_windows_of_a_file_train_the_same_model(tmp_path):
    sequences, withheld = checkerboard()
    mapped = write_sequences(
        [Ragged.from_arrays(sequences[:7]), Ragged.from_arrays(sequences[7:])], tmp_path / "files"
    )
    models = [
        train(tmp_path / name, sequences=given, validation=withheld, config=tiny(max_history=2))
        for name, given in (("memory", sequences), ("files", mapped))
    ]
    weights = [model.state_dict() for model in models]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


@pytest.mark.parametrize("num_windows", [1, 5, 4_321])
def test_a_shuffle_of_blocks_gives_each_window_once(monkeypatch, num_windows):
    monkeypatch.setattr(sasrec, "_BLOCK", 8)
    monkeypatch.setattr(sasrec, "_BLOCKS_OF_BUFFER", 50)
    order = BlockShuffle(num_windows, seed=3)
    epochs = []
    for epoch in (0, 1, 0):
        order.set_epoch(epoch)
        epochs.append(list(order))
        assert sorted(epochs[-1]) == list(range(num_windows)) and len(order) == num_windows
    assert epochs[0] == epochs[2] and (epochs[0] != epochs[1] or num_windows == 1)
    # Neighbours of one block are spread over a buffer.
    assert num_windows < 100 or np.abs(np.diff(epochs[0])).mean() > 100
