# SPDX-License-Identifier: Apache-2.0
"""Imports run one way and in no circle, and no module is too long to read in one go."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "seekrec"

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
    ("recipes",),
    ("hub",),
]
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MAX_LINES = 400
MAX_LINES_OF_MODELS = 1100  # a family's model is read in one file

MODULES = sorted(SOURCE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = ("seekrec", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> str:
    """`seekrec.catalog.files` belongs to `catalog`, `seekrec.events.log` to `events`; the root has none."""
    return module.split(".")[1] if "." in module else ""


def imports_of(code: str, module: str, is_package: bool, *, only_on_import: bool = False) -> Iterator[str]:
    """Give the modules of seekrec that some code imports; `from a import b` gives `a` or `a.b`.

    With `only_on_import`, leave out those for type checkers and those inside functions, which cannot form a cycle.
    """
    for node in walk(ast.parse(code), only_on_import):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "seekrec")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, *([node.module] if node.module else [])])
            if base.split(".")[0] == "seekrec":
                names = [f"{base}.{alias.name}" for alias in node.names]
                yield from (name if is_module(name) else base for name in names)


def walk(node: ast.AST, only_on_import: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if only_on_import and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if only_on_import and isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from walk(child, only_on_import)


def is_module(name: str) -> bool:
    path = SOURCE.parent / Path(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports_of_file(path: Path, *, only_on_import: bool = False) -> list[str]:
    code = path.read_text(encoding="utf-8")
    return list(imports_of(code, module_name(path), path.name == "__init__.py", only_on_import=only_on_import))


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
    found = {module_name(path): mistakes(module_name(path), imports_of_file(path)) for path in MODULES}
    assert {module: texts for module, texts in found.items() if texts} == {}


def test_modules_belong_to_a_layer():
    modules = [module_name(path) for path in MODULES]
    assert [module for module in modules if module != "seekrec" and layer(module) not in RANKS] == []


def test_modules_are_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    limits = {path: MAX_LINES_OF_MODELS if path.name.startswith("modeling_") else MAX_LINES for path in MODULES}
    assert {module_name(path): n for path, n in lengths.items() if n > limits[path]} == {}


def test_no_circle():
    graph = {module_name(path): set(imports_of_file(path, only_on_import=True)) for path in MODULES}
    del graph["seekrec"]
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


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
    found = mistakes(module, list(imports_of(code, module, is_package=False)))
    assert len(found) == len(expected)
    assert all(part in text for part, text in zip(expected, found, strict=True))


def test_imports_for_types_and_in_functions_form_no_circle():
    code = "import seekrec.schema\nif TYPE_CHECKING:\n    import seekrec.hub\ndef f():\n    import seekrec.events\n"
    assert list(imports_of(code, "seekrec.x", False, only_on_import=True)) == ["seekrec.schema"]
    assert len(list(imports_of(code, "seekrec.x", False))) == 3
