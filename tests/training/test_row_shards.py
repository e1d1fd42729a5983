# SPDX-License-Identifier: Apache-2.0
"""A table whose rows lie in several processes against the whole table in one: the same, to the last step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from seekrec.embeddings.row_shards import RowShards, replace_table, row_shards, save_rows
from seekrec.models import IntSRForSearchAndRecommendation
from seekrec.training.identity import content_digest
from seekrec.training.row_adamw import RowAdamW, clip_gradients, gather_rows
from seekrec.util.tensor_files import reserve_tensors, write_rows

# What two processes read, step by step; in the last one of them reads nothing, in the second nobody row 6.
BATCHES = [[[0, 1, 1, 6], [6, 2, 4]], [[3], [4, 4, 5]], [[5, 0], []]]


class Net(nn.Module):
    """A table of seven rows, read twice through a layer."""

    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(7, 3, sparse=True), nn.Linear(3, 2)

    def forward(self, rows):
        return (self.layer(self.table(rows)) ** 2).sum() + self.table(rows.flip(0)).sin().sum()


def make_net():
    torch.manual_seed(0)
    return Net()


def step(net, optimizer, loss, *, shards=()):
    optimizer.zero_grad()
    loss.backward()
    norm = clip_gradients(net.parameters(), 0.5, shards=shards)
    optimizer.step()
    return norm


def train_shards(rank, folder):
    """What each of two processes does."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    net = make_net()
    digest = content_digest(net)
    shards = RowShards(net.table)
    replace_table(net, net.table, shards)
    assert row_shards(net) == {"table.weight": shards} and len(shards.weight) == 3 + rank
    assert content_digest(net) == digest
    assert torch.equal(torch.cat([block.clone() for block in shards.blocks()]), make_net().table.weight)
    optimizer = RowAdamW(net.parameters(), lr=0.1)
    shared = DistributedDataParallel(net)
    norms = []
    for batch in BATCHES:
        # Twice the sum, of which the processes take the mean.
        loss = 2 * shared(torch.tensor(batch[rank], dtype=torch.long))
        norms.append(step(net, optimizer, loss, shards=[shards.weight]))
    state = optimizer.state[shards.weight]
    others = {"norms": torch.stack(norms), "layer": net.layer.weight.detach()}
    own = {"weight": (shards, shards.weight), "exp_avg_sq": (shards, state["exp_avg_sq"])}
    save_rows(folder / "found.safetensors" if rank == 0 else None, own, others if rank == 0 else {})
    # Weights of all rows are loaded as those of this process.
    kept = shards.weight.detach().clone()
    net.load_state_dict({"table.weight": load_file(folder / "found.safetensors")["weight"]}, strict=False)
    assert torch.equal(shards.weight, kept)
    gather_rows(net)
    assert net.table.weight.is_meta == bool(rank)
    if rank == 0:
        assert torch.equal(net.table.weight, load_file(folder / "found.safetensors")["weight"])
    # Gone before the group is, which waits for a thread that may wait for this one.
    del shared, loss
    dist.destroy_process_group()


def test_two_processes_with_half_of_the_rows_are_one_with_all(tmp_path):
    started = multiprocessing.start_processes(train_shards, (tmp_path,), nprocs=2, join=False, start_method="fork")
    try:
        # Comes back with each process that has ended.
        assert any(started.join(timeout=30) for _ in range(2))
    finally:
        for process in started.processes:
            process.kill()
    found = load_file(tmp_path / "found.safetensors")
    net = make_net()
    optimizer = RowAdamW(net.parameters(), lr=0.1)
    losses = [sum(net(torch.tensor(part, dtype=torch.long)) for part in batch) for batch in BATCHES[:1]]
    norms = [step(net, optimizer, losses[0])]
    for batch in BATCHES[1:]:
        norms.append(step(net, optimizer, sum(net(torch.tensor(part, dtype=torch.long)) for part in batch)))
    torch.testing.assert_close(found["norms"], torch.stack(norms))
    torch.testing.assert_close(found["layer"], net.layer.weight)
    torch.testing.assert_close(found["weight"], net.table.weight)
    torch.testing.assert_close(found["exp_avg_sq"], optimizer.state[net.table.weight]["exp_avg_sq"])


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_file_written_by_rows_is_the_one_that_safetensors_writes(tmp_path, kind):
    whole = {"b": torch.randn(5, 3).to(kind), "a": torch.randn(4, 2), "number": torch.tensor(3.0)}
    shapes = {"b": torch.Size([5, 3])}
    reserve_tensors(tmp_path / "ours", {**whole, "b": whole["b"][:0]}, shapes)
    for first, end in ((3, 5), (0, 3)):
        write_rows(tmp_path / "ours", "b", whole["b"][first:end], first=first)
    save_file(whole, tmp_path / "theirs", metadata={"format": "pt"})
    found = load_file(tmp_path / "ours")
    assert found.keys() == whole.keys() and all(torch.equal(found[name], whole[name]) for name in whole)
    assert (tmp_path / "ours").stat().st_size == (tmp_path / "theirs").stat().st_size


def run(folder, num_processes, stop_at=0):
    """Start `row_processes.py` in some processes."""
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join([*map(str, (tests, tests / "models")), os.environ.get("PYTHONPATH", "")])
    script = [str(Path(__file__).with_name("row_processes.py")), str(folder), str(stop_at), "intsr", "synergen"]
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    command = [sys.executable, *(launch if num_processes > 1 else []), *script]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]


def assert_same(folder, whole, family):
    weights, expected = (load_file(place / family / "weights.safetensors") for place in (folder, whole))
    # Rounding is a fiftieth of one step of the table (0.05) at most: Adam makes whole steps of gradients near 0, too.
    torch.testing.assert_close(weights, expected, atol=1e-3, rtol=1e-3)
    lines, others = (json.loads((place / family / "history.json").read_text()) for place in (folder, whole))
    assert [line.keys() for line in lines] == [line.keys() for line in others]
    for line, other in zip(lines, others, strict=True):
        assert line == pytest.approx(other, rel=1e-3)


@pytest.mark.slow
def test_trainings_shared_by_two_processes_are_those_of_one(tmp_path):
    """Losses, norms, ranking of validation, best weights; stopped and gone on with by as many or other processes."""
    one, two, fewer, more = (tmp_path / name for name in ("one", "two", "fewer", "more"))
    run(one, 1)
    run(two, 2)
    for folder, before, after in ((fewer, 2, 1), (more, 1, 2)):
        run(folder, before, stop_at=5)
        assert not (folder / "intsr" / "model").exists()
        run(folder, after)
    again = tmp_path / "again"
    shutil.copytree(two, again)
    for family in ("intsr", "synergen"):
        shutil.rmtree(again / family / "trainer" / "checkpoint-6")
        (again / family / "history.json").unlink()
    run(again, 2)
    for family in ("intsr", "synergen"):
        for folder in (two, fewer, more, again):
            assert_same(folder, one, family)
        # Each checkpoint is an ordinary folder, and holds the moments of all rows.
        checkpoint = two / family / "trainer" / "checkpoint-6"
        moments = load_file(checkpoint / "optimizer_rows.safetensors")
        expected = torch.load(one / family / "trainer" / "checkpoint-6" / "optimizer.pt", weights_only=True)["state"]
        torch.testing.assert_close(
            moments["model.items.ids.weight.exp_avg"], expected[0]["exp_avg"], atol=1e-4, rtol=1e-2
        )
    for folder in (two / "intsr" / "trainer" / "checkpoint-6", two / "intsr" / "model"):
        model = IntSRForSearchAndRecommendation.from_pretrained(folder)
        assert type(model.items.ids) is nn.Embedding and len(model.items.ids.weight) == model.config.num_items
