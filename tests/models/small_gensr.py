"""A small GenSR over the aisles of `small_gensar.py`."""

import torch
from small_gensar import CODEBOOK_SIZE, NUM_ITEMS

from seekrec.corpora import encode_text
from seekrec.models import GenSRConfig, GenSRForConditionalGeneration, GenSRProcessor

PROCESSOR_SETTINGS = (
    "wording",
    "prompt_views",
    "history_in_prompt",
    "query_as_event",
    "item_text_fields",
    "retrieve_by",
)


def make_gensr(aisles, *, seed: int = 0, **settings):
    """A small model with random weights and a random collaborative table, and its processor."""
    _, catalog, tokenizer, vocabulary = aisles
    torch.manual_seed(seed)
    yes, no = (tokens[0] for tokens in encode_text(tokenizer, ["Yes", "No"]))
    settings = {"identifier_weight": 1.0, "contrast_weight": 0.1, "max_history": 4, **settings}
    config = GenSRConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        first_identifier_token_id=vocabulary.first_token_id,
        num_shared_levels=1,
        num_specific_levels=1,
        codebook_size=CODEBOOK_SIZE,
        yes_token_id=yes,
        no_token_id=no,
        collaborative_size=6,
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
        **{"dropout_rate": 0.0, "view_dropout_rate": 0.0, **settings},
    )
    model = GenSRForConditionalGeneration(config).eval()
    model.set_collaborative_table(torch.randn(NUM_ITEMS, 6, generator=torch.Generator().manual_seed(1)))
    model.set_catalog(catalog)
    processor = GenSRProcessor(
        tokenizer,
        catalog,
        **{name: getattr(config, name) for name in PROCESSOR_SETTINGS},
        scores_candidates=config.yes_no_weight > 0,
        writes_identifiers=config.identifier_weight > 0,
        max_history=config.max_history,
    )
    return model, processor
