"""The fixtures of the models' tests."""

import pytest
from small_shop import (
    GENSAR_WAYS,
    GENSR_WAYS,
    INTSR_WAYS,
    SYNERGEN_WAYS,
    WAYS,
    make_aisles,
    make_dense_catalog,
    make_gensar,
    make_gensr,
    make_intsr,
    make_log,
    make_model,
    make_synergen,
)

from seekrec.corpora.training_windows import build_training_windows
from seekrec.events import split_log

# By default each family is tested as its paper has it and as its recipes do; the other ways are slow by mark.
DEFAULT_WAYS = {
    "gensar": ("instructions", "stream"),
    "gensr": ("sentence", "shared_prompt", "views"),
    "intsr": ("paper", "latest_merged"),
    "synergen": ("paper", "both"),
}


def marked(family, way, value):
    """One parameter of a test, slow unless the way is a default one of its family."""
    return pytest.param(value, marks=() if way in DEFAULT_WAYS[family] else pytest.mark.slow)


def alone(family, ways):
    return [marked(family, way, way) for way in ways]


def ways_of(*families):
    return [marked(family, way, (family, way)) for family in families for way in WAYS[family]]


@pytest.fixture(scope="session")
def aisles():
    """The log, its split, a catalogue and a tokenizer with its vocabulary."""
    return make_aisles()


@pytest.fixture(params=alone("gensar", GENSAR_WAYS))
def gensar(request, aisles):
    """A model and its processor, in each way of writing and reading instructions."""
    return make_gensar(aisles, **GENSAR_WAYS[request.param])


@pytest.fixture(params=alone("gensr", GENSR_WAYS))
def gensr(request, aisles):
    """A model and its processor, with each kind of prompt."""
    return make_gensr(aisles, **GENSR_WAYS[request.param])


@pytest.fixture(params=alone("intsr", INTSR_WAYS))
def intsr(request):
    """An IntSR model and its processor, in each variant."""
    return make_intsr(**INTSR_WAYS[request.param])


@pytest.fixture(params=alone("synergen", SYNERGEN_WAYS))
def synergen(request):
    """A SynerGen model and its processor, in each variant."""
    return make_synergen(**SYNERGEN_WAYS[request.param])


@pytest.fixture(params=ways_of("gensar", "gensr"), ids="-".join)
def family(request, aisles):
    """A model and its processor, of every family of identifiers in every way."""
    return make_model(*request.param, aisles)


@pytest.fixture(params=ways_of("intsr", "synergen"), ids="-".join)
def dense_family(request, aisles):
    """A model and its processor, of every family of vectors in every way."""
    return make_model(*request.param, aisles)


@pytest.fixture(params=ways_of(*WAYS), ids="-".join)
def any_family(request, aisles):
    """A model and its processor, of every family in every way."""
    return make_model(*request.param, aisles)


@pytest.fixture(scope="module")
def windows():
    """The split of the log, a catalogue without identifiers, and the windows of training."""
    split = split_log(make_log())
    catalog = make_dense_catalog()
    return split, catalog, build_training_windows(split, catalog.id_map, actions=["click"], max_history=12)
