# SPDX-License-Identifier: Apache-2.0
"""Threads that set catalogues and take them back while they ask, and a check of every answer.

`PYTHONPATH=tests python tests/models/hammer.py --seconds 60 --threads 20` prints a line of JSON for each family: how
many answers there were, how many were those of no catalogue, and how many calls raised.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import random
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from small_shop import (  # noqa: E402
    HISTORY,
    NUM_ITEMS,
    make_aisles,
    make_gensar,
    make_gensr,
    make_intsr,
    make_synergen,
)

from seekrec.catalog import Catalog  # noqa: E402
from seekrec.schema import Request  # noqa: E402

# What a GenSAR with item vectors is made with; of a GenSR that asks about every item the texts come with the inputs.
READING = {"corpus": "stream", "item_vector_size": 8, "order_by": "identifier"}
ASKING = {"retrieve_by": "answer", "shared_prompt": True, "wording": "short"}
HAMMERED = ("gensar", "gensar_item_vectors", "gensr", "gensr_asking", "intsr", "synergen")

REQUESTS = [Request(HISTORY), Request(HISTORY[:1], query="garden"), Request([])]
CANDIDATES = [["i3", "i1", "i20"], ["i7"], ["i2", "i9"]]
SOME = ["i3", "i4", "i5"]


def make_pair(name, aisles):
    """A model of a family, and its processor."""
    if name == "intsr":
        return make_intsr()
    if name == "synergen":
        return make_synergen()
    if name.startswith("gensar"):
        return make_gensar(aisles, **(READING if name.endswith("vectors") else {}))
    return make_gensr(aisles, **(ASKING if name.endswith("asking") else {}))


def grow(old: Catalog, title: str, seed: int) -> Catalog:
    """A catalogue with one item more, as an identifier model would have placed it."""
    draws = np.random.default_rng(seed)
    grown = dataclasses.replace(
        old,
        items=pa.concat_tables(
            [old.items, pa.table({"item_id": ["new"], "title": [title]})], promote_options="default"
        ).combine_chunks(),
        codes={
            view: np.concatenate([codes, [[3 + seed, seed]]]).astype(np.int32) for view, codes in old.codes.items()
        },
        embeddings={
            view: np.concatenate([known, draws.normal(size=(1, known.shape[1]))]).astype(np.float32)
            for view, known in old.embeddings.items()
        },
        is_removed=np.append(old.is_removed, False),
        is_predicted=np.append(old.is_predicted, False),
    )
    grown.__dict__["identifier_hash"] = old.identifier_hash
    return grown


def answers(model, processor):
    """Everything that is asked, as plain values."""
    inputs = processor(REQUESTS)
    calls = {
        "all": lambda: model.retrieve(inputs, top_k=NUM_ITEMS + 1),
        "some": lambda: model.retrieve(inputs, top_k=2, where=SOME),
        "mixed": lambda: model.retrieve(inputs, top_k=[3, 1, 2], where=[None, SOME, ["i9"]]),
        "rank": lambda: model.rank(processor(REQUESTS, candidates=CANDIDATES)),
    }
    return {name: (lambda call=call: plain(call())) for name, call in calls.items()}


def plain(found):
    return tuple(tuple((item.item_id, item.title, item.score) for item in answer) for answer in found)


def hammer(name, aisles, *, seconds: float, num_threads: int, seed: int = 0) -> dict:
    """Set, take back and ask from many threads at once; counts of answers, wrong answers and errors."""
    model, processor = make_pair(name, aisles)
    old = model.catalog
    titles = ("attic", "attic") if name == "gensr_asking" else ("attic", "cellar")
    first, second = (grow(old, title, number) for number, title in enumerate(titles))
    for catalog in (first, second):
        catalog.__dict__["identifier_hash"] = old.identifier_hash
    removed = first.remove_items(["new", "i3"])
    removed.__dict__["identifier_hash"] = old.identifier_hash
    catalogs = [old, first, second, removed]
    expected = collections.defaultdict(set)
    for catalog in catalogs:
        for one in (model, processor):
            one.set_catalog(catalog)
        for call, answer in answers(model, processor).items():
            expected[call].add(answer())
    # The catalogues are told apart by what they answer.
    assert len(expected["all"]) == len(catalogs)
    model, processor = make_pair(name, aisles)  # nothing is made yet
    counts, seen = collections.Counter(), collections.defaultdict(set)
    setting, lock = threading.Lock(), threading.Lock()
    errors: list[str] = []
    end = time.monotonic() + seconds

    def change(draw: random.Random) -> None:
        with setting:
            catalog = draw.choice(catalogs)
            grows = len(catalog) >= len(model.catalog)
            for one in (model, processor) if grows else (processor, model):
                one.set_catalog(catalog)

    def work(number: int) -> None:
        draw = random.Random(seed * 1000 + number)
        while time.monotonic() < end:
            try:
                if draw.random() < 0.2:
                    change(draw)
                    with lock:
                        counts["sets"] += 1
                    continue
                call, answer = draw.choice(list(answers(model, processor).items()))
                found = answer()
            except Exception as error:  # every kind is a failure here
                with lock:
                    errors.append(f"{type(error).__name__}: {error}")
                continue
            with lock:
                counts["answers"] += 1
                counts["wrong"] += found not in expected[call]
                seen[call].add(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Afterwards the catalogue set last answers, whatever was on its way.
    for one in (processor, model):
        one.set_catalog(old)
    last = answers(model, processor)["all"]()
    counts["stale"] += any(item == "new" for answer in last for item, *_ in answer)
    return {
        "family": name,
        "answers": counts["answers"],
        "sets": counts["sets"],
        "catalogues_seen": len(seen["all"]),
        "wrong": counts["wrong"],
        "stale_afterwards": counts["stale"],
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=20)
    parser.add_argument("--families", nargs="*", default=HAMMERED)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.families:
        counts = hammer(name, make_aisles(), seconds=options.seconds, num_threads=options.threads)
        sys.stdout.write(json.dumps(counts) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
