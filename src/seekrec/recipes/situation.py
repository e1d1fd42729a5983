# SPDX-License-Identifier: Apache-2.0
"""Facts on a log and a machine that a plan is based on, and the plan's choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seekrec.events.report import LogSummary
from seekrec.recipes.machine import Machine

Value = bool | int | float | str | list[str] | list[float] | None


@dataclass(frozen=True)
class Choice:
    """A setting that was chosen.

    Args:
        name (`str`): The setting.
        value: Its value.
        reason (`str`): Why, in a few words.
    """

    name: str
    value: Value
    reason: str


@dataclass(frozen=True)
class Situation:
    """What choices depend on.

    Args:
        log ([`LogSummary`]): The log.
        machine ([`Machine`]): The machine.
        can_construct (`bool`): Whether searches can be made from the categories of the items.
        given (`Mapping`): Settings that the user gave, by name.
        minutes (`float`, *optional*): Minutes of the whole run, where they are limited.
        is_partitioned (`bool`): Whether the log is read a partition at a time.
    """

    log: LogSummary
    machine: Machine
    can_construct: bool
    given: Mapping[str, object]
    minutes: float | None = None
    is_partitioned: bool = False

    @property
    def makes_searches(self) -> bool:
        """Whether searches will be made from categories."""
        return not self.log.has_searches and self.can_construct and self.given.get("construction") != "none"

    @property
    def has_searches(self) -> bool:
        """Whether there will be searches to learn from."""
        return self.log.has_searches or self.makes_searches

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU trains."""
        return self.machine.gpu is not None

    @property
    def memory(self) -> int:
        """Bytes of memory of the device that trains."""
        return self.machine.gpu_memory or self.machine.memory


__all__ = ["Choice", "Situation", "Value"]
