# SPDX-License-Identifier: Apache-2.0
"""What users may import is a list; every name on it exists and is described."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types

import pytest

import seekrec

PACKAGES = ["seekrec"] + [
    module.name for module in pkgutil.walk_packages(seekrec.__path__, prefix="seekrec.") if module.ispkg
]
NAMES = [(package, name) for package in PACKAGES for name in getattr(importlib.import_module(package), "__all__", [])]


@pytest.mark.parametrize("package", PACKAGES)
def test_package_has_a_list_of_names(package):
    names = importlib.import_module(package).__all__  # may be empty: a folder that another library reads
    assert len(names) == len(set(names)), "a name stands twice"


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda value: str(value))
def test_name_resolves(package, name):
    getattr(importlib.import_module(package), name)


@pytest.mark.parametrize("package", PACKAGES)
def test_list_is_complete(package):
    """Every class and function of seekrec that a package's namespace holds in the open is on its list."""
    module = importlib.import_module(package)
    unlisted = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and str(getattr(value, "__module__", "")).startswith("seekrec")
        and name not in module.__all__
    ]
    assert unlisted == []


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda value: str(value))
def test_class_or_function_is_described(package, name):
    value = getattr(importlib.import_module(package), name)
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return
    text = value.__doc__ or ""
    assert text.strip(), "has no docstring"
    # What `dataclass` writes by itself is a signature, not a description.
    assert not text.startswith(f"{name}("), "has only the docstring that `dataclass` makes"
