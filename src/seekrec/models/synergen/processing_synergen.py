# SPDX-License-Identifier: Apache-2.0
"""The SynerGen processor: turns requests into model inputs."""

from __future__ import annotations

from seekrec.models.dense.processing_dense import EventSequenceProcessor


# Identical to EventSequenceProcessor except: the name, by which AutoProcessor finds it.
class SynerGenProcessor(EventSequenceProcessor):
    """Turns requests into arrays of item rows, actions, timestamps, sessions and query vectors."""


__all__ = ["SynerGenProcessor"]
