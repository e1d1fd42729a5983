# SPDX-License-Identifier: Apache-2.0
"""The clock ends stages before training: with what they have, said, and under a key of their own."""

import functools
import json

import numpy as np
import pytest

from seekrec.embeddings import SASRecConfig, SASRecForNextItem
from seekrec.embeddings.semantic import embed_texts
from seekrec.embeddings.timed import embed_in_time
from seekrec.errors import ConfigurationError
from seekrec.identifiers import DualRQVAEConfig, DualRQVAEModel
from seekrec.models.dense import QueryVectors
from seekrec.recipes.stages import SHARE_OF_A_STAGE, StageCache
from seekrec.training.budget import PartTimes, StageTime
from seekrec.training.identifiers import train_dual_rqvae
from seekrec.training.sasrec import train_sasrec


class Clock:
    """Stands still until somebody works."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_stage_that_was_cut_short_is_found_by_runs_of_as_many_minutes_alone(tmp_path, caplog):
    clock, calls = Clock(), []

    def run(minutes, needed):
        cache = StageCache(tmp_path, max_minutes=minutes, clock=clock)
        time = cache.make_time()

        def make(folder):
            calls.append(minutes)
            if time is not None and needed > time.seconds_left():
                time.left_out = "half of it"
            (folder / "x").write_text(f"{minutes} minutes")

        found = cache.run("s", {"a": 1}, make, lambda folder: (folder / "x").read_text(), time=time)
        return found, cache.left_out

    clock.now = 20.0
    # A quarter of the 40 seconds that are left.
    assert SHARE_OF_A_STAGE == 0.25
    assert run(1, needed=11) == ("1 minutes", {"s": "half of it"})
    assert "s: there was no time for half of it, of a run of 1 minutes" in caplog.text
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("s-*/stage.json"))
    assert record["left_out"] == "half of it"
    assert run(1, needed=11) == ("1 minutes", {"s": "half of it"}) and calls == [1]
    # More minutes make it anew, and so does a run without a limit; whole, it is taken by all.
    assert run(2, needed=26) == ("2 minutes", {"s": "half of it"})
    assert run(None, needed=1000) == ("None minutes", {})
    assert run(1, needed=11) == ("None minutes", {}) and calls == [1, 2, None]


def test_what_follows_the_stages_has_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr("seekrec.recipes.stages.share_of_core", lambda: 0.5)
    clock = Clock()
    clock.now = 10.0
    cache = StageCache(tmp_path, max_minutes=2, clock=clock)
    clock.now = 30.0
    cache.set_reserve("the log was read")
    # Reading took 20 seconds; half of the time this process waits for others.
    assert cache.reserve == 1.5 * 20 + 6 / 0.5
    assert cache.make_time().seconds_left() == SHARE_OF_A_STAGE * (90 - 42)
    clock.now = 90.0
    assert cache.make_time().seconds_left() == 0.0
    # Reading that took 90 of 120 seconds needs 147 more.
    with pytest.raises(
        ConfigurationError,
        match="`max_minutes` is 2, but 1.7 minutes had passed when the log was read; give at least 4.2,",
    ):
        clock.now = 100.0
        cache.set_reserve("the log was read")
    free = StageCache(tmp_path, clock=clock)
    free.set_reserve("it began")
    assert free.make_time() is None and free.seconds_left() == np.inf


def test_parts_share_what_is_left_by_what_they_are_expected_to_need():
    clock = Clock()
    time = PartTimes(60.0, 180.0, clock, {"full": 20.0, "forms": 10.0, "new": 10.0}, in_all={})
    full = time.take("full")
    assert full.seconds_left() == 30 and full.fit_cases(100) == 100 and full.left_out is None
    clock.now = 40.0
    # It took longer than its share: the others have half of the rest each, and as many cases as fit.
    forms = time.take("forms")
    assert forms.seconds_left() == 10 and forms.fit_cases(300) == 300
    clock.now = 56.0
    new = time.take("new")
    assert new.seconds_left() == 4 and new.fit_cases(100) == 40 and new.left_out == "60 of 100 cases"
    clock.now = 59.0
    assert new.fit_cases(100) == 0 and new.left_out == "100 of 100 cases"
    assert list(time.taken) == ["full", "forms", "new"]
    # Halves of a part are halves of what it is expected to need.
    assert full.part(0.5).expected == 10


def sequences(num_users, num_items=30):
    rng = np.random.default_rng(0)
    return [rng.integers(num_items, size=12) for _ in range(num_users)]


@pytest.fixture
def ticking(monkeypatch):
    """A clock, and how long a forward pass takes: a list of which each pass takes one, and then the last."""
    clock, seconds = Clock(), [1.0]
    for model in (SASRecForNextItem, DualRQVAEModel):
        forward = model.forward

        @functools.wraps(forward)
        def tick(self, *args, forward=forward, **kwargs):
            if self.training:
                clock.now += seconds[0] if len(seconds) == 1 else seconds.pop(0)
            return forward(self, *args, **kwargs)

        monkeypatch.setattr(model, "forward", tick)
    return clock, seconds


def fit_sasrec(folder, time, num_users=400):
    config = SASRecConfig(num_items=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, max_history=12)
    validation = [(np.array([1, 2]), 3), (np.array([4]), 5)]
    return train_sasrec(
        sequences(num_users), validation, config, output_dir=folder, num_epochs=2, batch_size=4, seed=0, time=time
    )


def test_sasrec_trains_the_steps_that_fit_or_ends_by_the_clock(tmp_path, ticking):
    clock, seconds = ticking
    # 200 steps of a second each (1.15 with the optimizer): 6 are tried in a tenth of the time, then 0.9 of what is
    # left is planned.
    time = StageTime(50.0, 180.0, clock)
    model = fit_sasrec(tmp_path / "part", time)
    left = int(time.left_out.split()[0])
    assert time.left_out.endswith("of 200 steps") and 200 - left == int(0.9 * 44 / 1.15)
    assert clock.now <= 50 and np.isfinite(model.item_embeddings()).all()

    # Slower than it was when it was tried: the clock ends it.
    clock.now = 0.0
    seconds[:] = [1.0] * 10 + [5.0]
    time = StageTime(50.0, 180.0, clock)
    fit_sasrec(tmp_path / "slow", time)
    assert 200 - int(time.left_out.split()[0]) < 15 and 45 <= clock.now <= 55

    # With time for all it is what it is without a limit.
    clock.now, seconds[:] = 0.0, [1.0]
    time = StageTime(10_000.0, 40_000.0, clock)
    limited, free = fit_sasrec(tmp_path / "all", time), fit_sasrec(tmp_path / "free", None)
    assert time.left_out is None and np.array_equal(limited.item_embeddings(), free.item_embeddings())


def test_identifiers_are_learnt_as_long_as_there_is_time(tmp_path, ticking):
    clock, _ = ticking
    vectors = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    config = DualRQVAEConfig(
        views=["semantic"], semantic_size=6, num_shared_levels=0, num_specific_levels=2, codebook_size=4
    )
    time = StageTime(30.0, 180.0, clock)
    model = train_dual_rqvae(
        vectors,
        None,
        config,
        output_dir=tmp_path / "learner",
        num_epochs=20,
        learning_rate=1e-3,
        batch_size=8,
        show_progress=False,
        time=time,
    )
    assert time.left_out.endswith("of 200 steps") and clock.now <= 31
    assert model.encode(vectors, None).codes["semantic"].shape[0] == 80


class Topics:
    """Embeds a text as the sum of its words' vectors; a batch takes a second."""

    def __init__(self, clock):
        self.clock, self.words = clock, {}

    def encode(self, texts, batch_size, **kwargs):
        assert len(texts) <= batch_size
        self.clock.now += 1.0
        found = []
        for text in texts:
            for word in text.split():
                self.words.setdefault(word, np.random.default_rng(len(word) * 1000 + ord(word[0])).normal(size=16))
            found.append(sum(self.words[word] for word in text.split()))
        return np.array(found) / np.linalg.norm(found, axis=1, keepdims=True)


def test_texts_that_there_is_no_time_for_are_made_of_their_words():
    words = ["lamp", "kettle", "sofa", "灯具 台灯", "rug", "mirror", "candle stick", "shelf"]
    rng = np.random.default_rng(1)
    texts = [" ".join(words[place] for place in rng.choice(len(words), 2, replace=False)) for _ in range(640)]
    texts[5] = "unheard"
    clock = Clock()
    # A fifth of it is for the others.
    time = StageTime(4.5, 60.0, clock)
    vectors, is_embedded = embed_in_time(texts, encoder=Topics(clock), seconds_left=time.seconds_left)
    time.note_texts(is_embedded)
    assert clock.now == 4.0 and is_embedded.sum() == 256 and time.left_out == "384 of 640 texts"
    true = embed_texts(texts, encoder=Topics(Clock()), batch_size=10_000)
    assert np.array_equal(vectors[is_embedded], true[is_embedded])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = (vectors * true).sum(axis=1)[~is_embedded & (np.arange(640) != 5)]
    others = vectors[~is_embedded] @ true.T
    assert np.median(cosines) > 0.98 and cosines.min() > 0.9 and others.mean() < 0.3
    # With time for all they are those of the encoder, in the order of the texts.
    vectors, is_embedded = embed_in_time(texts, encoder=Topics(Clock()), seconds_left=lambda: 1.0)
    assert is_embedded.all() and np.array_equal(vectors, true)


def test_a_query_that_was_not_embedded_is_when_it_is_asked():
    clock = Clock()
    vectors = QueryVectors()
    vectors._encoder = Topics(clock)
    texts = [f"{first} {second}" for first in "abcdefghijklmn" for second in ("lamp", "rug", "sofa", "灯具")] * 4
    texts = [f"{text} {'x' * (number % 9 + 1)}" for number, text in enumerate(texts)]
    time = StageTime(1.5, 60.0, clock)
    found, is_kept = vectors.add_in_time(texts, time.seconds_left)
    assert clock.now == 2.0 and is_kept.sum() == 128 and 0 < len(vectors) <= 128
    assert np.array_equal(
        vectors.encode([text for text, kept in zip(texts, is_kept, strict=True) if kept]), found[is_kept]
    )
    assert clock.now == 2.0
    missing = [text for text, kept in zip(texts, is_kept, strict=True) if not kept][:10]
    exact, made = vectors.encode(missing), found[~is_kept][:10]
    assert clock.now > 2.0 and not np.array_equal(exact, made) and ((exact * made).sum(axis=1) > 0.5).all()
