# SPDX-License-Identifier: Apache-2.0
"""A shop of 24 items in three aisles, through each of which users walk in order, and small models of all families.

Models have random weights. `aisles` is what the models with identifiers are made from: a split of the log, a
catalogue, a tokenizer and its vocabulary (`make_aisles`).
"""

import dataclasses

import numpy as np
import pyarrow as pa
import torch

from seekrec.catalog import Catalog
from seekrec.catalog.checks import VIEWS
from seekrec.corpora import IdentifierVocabulary, add_identifier_tokens, all_wordings, encode_text, train_tokenizer
from seekrec.events import EventLog, split_log
from seekrec.models import (
    GenSARConfig,
    GenSARForConditionalGeneration,
    GenSARProcessor,
    GenSRConfig,
    GenSRForConditionalGeneration,
    GenSRProcessor,
    IntSRConfig,
    IntSRForSearchAndRecommendation,
    IntSRProcessor,
    SynerGenConfig,
    SynerGenForSearchAndRecommendation,
    SynerGenProcessor,
)
from seekrec.models.dense import QueryVectors
from seekrec.models.gensr.processing_gensr import tokenizer_texts
from seekrec.models.views import Views
from seekrec.models.words import Vocabulary, category_names, item_word_keys
from seekrec.schema import Event, Request, item_texts

AISLES = ("garden", "kitchen", "office")
ITEMS_PER_AISLE = 8
NUM_ITEMS = len(AISLES) * ITEMS_PER_AISLE
CODEBOOK_SIZE = 8
VECTOR_SIZES = {"semantic": 5, "collaborative": 3}
TEXT_SIZE = 8
HISTORY = [
    Event("i0", timestamp=1),
    Event("i9", "search", timestamp=2, query="kitchen"),
    Event("i1", timestamp=3),
]
SEEN = [Event(f"i{row}", timestamp=10 + row) for row in range(12)]
REQUESTS = [
    Request(HISTORY),
    Request(HISTORY[:1], query="garden"),
    Request([]),
    Request(HISTORY, query="office thing"),
]


def log_of(lines, *, items=None, queries=None, query_source=None, has_time=True, name="small", notes=()) -> EventLog:
    """A log of lines `(user_id, timestamp, item_id[, query[, action[, session_id]]])`; with a query it is a search.

    `items` is a table, titles by id, or ids; `queries` are the category queries of items.
    """
    full = [(*line, *(None, "click", None)[len(line) - 3 :]) for line in lines]
    users, times, item_ids, texts, actions, sessions = zip(*full, strict=True)
    if items is None:
        items = sorted({item for item in item_ids if item is not None})
    if not isinstance(items, pa.Table):
        titles = items if isinstance(items, dict) else {item: f"title {item}" for item in items}
        items = pa.table({"item_id": list(titles), "title": list(titles.values())})
    if queries is not None:
        column = pa.array([queries.get(item, []) for item in items["item_id"].to_pylist()], pa.list_(pa.string()))
        items = items.append_column("queries", column)
    events = {
        "user_id": pa.array(users, pa.string()),
        "timestamp": pa.array(times, pa.int64()),
        "behavior": ["recommendation" if text is None else "search" for text in texts],
        "query": pa.array(texts, pa.string()),
        "item_id": pa.array(item_ids, pa.string()),
        "action": actions,
        "session_id": pa.array(sessions, pa.string()),
    }
    source = query_source or ("logged" if any(text is not None for text in texts) else "none")
    return EventLog(name, pa.table(events), items, has_time=has_time, query_source=source, notes=notes)


def make_log() -> EventLog:
    items = pa.table(
        {
            "item_id": [f"i{row}" for row in range(NUM_ITEMS)],
            "title": [f"{AISLES[row // ITEMS_PER_AISLE]} thing {row}" for row in range(NUM_ITEMS)],
            "categories": [[["Store", AISLES[row // ITEMS_PER_AISLE]]] for row in range(NUM_ITEMS)],
        }
    )
    lines = []
    for user in range(30):
        aisle = user % 3
        for step in range(6):
            row = aisle * ITEMS_PER_AISLE + (user // 3 + step) % ITEMS_PER_AISLE
            lines.append((f"u{user:02d}", 1000 + step, f"i{row}", AISLES[aisle] if step % 2 else None))
    return log_of(lines, items=items, name="aisles")


# The families that write identifiers.


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


def make_aisles():
    """The split of the log, its catalogue, and a tokenizer with its vocabulary."""
    log = make_log()
    split = split_log(log)
    catalog = make_catalog(log)
    texts = [*all_wordings(), *tokenizer_texts(item_texts(log.items)), *AISLES]
    sizes = {"num_shared_levels": 1, "num_specific_levels": 1, "codebook_size": CODEBOOK_SIZE}
    return split, catalog, *make_tokenizer(texts, 300, **sizes)


def make_tokenizer(texts, size, *, num_shared_levels, num_specific_levels, codebook_size):
    """A tokenizer trained on texts, with the tokens of identifiers, and its vocabulary."""
    tokenizer = train_tokenizer(texts, size)
    layout = IdentifierVocabulary(0, num_shared_levels, num_specific_levels, codebook_size, VIEWS)
    return tokenizer, add_identifier_tokens(tokenizer, layout)


def t5_settings(tokenizer, vocabulary):
    return {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "first_identifier_token_id": vocabulary.first_token_id,
        "num_shared_levels": vocabulary.num_shared_levels,
        "num_specific_levels": vocabulary.num_specific_levels,
        "codebook_size": vocabulary.codebook_size,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "dropout_rate": 0.0,
        "initializer_factor": 0.3,
        "tie_word_embeddings": False,
        "decoder_start_token_id": tokenizer.pad_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


# Checkpoints of older versions, whose configurations have these fields.
_OLD_STREAM = {"shared_history": True, "merge_events": True, "loss_norm": "level"}
GENSAR_OLD_WAYS = {
    "tokens": {"shared_history": True},
    "events": _OLD_STREAM,
    "last_event": {
        **_OLD_STREAM,
        "summarize_history": True,
        "next_item_weight": 1.0,
        "distillation_weight": 1.0,
        "order_by": "identifier",
    },
}
GENSAR_WAYS = {
    "instructions": {},
    **GENSAR_OLD_WAYS,
    "stream": {
        "corpus": "stream",
        "item_vector_size": sum(VECTOR_SIZES.values()),
        "item_reading": ["codes", "catalog", "vector", "words"],
        "query_reading": ["tokens", "recommendation"],
        "num_items": NUM_ITEMS,
    },
}


def make_gensar(aisles, *, seed: int = 0, **settings):
    """A small model with random weights, and its processor."""
    _, catalog, tokenizer, vocabulary = aisles
    torch.manual_seed(seed)
    words = Vocabulary.choose([item_word_keys(catalog.items)] if "words" in settings.get("item_reading", ()) else [])
    config = GenSARConfig(**{**t5_settings(tokenizer, vocabulary), "num_words": len(words), **settings})
    model = GenSARForConditionalGeneration(config).eval()
    model.set_words(words)
    model.set_catalog(catalog)
    vectors = model.encoder.item_vectors
    if vectors is not None and vectors.own is not None:
        torch.nn.init.normal_(vectors.own.weight, std=0.3)  # it begins with nothing
    return model, GenSARProcessor.from_config(config, tokenizer, catalog)


def grow(model, processor, num_new=3):
    """Add items as `add_items` does, with codes of a shared level that no item of training has."""
    old = model.catalog
    items = pa.concat_tables([old.items, old.items.slice(0, num_new)])
    ids = [*old.id_map.ids, *(f"new{number}" for number in range(num_new))]
    codes = np.stack([np.full(num_new, 3), np.arange(num_new)], axis=1)
    grown = dataclasses.replace(
        old,
        items=items.set_column(0, "item_id", pa.array(ids)).combine_chunks(),
        codes={view: np.concatenate([own, codes]).astype(np.int32) for view, own in old.codes.items()},
        embeddings={view: np.concatenate([own, own[:num_new]]) for view, own in old.embeddings.items()},
        is_removed=np.zeros(len(ids), bool),
        is_predicted=np.arange(len(ids)) >= len(old),
    )
    model.config.identifier_hash = grown.identifier_hash
    model.set_catalog(grown)
    processor.set_catalog(grown)
    return grown


GENSR_WAYS = {
    "sentence": {},
    "shared_prompt": {
        "shared_prompt": True,
        "history_in_prompt": "both",
        "query_as_event": True,
        "wording": "short",
        "loss_norm": "level",
    },
    "whole_history": {"history_in_prompt": "whole", "wording": "short", "filtered_history": "mean"},
    "one_view": {
        "prompt_views": ["semantic"],
        "contrast_weight": 0.0,
        "shared_prompt": True,
        "wording": "compact",
    },
}


def make_gensr(aisles, *, seed: int = 0, **settings):
    """A small model with random weights and a random collaborative table, and its processor."""
    _, catalog, tokenizer, vocabulary = aisles
    torch.manual_seed(seed)
    yes, no = (tokens[0] for tokens in encode_text(tokenizer, ["Yes", "No"]))
    own = {
        "yes_token_id": yes,
        "no_token_id": no,
        "collaborative_size": 6,
        "view_dropout_rate": 0.0,
        "identifier_weight": 1.0,
        "contrast_weight": 0.1,
        "max_history": 4,
    }
    config = GenSRConfig(**{**t5_settings(tokenizer, vocabulary), **own, **settings})
    model = GenSRForConditionalGeneration(config).eval()
    model.set_collaborative_table(torch.randn(NUM_ITEMS, 6, generator=torch.Generator().manual_seed(1)))
    model.set_catalog(catalog)
    if config.retrieve_by == "views":
        model.set_views(Views.fit(aisles[0], catalog))
    return model, GenSRProcessor.from_config(config, tokenizer, catalog)


# The families that compare vectors.


class AisleVectors(QueryVectors):
    """Queries to the direction of the aisle they name; no encoder."""

    def _embed(self, texts):
        return np.stack([aisle_vector(text) for text in texts]).astype(np.float16)


def aisle_vector(text):
    vector = np.zeros(TEXT_SIZE, np.float32)
    for number, aisle in enumerate(AISLES):
        vector[number] = float(aisle in text)
    vector[3:] = [((len(text) * prime) % 7) / 14 for prime in (2, 3, 5, 11, 13)]
    return vector


def make_dense_catalog(log=None):
    """A catalogue without identifiers, with text vectors that say the aisle."""
    log = log or make_log()
    titles = log.items["title"].to_pylist()
    vectors = np.stack([aisle_vector(title) for title in titles])
    vectors[:, 4] = (np.arange(NUM_ITEMS) % ITEMS_PER_AISLE) / ITEMS_PER_AISLE
    return Catalog.build(log.items, embeddings={"semantic": vectors})


HSTU = {
    "without": ["placeholders", "dsfnet", "scenario_tokens", "session_mask"],
    "num_dsf_layers": 0,
    "relative_bias": "buckets",
}
READS_ALL = {"item_reading": ["vector", "text", "categories", "words"], "query_reading": ["text", "words"]}
INTSR_WAYS = {
    "paper": {},
    "merged": {"merge_event_tokens": True, "relative_bias": "buckets"},
    "no_session_mask": {"without": ["session_mask"]},
    "hstu": HSTU,
    "latest": {"starts_from_latest_item": True},
    "latest_merged": {
        "starts_from_latest_item": True,
        "merge_event_tokens": True,
        "ranks_with_retrieval": True,
        **READS_ALL,
    },
    "retrieval_only": {"ranking_weight": 0.0},
}


def make_intsr(seed: int = 0, *, catalog=None, **settings):
    """A model in evaluation mode with random weights far from their start values, and its processor."""
    own = {"num_hidden_layers": 2, "ranking_weight": float("placeholders" not in settings.get("without", []))}
    return _make_dense(
        IntSRConfig, IntSRForSearchAndRecommendation, IntSRProcessor, seed, catalog, {**own, **settings}
    )


SYNERGEN_WAYS = {
    "paper": {},
    "order": {"time_encoding": "order", "item_reading": ["text"]},
    "both": {"time_encoding": "both", "queries_in_context": True, **READS_ALL},
    "latest": {
        "starts_from_latest_item": True,
        "queries_in_context": True,
        "ranks_with_retrieval": True,
    },
    "retrieval_only": {"ranking_weight": 0.0, "use_target_time": False},
    "learned_scales": {"time_encoding": "learned_time"},
}


def make_synergen(seed: int = 0, *, catalog=None, **settings):
    """A model in evaluation mode with random weights far from their start values, and its processor."""
    own = {"intermediate_size": 32, "negatives": "popularity"}
    return _make_dense(
        SynerGenConfig, SynerGenForSearchAndRecommendation, SynerGenProcessor, seed, catalog, {**own, **settings}
    )


# Of GenSR two ways more: `retrieve` asks about every item, or about those that views find.
_ASKING = {"shared_prompt": True, "wording": "short"}
FINDING = {
    **_ASKING,
    "retrieve_by": "views",
    "view_weights": ["recommendation.semantic=2", "search.lexical=1", "search.query_log=0.5"],
}
WAYS = {
    "gensar": GENSAR_WAYS,
    "gensr": {**GENSR_WAYS, "every_item": {"retrieve_by": "answer", **_ASKING}, "views": FINDING},
    "intsr": INTSR_WAYS,
    "synergen": SYNERGEN_WAYS,
}


def make_model(family, way, aisles):
    """A model of a family in one of its ways, and its processor."""
    settings = WAYS[family][way]
    if family in ("gensar", "gensr"):
        return (make_gensar if family == "gensar" else make_gensr)(aisles, **settings)
    return (make_intsr if family == "intsr" else make_synergen)(**settings)


def _make_dense(config_class, model_class, processor_class, seed, catalog, settings):
    catalog = catalog or make_dense_catalog()
    torch.manual_seed(seed)
    sizes = {"num_items": len(catalog), "text_size": TEXT_SIZE, "query_size": TEXT_SIZE, "hidden_size": 16}
    words = Vocabulary.choose([item_word_keys(catalog.items)])
    sizes |= {"num_words": len(words), "num_categories": len(category_names(catalog.items))}
    config = config_class(**{**sizes, "max_history": 12, **settings})
    model = model_class(config).eval()
    model.items.set_words(catalog.items, words, AisleVectors().encode)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * (0.3 if weight.ndim > 1 else 0.1))
    model.set_catalog(catalog)
    return model, processor_class.from_config(config, catalog, query_vectors=AisleVectors())
