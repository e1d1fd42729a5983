# SPDX-License-Identifier: Apache-2.0
"""Threads that set catalogues and take them back while they ask, and a check of every answer.

`PYTHONPATH=tests python tests/models/hammer.py --seconds 60 --threads 20` prints a line of JSON for each family: how
many answers there were, how many were those of no catalogue, and how many calls raised; and one of a catalogue that
many threads change at once.
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
from seekrec.embeddings import SASRecConfig, SASRecForNextItem  # noqa: E402
from seekrec.events.query_log import QueryLog  # noqa: E402
from seekrec.identifiers import ResidualKMeans, ResidualKMeansConfig, assign_unique  # noqa: E402
from seekrec.models.views import Views  # noqa: E402
from seekrec.models.views.lexical import LexicalIndex, LexicalSettings  # noqa: E402
from seekrec.schema import Request  # noqa: E402

# What a GenSAR with item vectors is made with; of a GenSR that asks about every item the texts come with the inputs.
READING = {"corpus": "stream", "item_vector_size": 8}
ASKING = {"retrieve_by": "answer", "shared_prompt": True, "wording": "short"}
# What GenSAR writes besides: queries and descriptions.
WRITING = {"trained_tasks": ["nsqp", "id2desc_semantic"]}
VIEWS = ["recommendation.collaborative=1", "recommendation.semantic=2", "search.lexical=1", "search.query_log=0.5"]
HAMMERED = (
    *("gensar", "gensar_writing", "gensar_item_vectors", "gensar_views", "gensr", "gensr_asking", "gensr_views"),
    *("intsr", "intsr_views", "synergen", "synergen_views"),
)

REQUESTS = [Request(HISTORY), Request(HISTORY[:1], query="garden"), Request([])]
CANDIDATES = [["i4", "i1", "i20"], ["i7"], ["i2", "i9"]]  # none that is removed meanwhile
SOME = ["i3", "i4", "i5"]


def make_pair(name, aisles):
    """A model of a family, and its processor."""
    views = {"view_weights": VIEWS} if name.endswith("views") else {}
    if name.startswith("intsr"):
        model, processor = make_intsr(**views)
    elif name.startswith("synergen"):
        model, processor = make_synergen(**views)
    elif name.startswith("gensar"):
        reading = READING if name.endswith("vectors") else WRITING if name.endswith("writing") else {}
        model, processor = make_gensar(aisles, **reading, **views)
    else:
        answers = {**ASKING, "retrieve_by": "views", **views} if views else ASKING if name.endswith("asking") else {}
        model, processor = make_gensr(aisles, **answers)
    if views:
        model.set_views(make_views(model.catalog))
    return model, processor


def make_views(catalog):
    """Words of the items, a small log of queries, and an untrained SASRec."""
    log = QueryLog.count(["garden", "kitchen"], np.array([0, 0, 1]), np.array([3, 5, 12]), num_items=len(catalog))
    torch.manual_seed(5)
    sasrec = SASRecForNextItem(SASRecConfig(num_items=len(catalog), hidden_size=8, initializer_range=0.5)).eval()
    words = LexicalIndex.fit(catalog.items, LexicalSettings())
    return Views(len(catalog), None, words, log).with_recommender(sasrec)


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
        "boost": lambda: model.retrieve(inputs, top_k=4, exclude_seen=True, boost={"i4": 2.0, "i9": -1.0}),
        "rank": lambda: model.rank(processor(REQUESTS, candidates=CANDIDATES)),
    }
    found = {name: (lambda call=call: plain(call())) for name, call in calls.items()}
    if model.keeps_states:
        # What was read of histories may be older than the catalogue that answers.
        found["state"] = lambda: plain(model.retrieve(inputs, top_k=NUM_ITEMS + 1, state=model.encode_history(inputs)))
    if "nsqp" in getattr(model.config, "trained_tasks", ()):
        few = {"processor": processor, "max_new_tokens": 3}
        found["suggest"] = lambda: tuple(map(tuple, model.suggest_queries(REQUESTS, num_queries=2, **few)))
        found["describe"] = lambda: tuple(model.describe(SOME, **few))
    return found


def plain(found):
    return tuple(tuple((item.item_id, item.title, item.score) for item in answer) for answer in found)


def hammer(name, aisles, *, seconds: float, num_threads: int, seed: int = 0) -> dict:
    """Set, take back and ask from many threads at once; counts of answers, wrong answers and errors."""
    model, processor = make_pair(name, aisles)
    old = model.catalog
    titles = ("attic", "attic") if name in ("gensr_asking", "gensr_views") else ("attic", "cellar")
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

    run_threads(work, num_threads)
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


def make_growing_catalog():
    """A catalogue whose new items get identifiers and vectors, the latter by regression where they are not given."""
    draws = np.random.default_rng(0)
    vectors = {"semantic": draws.normal(size=(12, 6)), "collaborative": draws.normal(size=(12, 3))}
    sizes = {"num_shared_levels": 1, "num_specific_levels": 1, "codebook_size": 4}
    learner = ResidualKMeans(ResidualKMeansConfig(semantic_size=6, collaborative_size=3, **sizes)).fit(**vectors)
    encoded = learner.encode(**vectors)
    assigned = assign_unique(encoded.codes, encoded.costs, codebook_size=4, num_shared_levels=1)
    items = pa.table({"item_id": [f"i{row}" for row in range(12)], "title": [f"thing {row}" for row in range(12)]})
    items = items.append_column("price", pa.array(np.arange(12.0)))
    return Catalog.build(
        items,
        assigned.codes,
        num_shared_levels=1,
        codebook_size=4,
        embeddings=vectors,
        identifier_model=learner,
    )


def hammer_catalog(*, seconds: float, num_threads: int) -> dict:
    """Change one catalogue from many threads; each change gives what it gives alone, and the catalogue stays."""
    text = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    rows = [{"item_id": f"n{row}", "title": f"new thing {row}"} for row in range(3)]
    changes = {
        "add": lambda catalog: catalog.add_items(rows, semantic_embeddings=text),
        "add one": lambda catalog: catalog.add_items(rows[:1], semantic_embeddings=text[:1]),
        "add twice": lambda catalog: catalog.add_items(rows[:1], semantic_embeddings=text[:1]).add_items(
            rows[1:], semantic_embeddings=text[1:]
        ),
        "update": lambda catalog: catalog.update_items([{"item_id": "i3", "price": 99.0}]),
        "remove": lambda catalog: catalog.remove_items(["i1", "i2"]),
    }

    def looks(catalog: Catalog) -> tuple:
        """Everything that answers read of a catalogue."""
        cheap = catalog.where(price=(None, 5.0)).tolist()
        return catalog.content_hash, catalog.identifier_hash, tuple(catalog.id_map.ids), tuple(cheap)

    expected = {name: looks(change(make_growing_catalog())) for name, change in changes.items()}
    assert len(set(expected.values())) == len(expected) - 1  # added at once or one after the other
    shared = make_growing_catalog()
    before = looks(make_growing_catalog())
    counts: collections.Counter = collections.Counter()
    errors: list[str] = []
    lock, end = threading.Lock(), time.monotonic() + seconds

    def work(number: int) -> None:
        draw = random.Random(number)
        while time.monotonic() < end:
            name = draw.choice(list(changes))
            try:
                found = looks(changes[name](shared))
            except Exception as error:  # every kind is a failure here
                with lock:
                    errors.append(f"{type(error).__name__}: {error}")
                continue
            with lock:
                counts["changes"] += 1
                counts["wrong"] += found != expected[name]

    run_threads(work, num_threads)
    return {
        "family": "catalog",
        "changes": counts["changes"],
        "wrong": counts["wrong"] + (looks(shared) != before),
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
    }


def run_threads(work, num_threads: int) -> None:
    """Run a function in threads, each with its number, and wait for all."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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
    counts = hammer_catalog(seconds=options.seconds, num_threads=options.threads)
    sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    main()
