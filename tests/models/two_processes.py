"""One of two processes that share a batch; what `test_gathering.py` starts."""

import sys

import torch
from safetensors.torch import load_file, save_file
from small_shop import make_synergen
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from seekrec.models.synergen.modeling_synergen import gather_columns


def main(folder, rank):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    # Three entries in the first process, none in the second.
    own = 3 - 3 * rank
    columns, first = gather_columns(torch.tensor([7, 8, 9])[:own], torch.tensor([0.5, 0.25, 0.125])[:own])
    assert [column.tolist() for column in columns] == [[7, 8, 9], [0.5, 0.25, 0.125]] and first == 3 * rank
    model = make_synergen(**SETTINGS)[0].train()
    batch = load_file(f"{folder}/part{rank}.safetensors")
    count = batch.pop("num_questions")
    shared = DistributedDataParallel(model)
    loss = shared(**batch, num_items_in_batch=count).loss
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    save_file({"loss": loss.detach(), **gradients}, f"{folder}/found{rank}.safetensors")
    dist.destroy_process_group()


SETTINGS = {"dropout": 0.0, "easy_weight": 0.5, "temperature": 0.5}

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
