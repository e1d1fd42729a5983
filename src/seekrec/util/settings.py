# SPDX-License-Identifier: Apache-2.0
"""Turn a class of settings into command-line options: its fields are the options, its docstring their help.

A model's configuration is such a class. Fields determined by data (the number of items, a hash of their ids) are
listed in its `fields_from_data` and are not options; fields of a library's base class are options if
`fields_from_base` lists them. So a setting of a model is declared once, in its configuration.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Literal, Union, get_args, get_origin, get_type_hints


def is_configuration(kind: type) -> bool:
    """Return whether a class says which of its fields are options."""
    return hasattr(kind, "fields_from_data")


def option_names(kind: type) -> list[str]:
    """Return the fields of a class that are options, in the order of their declaration."""
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    if not is_configuration(kind):
        return names
    own = {name for base in kind.__mro__ if base.__module__.startswith("seekrec.") for name in _annotations(base)}
    chosen = (own | set(getattr(kind, "fields_from_base", ()))) - set(getattr(kind, "fields_from_data", ()))
    return [name for name in names if name in chosen]


def option_values(group: object) -> dict[str, object]:
    """Return the options of an object of such a class, by name."""
    return {name: getattr(group, name) for name in option_names(type(group))}


@functools.cache
def options_of(kind: type) -> type:
    """Make the dataclass of a class's options that `HfArgumentParser` reads, with help from docstrings."""
    names, defaults = option_names(kind), {field.name: field for field in dataclasses.fields(kind)}
    hints = _hints(kind, names)
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        texts.update(argument_texts(base.__doc__ or ""))
    fields = []
    for name in names:
        old = defaults[name]
        default: object = old.default
        if old.default_factory is not dataclasses.MISSING:
            default = old.default_factory()
        # A percent sign would be a placeholder to argparse.
        text = old.metadata.get("help") or texts.get(name, "")
        metadata: dict[str, object] = {"help": text.replace("%", "%%")}
        kind_of_field, choices = _parsed_type(hints[name])
        if choices or "choices" in old.metadata:
            metadata["choices"] = choices or old.metadata["choices"]
        if kind_of_field == list[float] and isinstance(default, float):
            default = [default]
        option: object = dataclasses.field(default=default, metadata=metadata)
        if isinstance(default, (list, tuple)):
            option = dataclasses.field(default_factory=partial(list, default), metadata=metadata)
        fields.append((name, kind_of_field, option))
    return dataclasses.make_dataclass(kind.__name__, fields)


def argument_texts(docstring: str) -> dict[str, str]:
    """Return the description of each argument in a Google docstring, as one line."""
    found: dict[str, list[str]] = {}
    name, indent = None, 0
    for line in inspect.cleandoc(docstring).splitlines():
        depth = len(line) - len(line.lstrip())
        match = re.match(r"^( {4,})(\w+) \(.*?\):(?: (.*))?$", line)
        if match is not None and (name is None or depth <= indent):
            name, indent = match.group(2), depth
            found[name] = [match.group(3) or ""]
        elif name is not None and line.strip() and depth > indent:
            found[name].append(line.strip())
        elif line.strip():
            name = None
    return {name: " ".join(" ".join(lines).split()) for name, lines in found.items()}


def _annotations(kind: type) -> Mapping[str, object]:
    return inspect.get_annotations(kind)


def _hints(kind: type, names: list[str]) -> dict[str, object]:
    """Return the types of some fields; others of a library's class may name what cannot be imported here."""
    found: dict[str, object] = {}
    for base in reversed(kind.__mro__):
        own = {name: hint for name, hint in _annotations(base).items() if name in names}
        holder = type(base.__name__, (), {"__annotations__": own, "__module__": base.__module__})
        found.update(get_type_hints(holder))
    return found


def _parsed_type(hint: object) -> tuple[object, list[object]]:
    """Return the type that argparse reads, and the choices of a sequence's values: a list of numbers or of strings."""
    options = list(_alternatives(hint))
    if set(options) == {int, float}:
        return float, []
    sequences = [option for option in options if get_origin(option) in (list, tuple)]
    if not sequences:
        return hint, []
    if float in get_args(sequences[0]):
        return list[float], []
    held = [kind for kind in get_args(sequences[0]) if get_origin(kind) is Literal]
    return (list[str] if types.NoneType not in options else list[str] | None), list(get_args(held[0])) if held else []


def _alternatives(hint: object) -> Iterator[object]:
    if get_origin(hint) in (Union, types.UnionType):
        yield from get_args(hint)
    else:
        yield hint


__all__ = ["argument_texts", "is_configuration", "option_names", "option_values", "options_of"]
