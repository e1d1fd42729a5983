# SPDX-License-Identifier: Apache-2.0
"""What users may import is a list; every name on it exists and is described."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types

import seekrec

PACKAGES = [importlib.import_module("seekrec")] + [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(seekrec.__path__, prefix="seekrec.")
    if found.ispkg
]


def test_packages_have_a_list_of_names():
    """The list may be empty: a folder that another library reads."""
    lists = {package.__name__: list(getattr(package, "__all__", [None, None])) for package in PACKAGES}
    assert [package for package, names in lists.items() if len(names) != len(set(names))] == []


def test_lists_say_what_is_there():
    """Every name of a list resolves, and every class and function of seekrec in the open stands on the list."""
    listed = {(package.__name__, name) for package in PACKAGES for name in package.__all__}
    there = {
        (package.__name__, name)
        for package in PACKAGES
        for name, value in vars(package).items()
        if not isinstance(value, types.ModuleType)
        and (name in package.__all__ or not name.startswith("_"))
        and (name in package.__all__ or str(getattr(value, "__module__", "")).startswith("seekrec"))
    }
    assert listed ^ there == set()


def test_classes_and_functions_are_described():
    undescribed = []
    for package in PACKAGES:
        for name in package.__all__:
            value = getattr(package, name)
            if inspect.isclass(value) or inspect.isroutine(value):
                text = value.__doc__ or ""
                # What `dataclass` writes by itself is a signature, not a description.
                if not text.strip() or text.startswith(f"{name}("):
                    undescribed.append(f"{package.__name__}.{name}")
    assert undescribed == []
