"""A log in the layout of user-item sequences, and an encoder of random weights: what tiny recipes run on."""

import json

import numpy as np

AISLES = ("garden tools", "kitchen knives", "office paper")
ITEMS_PER_AISLE = 12


def write_log(folder, num_users: int = 60, seed: int = 0):
    """Users stay in an aisle; each buys six of its items in a row that starts at random."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    items = {
        str(row): {
            "title": f"{AISLES[row // ITEMS_PER_AISLE]} number {row}",
            "description": f"A fine thing of the aisle {row // ITEMS_PER_AISLE}.",
            "brand": "Acme",
            "categories": "Store," + AISLES[row // ITEMS_PER_AISLE],
        }
        for row in range(len(AISLES) * ITEMS_PER_AISLE)
    }
    sequences = {}
    for user in range(num_users):
        start = rng.integers(ITEMS_PER_AISLE)
        aisle = user % len(AISLES)
        sequences[str(user)] = [int(aisle * ITEMS_PER_AISLE + (start + step) % ITEMS_PER_AISLE) for step in range(6)]
    # Every item must occur for the log to be of a piece.
    (folder / "Tiny.item.json").write_text(json.dumps(items))
    (folder / "Tiny.inter.json").write_text(json.dumps(sequences))
    return folder


def write_encoder(folder):
    """A sentence-transformers model of 16 dimensions over whole words, random weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    words = sorted({word for aisle in AISLES for word in aisle.split()} | {str(n) for n in range(36)} | {"number"})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)}).save_pretrained(folder / "bert")
    model = SentenceTransformer(modules=[Transformer(str(folder / "bert")), Pooling(16)], device="cpu")
    model.save(str(folder / "encoder"))
    return folder / "encoder"
