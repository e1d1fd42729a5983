# SPDX-License-Identifier: Apache-2.0
import pytest

from seekrec.events import EventLog
from seekrec.events.simulator import simulate


@pytest.fixture(scope="module")
def shop():
    return simulate(20_000, num_items=200, seed=3)


def test_the_log_passes_the_checks_of_every_log(shop):
    checked = EventLog("simulated", shop.log.events, shop.log.items, query_source="logged")
    assert checked.events.equals(shop.log.events)
    assert (shop.log.num_events, shop.log.num_items) == (20_000, 200)
