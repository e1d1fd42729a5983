"""The fixtures of the models' tests."""

import pytest
from small_gensar import AISLES, CODEBOOK_SIZE, VECTOR_SIZES, make_catalog, make_gensar, make_log
from small_gensr import make_gensr
from small_intsr import INTSR_WAYS, make_dense_catalog, make_intsr
from small_synergen import SYNERGEN_WAYS, make_synergen

from seekrec.corpora import add_identifier_tokens, all_wordings, train_tokenizer
from seekrec.corpora.training_windows import build_training_windows
from seekrec.events import split_log
from seekrec.models.gensr.prompts_gensr import tokenizer_texts
from seekrec.schema import item_texts


@pytest.fixture(scope="session")
def aisles():
    """The log, its split, a catalogue and a tokenizer with its vocabulary."""
    log = make_log()
    split = split_log(log)
    catalog = make_catalog(log)
    tokenizer = train_tokenizer([*all_wordings(), *tokenizer_texts(item_texts(log.items)), *AISLES], 300)
    vocabulary = add_identifier_tokens(
        tokenizer, num_shared_levels=1, num_specific_levels=1, codebook_size=CODEBOOK_SIZE
    )
    return split, catalog, tokenizer, vocabulary


WAYS = {
    "instruction": {},
    "shared_history": {"shared_history": True},
    "summarized_history": {"shared_history": True, "merge_events": True, "summarize_history": True},
    "merged_events": {"shared_history": True, "merge_events": True, "loss_norm": "level"},
    "item_vectors": {
        "shared_history": True,
        "merge_events": True,
        "item_vector_size": sum(VECTOR_SIZES.values()),
    },
}


@pytest.fixture(params=WAYS)
def gensar(request, aisles):
    """A model and its processor, in each way of writing and reading instructions."""
    return make_gensar(aisles, **WAYS[request.param])


GENSR_WAYS = {
    "sentence": {},
    "shared_prompt": {
        "shared_prompt": True,
        "history_in_prompt": "both",
        "query_as_event": True,
        "wording": "short",
        "loss_norm": "level",
    },
    "whole_history": {"history_in_prompt": "whole", "wording": "short", "soft_filter": False},
    "one_view": {
        "prompt_views": ["semantic"],
        "contrast_weight": 0.0,
        "shared_prompt": True,
        "wording": "compact",
    },
}


@pytest.fixture(params=GENSR_WAYS)
def gensr(request, aisles):
    """A model and its processor, with each kind of prompt."""
    return make_gensr(aisles, **GENSR_WAYS[request.param])


# The same face, but `retrieve` asks about every item.
GENSR_ASKING = {"every_item": {"retrieve_by": "answer", "shared_prompt": True, "wording": "short"}}
FAMILIES = {"gensar": WAYS, "gensr": GENSR_WAYS | GENSR_ASKING}


@pytest.fixture(params=[(name, way) for name, ways in FAMILIES.items() for way in ways], ids="-".join)
def family(request, aisles):
    """A model and its processor, of every family in every way."""
    name, way = request.param
    make = make_gensar if name == "gensar" else make_gensr
    return make(aisles, **FAMILIES[name][way])


@pytest.fixture(params=INTSR_WAYS)
def intsr(request):
    """An IntSR model and its processor, in each variant."""
    return make_intsr(**INTSR_WAYS[request.param])


@pytest.fixture(params=SYNERGEN_WAYS)
def synergen(request):
    """A SynerGen model and its processor, in each variant."""
    return make_synergen(**SYNERGEN_WAYS[request.param])


@pytest.fixture(
    params=[("intsr", way) for way in INTSR_WAYS] + [("synergen", way) for way in SYNERGEN_WAYS], ids="-".join
)
def dense_family(request):
    """A model and its processor, of every family of vectors in every variant."""
    name, way = request.param
    return make_intsr(**INTSR_WAYS[way]) if name == "intsr" else make_synergen(**SYNERGEN_WAYS[way])


@pytest.fixture(scope="module")
def windows():
    """The split of the log, a catalogue without identifiers, and the windows of training."""
    split = split_log(make_log())
    catalog = make_dense_catalog()
    return split, catalog, build_training_windows(split, catalog.id_map, actions=["click"], max_history=12)
