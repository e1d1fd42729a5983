"""The fixtures of the models' tests."""

import pytest
from small_gensar import AISLES, CODEBOOK_SIZE, make_catalog, make_gensar, make_log

from seekrec.corpora import add_identifier_tokens, all_wordings, train_tokenizer
from seekrec.events import split_log
from seekrec.schema import item_texts


@pytest.fixture(scope="session")
def aisles():
    """The log, its split, a catalogue and a tokenizer with its vocabulary."""
    log = make_log()
    split = split_log(log)
    catalog = make_catalog(log)
    tokenizer = train_tokenizer([*all_wordings(), *item_texts(log.items), *AISLES], 300)
    vocabulary = add_identifier_tokens(
        tokenizer, num_shared_levels=1, num_specific_levels=1, codebook_size=CODEBOOK_SIZE
    )
    return split, catalog, tokenizer, vocabulary


@pytest.fixture(params=[False, True], ids=["instruction", "shared_history"])
def gensar(request, aisles):
    """A model and its processor, in both ways of writing instructions."""
    return make_gensar(aisles, shared_history=request.param)
