# SPDX-License-Identifier: Apache-2.0
"""Count what a reader of the package has to carry: files, lines, settings, hops of a call, holes in the types.

`python tests/house.py` prints a table, `--root PATH` that of another checkout. `test_house.py` holds the line.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import importlib
import inspect
import os
import pkgutil
import re
import runpy
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[1]
FAMILIES = ("gensar", "gensr", "intsr", "synergen")
# What a recipe puts before the settings of the models behind its items.
PREFIXES = {
    "seekrec.embeddings.configuration_sasrec": "sasrec_",
    "seekrec.embeddings.configuration_lightgcn": "lightgcn_",
    "seekrec.identifiers": "identifier_",
}


# Lines and imports: what can be read without running anything.


def modules_of(root: Path) -> list[Path]:
    return sorted((root / "src" / "seekrec").rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    parts = parts[len(parts) - 1 - parts[::-1].index("src") + 1 :]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(
    code: str, module: str, is_package: bool, modules: set[str], *, only_on_import: bool = False
) -> Iterator[str]:
    """Yield the modules of seekrec that some code imports; `from a import b` yields `a` or `a.b`.

    With `only_on_import`, leave out imports inside functions. Imports for type checkers count: who reads the types
    goes in that circle, too.
    """
    for node in _walk(_parse(code), only_on_import):
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
                yield from (name if name in modules else base for name in names)


@functools.cache
def _parse(code: str) -> ast.Module:
    return ast.parse(code)


def _walk(node: ast.AST, only_on_import: bool) -> Iterator[ast.AST]:
    """Yield all statements below a node; imports are no parts of expressions."""
    ahead = [node]
    while ahead:
        for child in ast.iter_child_nodes(ahead.pop()):
            if isinstance(child, ast.expr) or (
                only_on_import and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            ):
                continue
            yield child
            ahead.append(child)


def import_graph(root: Path, *, only_on_import: bool = False) -> dict[str, set[str]]:
    paths = {module_name(path): path for path in modules_of(root)}
    return {
        name: set(
            imports_of(
                path.read_text("utf-8"),
                name,
                path.name == "__init__.py",
                set(paths),
                only_on_import=only_on_import,
            )
        )
        for name, path in paths.items()
    }


def circles(root: Path) -> list[list[str]]:
    """Return the groups of modules that import each other on import, over however many steps."""
    graph = import_graph(root, only_on_import=True)
    graph.pop("seekrec")
    reached = {name: _reached(name, graph) for name in graph}
    groups = {tuple(sorted(other for other in reached[name] if name in reached.get(other, ()))) for name in graph}
    return [list(group) for group in sorted(groups) if group]


def _reached(start: str, graph: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        for name in graph.get(ahead.pop(), ()):
            if name not in found:
                found.add(name)
                ahead.append(name)
    return found


# Settings: what a recipe takes, and who declares it.


def argument_classes(family: str, root: Path) -> list[type]:
    """Return the classes whose fields are the settings of a recipe."""
    script = runpy.run_path(str(root / "recipes" / f"train_{family}.py"))
    if "ARGUMENTS" in script:  # before there were recipes in the package
        return list(script["ARGUMENTS"])
    recipe = next(kind for name, kind in script.items() if name.endswith("Recipe"))
    return list(recipe.argument_types())


def own_settings(family: str, root: Path) -> list[str]:
    """Return the settings of a recipe that classes of seekrec declare."""
    return [
        name
        for kind in argument_classes(family, root)
        for name in _options(kind)
        if any(base.__module__.startswith("seekrec.") for base in kind.__mro__ if name in _annotations(base))
    ]


def _options(kind: type) -> list[str]:
    try:
        from seekrec.util.settings import option_names
    except ModuleNotFoundError:
        return [field.name for field in dataclasses.fields(kind)]
    return option_names(kind)


def _annotations(kind: type) -> dict[str, object]:
    return vars(kind).get("__annotations__", {})


def repeated_settings(family: str, root: Path) -> dict[str, list[str]]:
    """Return the settings of a recipe that more than one class gives a default, with the classes.

    The classes are the recipe's arguments, and the dataclasses, configurations and processors of the family's own
    modules and of those that all families share, with the configurations of SASRec, LightGCN and identifiers, whose
    settings have a prefix in a recipe. A field that data decide is no setting, and a default that names another
    class's or a constant is no second one.
    """
    arguments = {base for kind in argument_classes(family, root) for base in kind.__mro__}
    kinds = {kind for kind in arguments if kind.__module__.startswith("seekrec.")}
    for found in pkgutil.walk_packages(importlib.import_module("seekrec").__path__, prefix="seekrec."):
        if _belongs_to(found.name.split("."), family):
            module = importlib.import_module(found.name)
            own = [kind for kind in vars(module).values() if inspect.isclass(kind) and kind.__module__ == found.name]
            kinds.update(kind for kind in own if not kind.__name__.endswith(("Arguments", "Output")))
    names = set(own_settings(family, root))
    declared: dict[str, list[str]] = {}
    for kind in kinds:
        prefix = next((added for part, added in PREFIXES.items() if kind.__module__.startswith(part)), "")
        fields = _declared(kind)
        written = {prefix + name for name in fields}
        if not kind.__module__.startswith("seekrec.embeddings"):  # its fields without the prefix are another model's
            written |= fields
        for name in written & names:
            declared.setdefault(name, []).append(kind.__name__)
    return {name: sorted(kinds) for name, kinds in sorted(declared.items()) if len(kinds) > 1}


def _belongs_to(parts: list[str], family: str) -> bool:
    """Whether a module is a family's own or shared by all."""
    if any(other in word.split("_") for word in parts for other in FAMILIES if other != family):
        return False
    if "dense" in parts:
        return family in ("intsr", "synergen")
    return parts[1] in ("models", "training", "recipes", "embeddings", "identifiers") or (
        parts[1] == "corpora" and family == "gensar"
    )


def _declared(kind: type) -> set[str]:
    """The names that a class itself gives a default: fields, or arguments of a processor."""
    if dataclasses.is_dataclass(kind):
        return {
            field.name
            for field in dataclasses.fields(kind)
            if field.name in _annotations(kind)
            and (field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING)
        } - {*getattr(kind, "fields_from_data", ()), *_taken_over(kind)}
    if kind.__name__.endswith("Processor") and "__init__" in vars(kind):
        arguments = inspect.signature(vars(kind)["__init__"]).parameters.values()
        return {one.name for one in arguments if one.default is not inspect.Parameter.empty}
    return set()


def _taken_over(kind: type) -> set[str]:
    """The fields of a class whose default is named: `SASRecConfig.hidden_size`, or a constant as `VIEW_ORDER`."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body
    return {one.target.id for one in body if isinstance(one, ast.AnnAssign) and _names_a_default(one)}


def _names_a_default(field: ast.AnnAssign) -> bool:
    nodes = list(ast.walk(field.value)) if field.value else []
    return any(
        isinstance(node, ast.Name) and (node.id.isupper() or isinstance(field.value, ast.Attribute)) for node in nodes
    )


# Hops: the files and functions of seekrec that a call goes through.


class Passes:
    """Count the files and functions of seekrec that are called inside a `with` block.

    Comprehensions, lambdas and module bodies are left out. Call once before counting, so that caches do not count.
    """

    def __enter__(self) -> Passes:
        package = importlib.import_module("seekrec").__path__[0] + os.sep
        self.functions: dict[str, set[str]] = {}

        def profile(frame: FrameType, event: str, argument: object) -> None:
            code = frame.f_code
            if event == "call" and code.co_filename.startswith(package):
                name = code.co_qualname
                if "<" not in name.split(".")[-1]:
                    self.functions.setdefault(code.co_filename[len(package) :], set()).add(name)

        sys.setprofile(profile)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)

    @property
    def counts(self) -> tuple[int, int]:
        """Files and functions."""
        return len(self.functions), sum(map(len, self.functions.values()))


def passes() -> dict[str, Passes]:
    """Count what a call of each kind goes through, from a request to an answer, when it is made the second time."""
    import small_shop as shop

    history = shop.HISTORY
    request = shop.Request(history)
    aisles = shop.make_aisles()
    candidates = [["i3", "i1", "i20"]]
    found = {}
    for title, (model, processor) in {
        "GenSAR.retrieve": shop.make_gensar(aisles),
        "GenSR.rank": shop.make_gensr(aisles),
        "IntSR.rank": shop.make_intsr(),
        "SynerGen.rank": shop.make_synergen(),
    }.items():
        for _ in range(2):
            with Passes() as passed:
                if title.endswith("rank"):
                    model.rank(processor([request], candidates=candidates))
                else:
                    model.retrieve(processor([request]), top_k=3)
        found[title] = passed
    return found


# The table.


def lines_with(words: str, root: Path) -> int:
    """In how many lines of the source some words stand."""
    lines = (line for path in modules_of(root) for line in path.read_text("utf-8").splitlines())
    return sum(re.search(rf"\b{words}\b", line) is not None for line in lines)


def measure(root: Path) -> dict[str, object]:
    found: dict[str, object] = {
        "files of src": len(modules_of(root)),
        "lines of src": sum(path.read_text("utf-8").count("\n") for path in modules_of(root)),
        "longest module": max(path.read_text("utf-8").count("\n") for path in modules_of(root)),
        "lines with `type: ignore`": lines_with("type: ignore", root),
        "lines with `Any`": lines_with("Any", root),
        "import circles": len(circles(root)),
        "lines of recipes/train_*.py": sum(
            path.read_text("utf-8").count("\n") for path in (root / "recipes").glob("train_*.py")
        ),
    }
    for family in FAMILIES:
        found[f"settings of train_{family}"] = len(own_settings(family, root))
        found[f"of these declared more than once, {family}"] = len(repeated_settings(family, root))
    for title, passed in passes().items():
        found[f"{title}: files / functions"] = " / ".join(map(str, passed.counts))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--details", action="store_true", help="name the settings, circles and functions counted")
    options = parser.parse_args()
    root = options.root.resolve()
    sys.path[:0] = [str(root / "src"), str(root / "tests"), str(root / "tests" / "models")]
    for title, value in measure(root).items():
        sys.stdout.write(f"| {title} | {value} |\n")
    if options.details:
        for family in FAMILIES:
            sys.stdout.write(f"\n{family}: {' '.join(own_settings(family, root))}\n")
            for name, kinds in repeated_settings(family, root).items():
                sys.stdout.write(f"  {name}: {', '.join(kinds)}\n")
        for group in circles(root):
            sys.stdout.write(f"circle: {' '.join(group)}\n")
        for title, passed in passes().items():
            sys.stdout.write(f"\n{title}\n")
            for file, functions in passed.functions.items():
                sys.stdout.write(f"  {file}: {' '.join(sorted(functions))}\n")


if __name__ == "__main__":
    main()
