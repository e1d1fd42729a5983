# SPDX-License-Identifier: Apache-2.0
"""A simulated marketplace of any size, and the oracle that knows its users' true preferences."""

from seekrec.events.simulator.oracle import Oracle
from seekrec.events.simulator.simulation import SimulatedShop, simulate

__all__ = ["Oracle", "SimulatedShop", "simulate"]
