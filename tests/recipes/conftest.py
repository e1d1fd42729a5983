"""What every recipe is run on."""

import pytest
from tiny_data import write_encoder, write_log


@pytest.fixture(scope="session", autouse=True)
def a_glance_at_the_machine():
    """How fast it multiplies is looked at for a moment in place of a third of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seekrec.recipes.machine._PROBE_SECONDS", 0.01)
        yield


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """The folders of a log and of a text encoder; do not change them."""
    folder = tmp_path_factory.mktemp("tiny")
    return write_log(folder / "log"), write_encoder(folder)
