"""A marketplace of 24 items in three aisles; each user walks through one aisle in order."""

import numpy as np
import pyarrow as pa
import torch

from seekrec.catalog import Catalog
from seekrec.events import EventLog
from seekrec.models import GenSARConfig, GenSARForConditionalGeneration, GenSARProcessor
from seekrec.schema import Event, Request

AISLES = ("garden", "kitchen", "office")
ITEMS_PER_AISLE = 8
NUM_ITEMS = len(AISLES) * ITEMS_PER_AISLE
CODEBOOK_SIZE = 8
VECTOR_SIZES = {"semantic": 5, "collaborative": 3}
HISTORY = [
    Event("i0", timestamp=1),
    Event("i9", "search", timestamp=2, query="kitchen"),
    Event("i1", timestamp=3),
]
REQUESTS = [
    Request(HISTORY),
    Request(HISTORY[:1], query="garden"),
    Request([]),
    Request(HISTORY, query="office thing"),
]


def make_log() -> EventLog:
    items = pa.table(
        {
            "item_id": [f"i{row}" for row in range(NUM_ITEMS)],
            "title": [f"{AISLES[row // ITEMS_PER_AISLE]} thing {row}" for row in range(NUM_ITEMS)],
            "categories": [[["Store", AISLES[row // ITEMS_PER_AISLE]]] for row in range(NUM_ITEMS)],
        }
    )
    events = []
    for user in range(30):
        aisle = user % 3
        for step in range(6):
            row = aisle * ITEMS_PER_AISLE + (user // 3 + step) % ITEMS_PER_AISLE
            is_search = step % 2 == 1
            events.append(
                {
                    "user_id": f"u{user:02d}",
                    "timestamp": 1000 + step,
                    "behavior": "search" if is_search else "recommendation",
                    "query": AISLES[aisle] if is_search else None,
                    "item_id": f"i{row}",
                }
            )
    return EventLog("aisles", pa.Table.from_pylist(events), items, query_source="logged")


def make_catalog(log: EventLog) -> Catalog:
    # Shared code: the aisle; then the place in the aisle, written differently in each view.
    aisle, place = np.divmod(np.arange(NUM_ITEMS), ITEMS_PER_AISLE)
    codes = {
        "semantic": np.stack([aisle, place], axis=1),
        "collaborative": np.stack([aisle, (place + 3) % ITEMS_PER_AISLE], axis=1),
    }
    draws = np.random.default_rng(0)
    embeddings = {view: draws.normal(size=(NUM_ITEMS, size)) for view, size in VECTOR_SIZES.items()}
    return Catalog.build(log.items, codes, num_shared_levels=1, codebook_size=CODEBOOK_SIZE, embeddings=embeddings)


def make_gensar(aisles, *, shared_history: bool = False, seed: int = 0, **settings):
    """A small model with random weights, and its processor."""
    _, catalog, tokenizer, vocabulary = aisles
    torch.manual_seed(seed)
    config = GenSARConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        first_identifier_token_id=vocabulary.first_token_id,
        num_shared_levels=1,
        num_specific_levels=1,
        codebook_size=CODEBOOK_SIZE,
        shared_history=shared_history,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        initializer_factor=0.3,
        tie_word_embeddings=False,
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **{"dropout_rate": 0.0, **settings},
    )
    model = GenSARForConditionalGeneration(config).eval()
    model.set_catalog(catalog)
    return model, GenSARProcessor(tokenizer, catalog, shared_history=shared_history)
