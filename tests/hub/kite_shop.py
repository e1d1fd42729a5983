# SPDX-License-Identifier: Apache-2.0
"""A shop of twelve items, a log, and an untrained GenSAR over it, saved as a recipe saves a trained one."""

import numpy as np
import pyarrow as pa
import small_shop
from small_shop import log_of, make_aisles, make_gensar, make_gensr, make_intsr, make_synergen, make_tokenizer

from seekrec.catalog import Catalog
from seekrec.corpora import all_wordings
from seekrec.evaluation import ResultRow, write_results
from seekrec.evaluation.metrics import Interval
from seekrec.identifiers import ResidualKMeans, ResidualKMeansConfig, assign_unique
from seekrec.models.manifest import replace_part
from seekrec.recipes.record import save_run
from seekrec.schema import item_texts

CODEBOOK_SIZE = 4
# A title from outside that would break a careless card.
HOSTILE_TITLE = 'Kite\n```\n---\nlicense: mit\n# <script>alert(1)</script> [x](http://evil.example) "quoted"'
COMMAND = "accelerate launch recipes/train_gensar.py --config recipes/gensar/tiny.yaml"


def make_log():
    items = pa.table(
        {
            "item_id": [f"i{row}" for row in range(12)],
            "title": [HOSTILE_TITLE, *(f"Kite number {row}" for row in range(1, 12))],
            "categories": [[["Toys", "Kites" if row % 2 else "Strings"]] for row in range(12)],
        }
    )
    lines = [
        (f"u{user}", step, f"i{(user + step) % 12}", "strings" if step % 2 else None)
        for user in range(6)
        for step in range(4)
    ]
    return log_of(lines, items=items, query_source="category", name="kite shop", notes=("Made up.",))


def make_catalog(log):
    generator = np.random.default_rng(0)
    vectors = {
        "semantic": generator.normal(size=(12, 6)).astype(np.float32),
        "collaborative": generator.normal(size=(12, 3)).astype(np.float32),
    }
    config = ResidualKMeansConfig(
        semantic_size=6, collaborative_size=3, num_shared_levels=1, num_specific_levels=1, codebook_size=CODEBOOK_SIZE
    )
    learner = ResidualKMeans(config).fit(**vectors)
    encoded = learner.encode(**vectors)
    assigned = assign_unique(encoded.codes, encoded.costs, codebook_size=CODEBOOK_SIZE, num_shared_levels=1)
    return Catalog.build(
        log.items,
        assigned.codes,
        num_shared_levels=1,
        codebook_size=CODEBOOK_SIZE,
        embeddings=vectors,
        identifier_model=learner,
    )


def make_model(log):
    catalog = make_catalog(log)
    sizes = {"num_shared_levels": 1, "num_specific_levels": 1, "codebook_size": CODEBOOK_SIZE}
    tokenizer, vocabulary = make_tokenizer([*all_wordings(), *item_texts(log.items)], 300, **sizes)
    return make_gensar((None, catalog, tokenizer, vocabulary), d_model=16, d_ff=16, num_layers=1, num_heads=2)


def result_row(system="GenSAR", behavior="recommendation", **changes):
    fields = {
        "system": system,
        "dataset": "kite shop",
        "behavior": behavior,
        "part": "test",
        "protocol": "full",
        "split_method": "leave_one_out",
        "split_protocol": "strict",
        "split_fingerprint": "0123456789abcdef" * 4,
        "cases_fingerprint": "fedcba",
        "query_source": "category",
        "seen_removed": True,
        "num_cases": 1234,
        "num_items": 12,
        "seed": 0,
        "seconds": 1.5,
        "metrics": {"recall@10": 0.25, "ndcg@10": 0.125},
        "intervals": {"recall@10": Interval(0.2, 0.3), "ndcg@10": Interval(0.11, 0.14)},
    }
    return ResultRow(**(fields | changes))


def result_rows():
    rows = []
    for behavior in ("recommendation", "search"):
        rows.append(result_row("popularity", behavior, metrics={"recall@10": 0.3, "ndcg@10": 0.1}))
        rows.append(result_row("GenSAR", behavior))
    return rows


def write_model_folder(folder):
    """Write a complete model folder; give the model and its processor."""
    log = make_log()
    model, processor = make_model(log)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_results(folder / "results.json", result_rows())
    save_run(folder, command=COMMAND, log=log, settings={"d_model": 16}, seconds={"training": 1.0})
    return model, processor


# Families and the names of their systems.
SYSTEMS = {"gensar": "GenSAR", "gensr": "GenSR", "intsr": "IntSR", "synergen": "SynerGen"}


def write_family_folder(family, folder):
    """Write a complete model folder of a family over the shop of `small_shop`; give the model and its processor."""
    make = {"gensar": make_gensar, "gensr": make_gensr, "intsr": make_intsr, "synergen": make_synergen}[family]
    model, processor = make() if family in ("intsr", "synergen") else make(make_aisles())
    if family in ("intsr", "synergen"):
        # The vector of the card's query is known; what would embed another one is not loaded.
        processor.query_vectors.add(["garden"])
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    rows = [result_row(SYSTEMS[family], behavior) for behavior in ("recommendation", "search")]
    with replace_part(folder, "results") as new:  # they belong to these weights
        write_results(new / "results.json", rows)
        save_run(new, command=COMMAND, log=small_shop.make_log(), settings={"d_model": 16}, seconds={"training": 1.0})
    return model, processor
