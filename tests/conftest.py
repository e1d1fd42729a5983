# SPDX-License-Identifier: Apache-2.0
"""Settings that must stand before the libraries are imported, and a fixed seed for every test."""

from __future__ import annotations

import gc
import os
import random
import tempfile
from collections.abc import Iterator

import pytest

# There are several, none of which holds a doctest: as modules, two folders named at once would be at odds.
collect_ignore_glob = ["*conftest.py"]

# Read once, when a library is imported: so they are set here, not in a fixture.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Nothing listens there: a test that would reach for the network fails at once, everywhere.
    "HF_ENDPOINT": "http://127.0.0.1:9",
}


def pytest_configure(config: pytest.Config) -> None:
    """Set what the environment does not already say, and a cache that leaves the user's own alone."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # What tests start as a program of its own finds `small_shop`, too.
    paths = [os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    cache = tempfile.TemporaryDirectory(prefix="seekrec-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(cache.cleanup)
    os.environ["HF_HOME"] = cache.name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Slow tests take minutes on an idle machine, and as many times that as other processes share it.
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small models are faster on one thread, and sums come in one order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_disks() -> Iterator[None]:
    """What tests write need not outlive the machine; that a process may die at any step is tested without the wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def short_garbage_collections() -> None:
    """Spare what libraries and earlier tests have made from collections; Trainer asks for one for each run."""
    gc.freeze()


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    """Start every test from one seed, so that it gives the same result alone and among others."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    # Not `torch.manual_seed`, which formats a stack for each kind of device that is not there.
    torch.default_generator.manual_seed(0)
    yield
