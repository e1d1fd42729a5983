# SPDX-License-Identifier: Apache-2.0
"""Remove secrets and local paths from the published record of a run."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

HIDDEN = "***"
# A shorter value of an environment variable is a word that texts may contain by chance.
_MIN_SECRET = 8
_SECRET_WORDS = {"token", "password", "passwd", "passphrase", "secret", "credential", "credentials", "apikey"}
_KEYS = {"api", "access", "private", "secret", "auth"}
# Hugging Face, OpenAI, GitHub, AWS, Slack, JSON web tokens.
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|AKIA[A-Z0-9]{16}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+)"
)
_LOGIN = re.compile(r"(?<=://)(?!\*{3}@)[^/\s@]+:[^/\s@]+@")
# Two parts at least: "/" alone, as in "and / or", is not a path.
_PATH = re.compile(r"(?<![\w./:\\-])(?:~?/|[A-Za-z]:\\|\\\\)[^\s\"',;:()\[\]{}<>|]+")


def is_secret(name: str) -> bool:
    """Return whether a setting or an environment variable of this name contains a secret, such as `hub_token`."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    keys = any(word == "key" and before in _KEYS for before, word in zip(words, words[1:], strict=False))
    return keys or not _SECRET_WORDS.isdisjoint(words)


def place_name(value: str) -> str:
    """Return the last part of a path; a name of the Hub, such as `google/flan-t5-base`, stays as it is.

    Only how it is written counts, not what is on this machine.
    """
    is_path = value.startswith(("/", "~", ".")) or value.count("/") > 1 or "\\" in value
    if not is_path or "://" in value:
        return value
    return (PureWindowsPath(value) if "\\" in value else PurePosixPath(value)).name or HIDDEN


def holds_secret(text: str) -> bool:
    """Return whether a text contains the value of a secret environment variable or what looks like a token."""
    return _hide_secrets(text) != text


def publishable_text(text: str) -> str:
    """Hide secrets in a text and shorten the absolute paths in it to their last part."""
    return _PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], _hide_secrets(text))


def _hide_secrets(text: str) -> str:
    for name, value in os.environ.items():
        if len(value) >= _MIN_SECRET and is_secret(name):
            text = text.replace(value, HIDDEN)
    return _LOGIN.sub(f"{HIDDEN}@", _SHAPES.sub(HIDDEN, text))


def publishable(value: object, name: str = "") -> Any:
    """Make settings fit to be published.

    Args:
        value: A JSON value.
        name (`str`): Name of the setting; it says whether the value is a secret or a path.
    """
    if isinstance(value, Mapping):
        return {key: publishable(one, str(key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [publishable(one, name) for one in value]
    if is_secret(name) and not (value is None or isinstance(value, bool | int | float)):
        return HIDDEN
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        return value
    is_place = re.search(r"(^|[_-])(dir|path|file|folder)$|^(events|items)$", name) is not None
    if is_place and value:
        value = Path(value).name
    elif value.startswith(("/", "~")) or not any(map(str.isspace, value)):
        value = place_name(value)
    return publishable_text(value)


def publishable_command(argv: Sequence[str]) -> str:
    """Write a command line without its secrets, its paths as names.

    Args:
        argv (`Sequence[str]`): The program and its options.
    """
    words, name = [], ""
    for word in argv:
        if word.startswith("--"):
            name, is_one_word, value = word[2:].partition("=")
            name = name.replace("-", "_")
            words.append(f"--{name}={publishable(value, name)}" if is_one_word else publishable_text(word))
            name = "" if is_one_word else name
        else:
            # A recipe and its settings file are of the project, not of the machine.
            words.append(publishable_text(word) if name in ("", "config") else publishable(word, name))
    return shlex.join(map(str, words))


__all__ = [
    "HIDDEN",
    "holds_secret",
    "is_secret",
    "place_name",
    "publishable",
    "publishable_command",
    "publishable_text",
]
