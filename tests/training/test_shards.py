# SPDX-License-Identifier: Apache-2.0
"""Windows in shards: the windows of the log in memory, each once an epoch, however many processes share it."""

import json
import os
import socket

import numpy as np
import pyarrow as pa
import pytest
from accelerate.data_loader import BatchSamplerShard, skip_first_batches
from torch import multiprocessing, nn
from torch.utils.data import BatchSampler, DataLoader
from transformers import TrainingArguments

from seekrec.corpora.partitioned import CorpusShards
from seekrec.corpora.shards import ShardWriter, finish_shards
from seekrec.corpora.training_windows import build_training_windows, log_actions
from seekrec.corpora.window_shards import WindowShards, write_window_shards
from seekrec.errors import ConfigurationError, DataError
from seekrec.events import split_log
from seekrec.events.partitions import Job, PartitionedSplit, partition_log, split_partitions
from seekrec.events.partitions.training_facts import gather_training_facts
from seekrec.events.simulator import simulate
from seekrec.schema import IdMap
from seekrec.training.coded_rows import CodedRows
from seekrec.training.shards import ShardCollator, ShardSampler
from seekrec.training.trainer import GenerativeTrainer
from seekrec.util.files import write_json

NUM_ITEMS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    simulate(6_000, num_items=NUM_ITEMS, seed=5).write(folder / "raw")
    log = partition_log(folder / "raw/events", folder / "raw/items.parquet", folder / "log", num_partitions=3)
    split_partitions(log, folder / "split")
    return folder


@pytest.fixture(scope="module")
def split(folder):
    return PartitionedSplit.load(folder / "split")


@pytest.fixture(scope="module")
def facts(folder, split):
    return gather_training_facts(split, folder / "facts")


@pytest.fixture(scope="module")
def in_memory():
    return split_log(simulate(6_000, num_items=NUM_ITEMS, seed=5).log)


@pytest.fixture(scope="module")
def shards(folder, split, facts):
    return write_window_shards(split, folder / "windows", facts, max_history=10, session_ids="page_view")


def described(windows, queries, user_ids):
    """Every window as a value: what a batch of it alone holds, its user and its queries by name."""
    names = [*queries, None]
    found = []
    for number in range(len(windows)):
        batch = windows.batch([number])
        for name in ("history_query_rows", "question_query_rows"):
            batch[name] = np.array([[names[row] for row in batch[name][0]]], dtype=object)
        batch["shown_item_rows"].sort(axis=2)
        user = user_ids[int(windows.user_rows(np.array([number]))[0])]
        found.append((user, *((name, batch[name].tolist()) for name in sorted(batch))))
    return sorted(found, key=repr)


def test_shards_hold_the_windows_of_the_log_in_memory(split, shards, facts, in_memory):
    id_map = IdMap(in_memory.log.items["item_id"].to_pylist())
    windows = build_training_windows(
        in_memory, id_map, actions=log_actions(in_memory), max_history=10, session_ids="page_view"
    )
    users = in_memory.log.events["user_id"].combine_chunks().take(in_memory.timeline.first_rows()).to_pylist()
    own = [
        user
        for part in split
        for user in part.log.events["user_id"].combine_chunks().take(part.timeline.first_rows()).to_pylist()
    ]
    assert len(shards) == len(windows) > 600
    assert described(shards, shards.queries, own) == described(windows, windows.queries, users)
    assert (shards.question_counts(NUM_ITEMS) == windows.question_counts(NUM_ITEMS)).all()
    pairs = [{(i, w.queries[q]) for i, q in w.searched_pairs().tolist()} for w in (shards, windows)]
    assert pairs[0] == pairs[1]
    acted = [
        {(names[key // NUM_ITEMS], key % NUM_ITEMS) for key in w.acted_pairs(NUM_ITEMS).tolist()}
        for w, names in ((shards, own), (windows, users))
    ]
    assert acted[0] == acted[1] and (np.diff(shards.acted_pairs(NUM_ITEMS)) > 0).all()
    # What is known of the whole log before.
    assert list(facts.action_counts) == log_actions(in_memory)
    rows = in_memory.training_interactions()
    first = np.full(NUM_ITEMS, np.iinfo(np.int64).max)
    np.minimum.at(first, in_memory.timeline.item[rows], in_memory.timeline.timestamp[rows])
    assert (facts.first_times == first).all()


def test_an_interrupted_run_goes_on_and_other_settings_begin_anew(folder, split, facts, shards):
    target = folder / "again"
    write_window_shards(split, target, facts, max_history=10, session_ids="page_view")
    kept = target / "shard-00000/windows.arrow"
    stamp = kept.stat().st_mtime_ns
    (target / "shards.json").unlink()
    for path in (target / "shard-00002").iterdir():
        path.unlink()
    (target / "shard-00002").rmdir()
    with pytest.raises(DataError, match="shards.json"):
        WindowShards(target)
    assert write_window_shards(split, target, facts, max_history=10, session_ids="page_view").fingerprint == (
        shards.fingerprint
    )
    assert kept.stat().st_mtime_ns == stamp
    longer = write_window_shards(split, target, facts, max_history=20, session_ids="page_view")
    assert len(longer) < len(shards) and longer.fingerprint != shards.fingerprint


def test_a_log_that_is_made_anew_in_its_folder_is_read_anew(tmp_path):
    rows = [(f"u{user}", 10 * time + user, (user * time + time) % 7) for user in range(4) for time in range(6)]
    users, times, items = zip(*rows, strict=True)
    events = pa.table({"user_id": users, "timestamp": times, "item_id": [f"i{item}" for item in items]})
    counts = []
    for run, order in enumerate((range(7), range(6, -1, -1))):
        ids = [f"i{item}" for item in order]
        log = partition_log(
            events, pa.table({"item_id": ids, "title": ids}), tmp_path / "log", num_partitions=2, has_time=False
        )
        split = split_partitions(log, tmp_path / "split")
        facts = gather_training_facts(split, tmp_path / f"facts{run}")
        windows = write_window_shards(split, tmp_path / f"windows{run}", facts, session_ids="page_view")
        counts.append(windows.question_counts(7))
    # The same acts, with the items numbered from the other end.
    assert (counts[1] == counts[0][:, ::-1]).all() and (counts[1] != counts[0]).any()


def share(rank, folder):
    """What each of two processes reads in an epoch, and from its fourth batch on."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": (folder / "port").read_text()}
    shards = CorpusShards(folder / "corpus")
    arguments = TrainingArguments(
        str(folder / "trainer"), per_device_train_batch_size=8, use_cpu=True, ddp_backend="gloo", report_to="none"
    )
    arguments.remove_unused_columns = False
    trainer = GenerativeTrainer(
        model=nn.Linear(1, 1),
        args=arguments,
        train_dataset=CodedRows(len(shards)),
        data_collator=ShardCollator(shards, lambda rows: {"input_ids": [row["input_ids"] for row in rows]}),
        sampler=ShardSampler(shards, batch_size=8, num_processes=arguments.world_size, seed=3, buffer_size=100),
    )
    loader = trainer.get_train_dataloader()
    read = [batch["input_ids"] for batch in loader]
    rest = [batch["input_ids"] for batch in skip_first_batches(loader, 3)]
    (folder / f"read-{rank}.json").write_text(json.dumps([read, rest]))


@pytest.mark.slow
def test_two_processes_read_each_row_once_and_go_on_where_they_were(tmp_path):
    (tmp_path / "corpus/shard-00000").mkdir(parents=True)
    jobs = [Job(str(tmp_path / "corpus/shard-00000"))]
    with ShardWriter(tmp_path / "corpus/shard-00000/histories.arrow", "histories") as writer:
        writer.write(pa.record_batch({"input_ids": [[row] for row in range(217)]}))
    write_json(tmp_path / "corpus/shard-00000/facts.json", {"shards": writer.describe()})
    finish_shards(tmp_path / "corpus", jobs, {})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]))
    multiprocessing.spawn(share, (tmp_path,), nprocs=2)
    found = [json.loads((tmp_path / f"read-{rank}.json").read_text()) for rank in range(2)]
    # 217 rows are 13 global batches of 16 and 9 rows: 14 batches for each.
    assert [len(read) for read, _ in found] == [14, 14]
    assert sorted(row for read, _ in found for batch in read for (row,) in batch) == list(range(217))
    assert all(rest == read[3:] for read, rest in found)


def batches_of(shards, num_processes, epoch, **options):
    """The batches of each process, as accelerate deals them."""
    sampler = ShardSampler(shards, batch_size=8, num_processes=num_processes, seed=3, **options)
    sampler.set_epoch(epoch)
    whole = BatchSampler(sampler, 8, drop_last=False)
    assert len(whole) == -(-len(sampler) // 8)
    # One process takes the batches as they are.
    return (
        [list(whole)]
        if num_processes == 1
        else [list(BatchSamplerShard(whole, num_processes, rank)) for rank in range(num_processes)]
    )


@pytest.mark.parametrize("num_processes", [1, 2, 5])
def test_processes_share_an_epoch(shards, num_processes):
    for epoch, buffer_size in ((0, 100), (3, 1 << 20)):
        dealt = batches_of(shards, num_processes, epoch, buffer_size=buffer_size)
        assert len({len(of_rank) for of_rank in dealt}) == 1
        codes = [code for of_rank in dealt for batch in of_rank for code in batch if code >= 0]
        assert sorted(codes) == list(range(epoch * len(shards), (epoch + 1) * len(shards)))
        assert all(max(batch) >= 0 for of_rank in dealt for batch in of_rank)
        again = batches_of(shards, num_processes, epoch, buffer_size=buffer_size)
        assert dealt == again != batches_of(shards, num_processes, epoch + 1, buffer_size=buffer_size)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_epoch_goes_on_with_the_batches_that_would_have_followed(shards, num_workers):
    sampler = ShardSampler(shards, batch_size=8, seed=3)
    loader = DataLoader(
        CodedRows(len(shards)), batch_size=8, sampler=sampler, num_workers=num_workers, collate_fn=shards.batch
    )
    batches = [batch["labels"].tolist() for batch in loader]
    rest = [batch["labels"].tolist() for batch in skip_first_batches(loader, 5)]
    assert rest == batches[5:] and len(rest) > 50


def test_processes_that_cannot_share_what_is_left_over_are_refused(shards):
    odd = next(number for number in (2, 3, 5, 7) if len(shards) % number)
    with pytest.raises(ConfigurationError, match="give `per_device_train_batch_size` 2 or more"):
        ShardSampler(shards, batch_size=1, num_processes=odd)
    with pytest.raises(ConfigurationError, match="start fewer of them"):
        ShardSampler(shards, batch_size=8, num_processes=len(shards) + 1)
