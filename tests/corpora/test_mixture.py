# SPDX-License-Identifier: Apache-2.0
from collections import Counter

import numpy as np
import pytest
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from seekrec.corpora import MixtureSampler, build_corpus, mix_tasks, rows_per_epoch
from seekrec.corpora.mixture import input_lengths
from seekrec.errors import ConfigurationError
from seekrec.models import GenSARConfig

NUM_ROWS = {"nrip": 60, "nsip": 40, "desc": 7}
WEIGHTS = {"nrip": 1.0, "nsip": 0.5, "desc": 0.3}


def test_weights_are_shares():
    # The greatest weight is nrip's: its 60 rows are 1 / 1.8 of an epoch of 108, in which the others have 30 and 18.
    assert rows_per_epoch(NUM_ROWS, WEIGHTS) == {"nrip": 60, "nsip": 30, "desc": 18}
    # Two tasks of the greatest weight are passed once together, 100 rows, 50 from each.
    assert rows_per_epoch(NUM_ROWS, {"nrip": 2.0, "nsip": 2.0}) == {"nrip": 50, "nsip": 50, "desc": 0}
    # 10 / 3 each: the odd row goes to the first.
    assert rows_per_epoch(NUM_ROWS, dict.fromkeys(NUM_ROWS, 1.0), 10) == {"nrip": 4, "nsip": 3, "desc": 3}


@settings(max_examples=100, deadline=None)
@given(
    weights=st.lists(st.floats(0, 10), min_size=3, max_size=3).filter(any),
    epoch_size=st.integers(1, 500),
)
def test_shares_add_up_and_are_near(weights, epoch_size):
    counts = rows_per_epoch(NUM_ROWS, dict(zip(NUM_ROWS, weights, strict=True)), epoch_size)
    assert sum(counts.values()) == epoch_size
    for count, weight in zip(counts.values(), weights, strict=True):
        assert abs(count - epoch_size * weight / sum(weights)) < 1 + 1e-6
        assert weight or not count


@pytest.mark.parametrize(
    ("weights", "epoch_size", "message"),
    [
        ({"nrip": -1.0}, None, "The weight of task 'nrip' is -1.0; give a number from 0 up"),
        ({"nrip": float("nan")}, None, "The weight of task 'nrip' is nan"),
        ({"nrip": float("inf")}, None, "The weight of task 'nrip' is inf"),
        ({"NRIP": 1.0}, None, "Task 'NRIP' has weight 1.0 but no rows; give one of nrip, nsip, desc"),
        ({"nrip": 0.0}, None, "No task of .* has a weight above 0"),
        ({"nrip": 1.0}, 0, "`epoch_size` is 0; give 1 or more"),
    ],
)
def test_wrong_weights_are_refused(weights, epoch_size, message):
    with pytest.raises(ConfigurationError, match=message):
        MixtureSampler(NUM_ROWS, weights, epoch_size=epoch_size)


def by_task(rows):
    """Split row numbers of the concatenation by task."""
    rows = np.asarray(rows)
    return {"nrip": rows[rows < 60], "nsip": rows[(rows >= 60) & (rows < 100)] - 60, "desc": rows[rows >= 100] - 100}


@pytest.mark.parametrize("lengths", [None, np.arange(107)])
def test_rows_are_dealt_like_cards(lengths):
    sampler = MixtureSampler(NUM_ROWS, WEIGHTS, seed=3, lengths=lengths, batch_size=8)
    assert len(sampler) == 108
    drawn = {name: [] for name in NUM_ROWS}
    for epoch in range(4):
        sampler.set_epoch(epoch)
        rows = list(sampler)
        assert len(rows) == 108
        for name, numbers in by_task(rows).items():
            assert len(numbers) == sampler.rows_per_epoch[name]
            drawn[name] += numbers.tolist()
            # However far the deal is, no row is more than one turn ahead of another.
            turns = Counter({row: 0 for row in range(NUM_ROWS[name])})
            turns.update(drawn[name])
            assert max(turns.values()) - min(turns.values()) <= 1
    # 4 x 30 of 40 rows: each three times. 4 x 18 of 7 rows: ten or eleven times.
    assert set(Counter(drawn["nsip"]).values()) == {3}
    assert set(Counter(drawn["desc"]).values()) == {10, 11}


def test_order_depends_on_seed_and_epoch_alone():
    def draw(seed, epoch):
        sampler = MixtureSampler(NUM_ROWS, WEIGHTS, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    np.random.seed(1)
    first = draw(0, 2)
    np.random.seed(2)
    assert first == draw(0, 2)
    assert first != draw(0, 1)
    assert first != draw(1, 2)
    # Tasks are mixed, not one after the other.
    assert len({row < 60 for row in first[:30]}) == 2


def test_batches_of_like_length():
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 200, size=1000)
    sampler = MixtureSampler({"nrip": 1000}, {"nrip": 1.0}, lengths=lengths, batch_size=16)
    rows = np.array(list(sampler))
    assert sorted(rows.tolist()) == list(range(1000))
    batches = [lengths[rows[start : start + 16]] for start in range(0, 1000, 16)]
    padding = sum(batch.max() * len(batch) - batch.sum() for batch in batches)
    plain = np.array(list(MixtureSampler({"nrip": 1000}, {"nrip": 1.0})))
    batches_of_plain = [lengths[plain[start : start + 16]] for start in range(0, 1000, 16)]
    assert padding < 0.1 * sum(batch.max() * len(batch) - batch.sum() for batch in batches_of_plain)
    # The batches come in random order, an incomplete one last: 1000 = 62 x 16 + 8.
    assert not (np.diff([batch.mean() for batch in batches[:50]]) > 0).all()
    assert len(batches[-1]) == 8
    sampler.set_epoch(1)
    assert rows.tolist() != list(sampler)


def test_lengths_need_a_batch_size_and_all_rows():
    with pytest.raises(ConfigurationError, match="`batch_size` is None; `lengths` groups batches"):
        MixtureSampler({"nrip": 2}, {"nrip": 1.0}, lengths=np.ones(2))
    with pytest.raises(ConfigurationError, match="`lengths` has 3 entries for 2 rows; give one for each"):
        MixtureSampler({"nrip": 2}, {"nrip": 1.0}, lengths=np.ones(3), batch_size=2)


def test_resumed_loaders_go_on_where_they_were():
    def make_loader():
        sampler = MixtureSampler(NUM_ROWS, WEIGHTS, seed=5, lengths=np.arange(107), batch_size=10)
        return prepare_data_loader(DataLoader(range(107), batch_size=10, sampler=sampler), put_on_device=False)

    whole = []
    loader = make_loader()
    for epoch in range(3):
        loader.set_epoch(epoch)
        whole.append([batch.tolist() for batch in loader])
    # As Trainer does: skip first, then set the epoch.
    resumed = skip_first_batches(make_loader(), 4)
    resumed.set_epoch(1)
    assert [batch.tolist() for batch in resumed] == whole[1][4:]
    after = make_loader()
    after.set_epoch(2)
    assert [batch.tolist() for batch in after] == whole[2]


def test_processes_share_an_epoch_without_overlap():
    def batches_of(process):
        sampler = MixtureSampler(NUM_ROWS, {"nrip": 1.0}, seed=5)
        loader = prepare_data_loader(
            DataLoader(range(107), batch_size=6, sampler=sampler),
            num_processes=2,
            process_index=process,
            put_on_device=False,
        )
        return [row for batch in loader for row in batch.tolist()]

    first, second = batches_of(0), batches_of(1)
    assert len(first) == len(second) == 30
    assert sorted(first + second) == list(range(60))


def test_corpus_as_one_data_set(shop_tools):
    corpus = build_corpus(*shop_tools, GenSARConfig())
    whole, sampler = mix_tasks(corpus, {"nrip": 1.0, "nsip": 1.0}, epoch_size=6, group_by_length=True, batch_size=3)
    assert len(whole) == sum(map(len, corpus.values()))
    tasks = Counter(whole.features["task"].names[whole[row]["task"]] for row in sampler)
    assert tasks == {"nrip": 3, "nsip": 3}
    assert input_lengths(whole).tolist() == [len(row["input_ids"]) for row in whole]
    shuffled = whole.shuffle(seed=0)
    assert input_lengths(shuffled).tolist() == [len(row["input_ids"]) for row in shuffled]
