"""The fixtures of the models' tests."""

import pytest
from small_shop import (
    GENSAR_WAYS,
    INTSR_WAYS,
    SYNERGEN_WAYS,
    make_aisles,
    make_dense_catalog,
    make_gensar,
    make_gensr,
    make_intsr,
    make_log,
    make_synergen,
)

from seekrec.corpora.training_windows import build_training_windows
from seekrec.events import split_log


@pytest.fixture(scope="session")
def aisles():
    """The log, its split, a catalogue and a tokenizer with its vocabulary."""
    return make_aisles()


@pytest.fixture(params=GENSAR_WAYS)
def gensar(request, aisles):
    """A model and its processor, in each way of writing and reading instructions."""
    return make_gensar(aisles, **GENSAR_WAYS[request.param])


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


@pytest.fixture(params=GENSR_WAYS)
def gensr(request, aisles):
    """A model and its processor, with each kind of prompt."""
    return make_gensr(aisles, **GENSR_WAYS[request.param])


# The same face, but `retrieve` asks about every item.
GENSR_ASKING = {"every_item": {"retrieve_by": "answer", "shared_prompt": True, "wording": "short"}}
FAMILIES = {"gensar": GENSAR_WAYS, "gensr": GENSR_WAYS | GENSR_ASKING}


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
