# SPDX-License-Identifier: Apache-2.0
"""Imports run one way and in no circle, and no module is too long to read in one go."""

from __future__ import annotations

import house
import pytest

# A module may import from its own layer and from those before it.
LAYERS = [
    ("schema", "errors", "util"),
    ("events",),
    ("embeddings",),
    ("identifiers",),
    ("catalog",),
    ("corpora",),
    ("generation",),
    ("models",),
    ("training",),
    ("evaluation",),
    ("serving",),
    ("recipes",),
    ("hub",),
]
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MAX_LINES = 400
MAX_LINES_OF_MODELS = 1100  # a family's model is read in one file

MODULES = house.modules_of(house.ROOT)


def layer(module: str) -> str:
    """`seekrec.catalog.files` belongs to `catalog`, `seekrec.events.log` to `events`; the root has none."""
    return module.split(".")[1] if "." in module else ""


def mistakes(module: str, imported: list[str]) -> list[str]:
    """Say what is wrong with what a module imports."""
    if module == "seekrec":
        return []  # the public surface: it may import all
    found = []
    for name in imported:
        if name == "seekrec":
            found.append("imports the package root")
        elif RANKS.get(layer(name), -1) > RANKS[layer(module)]:
            found.append(f"imports {name}, which comes later than {layer(module)}")
        elif name == f"seekrec.{layer(module)}" and module.startswith(f"{name}."):
            found.append(f"imports {name}, the package it is part of; import the module that defines the name")
    return found


def test_modules_import_leftward():
    found = {module: mistakes(module, sorted(imported)) for module, imported in house.import_graph(house.ROOT).items()}
    assert {module: texts for module, texts in found.items() if texts} == {}


def test_modules_belong_to_a_layer():
    modules = [house.module_name(path) for path in MODULES]
    assert [module for module in modules if module != "seekrec" and layer(module) not in RANKS] == []


def test_modules_are_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    limits = {path: MAX_LINES_OF_MODELS if path.name.startswith("modeling_") else MAX_LINES for path in MODULES}
    assert {house.module_name(path): n for path, n in lengths.items() if n > limits[path]} == {}


def test_no_circle():
    """Imports for type checkers count, too."""
    assert house.circles(house.ROOT) == []


def test_configurations_keep_their_types():
    """`strict` reads the types of the fields; postponed annotations are strings, which it takes for "anything"."""
    paths = [path for path in MODULES if path.name.startswith("configuration_")]
    postponed = [path for path in paths if "\nfrom __future__ import annotations\n" in path.read_text("utf-8")]
    assert postponed == [], "remove `from __future__ import annotations`: it switches off the checks of `strict`"


@pytest.mark.parametrize(
    ("module", "code", "expected"),
    [
        ("seekrec.events.log", "from seekrec.schema import Event", []),
        (
            "seekrec.events.log",
            "def f():\n    import seekrec.models.gensar",
            ["seekrec.models.gensar, which comes later"],
        ),
        ("seekrec.events.log", "from ..models import interface", ["seekrec.models.interface, which comes later"]),
        ("seekrec.events.log", "from . import splits", []),
        ("seekrec.events.log", "from seekrec.events import EventLog", ["the package it is part of"]),
        ("seekrec.events.log", "import seekrec", ["package root"]),
        ("seekrec.events.log", "from seekrec import Request", ["package root"]),
        ("seekrec.catalog.files", "from seekrec.identifiers import assign_unique", []),
        ("seekrec.identifiers.assign", "import seekrec.catalog.files", ["seekrec.catalog.files, which comes later"]),
    ],
)
def test_mistakes_are_found(module, code, expected):
    modules = {house.module_name(path) for path in MODULES}
    found = mistakes(module, list(house.imports_of(code, module, False, modules)))
    assert len(found) == len(expected)
    assert all(part in text for part, text in zip(expected, found, strict=True))


def test_imports_in_functions_form_no_circle_and_those_for_types_do(tmp_path):
    package = tmp_path / "src" / "seekrec"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "a.py").write_text("if TYPE_CHECKING:\n    import seekrec.b\n")
    (package / "b.py").write_text("from seekrec import c\n")
    (package / "c.py").write_text("def f():\n    import seekrec.a\n")
    assert house.circles(tmp_path) == []
    (package / "c.py").write_text("import seekrec.a\n")
    assert house.circles(tmp_path) == [["seekrec.a", "seekrec.b", "seekrec.c"]]
