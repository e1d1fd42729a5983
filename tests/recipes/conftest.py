"""What every recipe is run on."""

import pytest
from tiny_data import write_encoder, write_log


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """The folders of a log and of a text encoder; do not change them."""
    folder = tmp_path_factory.mktemp("tiny")
    return write_log(folder / "log"), write_encoder(folder)
