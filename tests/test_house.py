# SPDX-License-Identifier: Apache-2.0
"""What a reader of the package has to carry stays little: see `house.py`, which prints it."""

from __future__ import annotations

import dataclasses

import house
import pytest

from seekrec.util.settings import options_of

ROOT = house.ROOT
# As many as there are, lines rounded up to 250: what comes in replaces something, or raises them in plain sight.
MAX_MODULES = 348
MAX_LINES = 72_000
MAX_SETTINGS = {"gensar": 59, "gensr": 70, "intsr": 62, "synergen": 62}
MAX_PASSES = {
    "GenSAR.retrieve": (14, 69),
    "GenSR.rank": (7, 38),
    "IntSR.rank": (11, 49),
    "SynerGen.rank": (10, 44),
}


@pytest.mark.parametrize("family", house.FAMILIES)
def test_settings_are_few_and_declared_once(family):
    names = house.own_settings(family, ROOT)
    assert len(names) == len(set(names))
    assert len(names) <= MAX_SETTINGS[family], names
    assert house.repeated_settings(family, ROOT) == {}


@pytest.mark.parametrize("family", house.FAMILIES)
def test_settings_are_described(family):
    own = [kind for kind in house.argument_classes(family, ROOT) if kind.__module__.startswith("seekrec.")]
    fields = [field for kind in own for field in dataclasses.fields(options_of(kind))]
    assert [field.name for field in fields if not field.metadata.get("help")] == []


def test_an_answer_passes_few_functions():
    for title, passed in house.passes().items():
        few = all(count <= most for count, most in zip(passed.counts, MAX_PASSES[title], strict=True))
        assert few, (title, passed.counts, passed.functions)


def test_files_and_lines_do_not_grow():
    modules = house.modules_of(ROOT)
    assert len(modules) <= MAX_MODULES
    assert sum(len(path.read_text("utf-8").splitlines()) for path in modules) <= MAX_LINES


def test_types_have_few_holes():
    assert house.lines_with("type: ignore", ROOT) <= 15
    assert house.lines_with("Any", ROOT) <= 120


def test_recipes_are_short():
    lines = [len(path.read_text("utf-8").splitlines()) for path in (ROOT / "recipes").glob("train_*.py")]
    assert len(lines) == len(house.FAMILIES)
    assert sum(lines) <= 160
