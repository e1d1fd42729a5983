# SPDX-License-Identifier: Apache-2.0
"""Settings from a flat YAML file, overridden by the command line; errors name file and line.

The file is untrusted input: anchors, duplicate keys and Python objects are rejected, and each value is parsed by the
type of its setting.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import yaml
from huggingface_hub.errors import StrictDataclassError
from transformers import HfArgumentParser

from seekrec.errors import ConfigurationError, SeekrecError
from seekrec.util.settings import options_of

# Settings of a recipe are a few dozen lines; what is larger is another file.
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class FileSetting:
    """A line of a settings file.

    Args:
        name (`str`): The key.
        value (`object`): `None`, a bool, number, string or date, or a list of these.
        place (`str`): File and line, for messages.
        words (`tuple[str, ...]`, *optional*): The value, or the values of the list, as they are written.
    """

    name: str
    value: object
    place: str
    words: tuple[str, ...] | None = None


def parse_arguments(
    dataclass_types: Sequence[type],
    argv: Sequence[str],
    *,
    ignored: Collection[str] = (),
    chosen: Mapping[str, object] | None = None,
) -> tuple[Any, ...]:
    """Read settings from `--config FILE.yaml` and the options after it.

    Args:
        dataclass_types (`Sequence[type]`):
            Dataclasses whose fields are the settings, model configurations among them (see `util.settings`).
        argv (`Sequence[str]`): The command line without the program's name.
        ignored (`Collection[str]`): Settings that may be given and are left at `None`.
        chosen (`Mapping`, *optional*): Values of settings that neither file nor command line gives.

    Returns:
        `tuple`: One filled dataclass for each type.

    Raises:
        ConfigurationError: For an unknown key or option, or a value of the wrong type; it names the file and the line.
    """
    parser = _Parser(options_of(kind) if kind.__module__.startswith("seekrec.") else kind for kind in dataclass_types)
    parser.add_argument("--config", help="YAML file of settings; options on the command line override it.")
    for name in ignored:
        action = parser.action_of(name)
        if action is not None:
            action.type, action.choices = _no_value, None
    options = list(argv)
    path = _pop_config(options)
    if path is not None:
        options = _file_options(read_settings(path), parser) + options
    if chosen:
        options = _file_options([FileSetting(name, value, "plan") for name, value in chosen.items()], parser) + options
    parser.source = "command line" if path is None else f"{path} and command line"
    *filled, rest = parser.fill(options)
    if rest:
        raise ConfigurationError(f"{parser.source}: {' '.join(rest)} is not a setting; see --help for all of them.")
    return tuple(
        part if type(part) is kind else _make(kind, part, parser.source)
        for kind, part in zip(dataclass_types, filled, strict=False)
    )


def given_settings(argv: Sequence[str]) -> set[str]:
    """Return the names of the settings that a command line and its `--config` file give a value.

    Args:
        argv (`Sequence[str]`): The command line without the program's name.
    """
    options = list(argv)
    path = _pop_config(options)
    names = {option.partition("=")[0][2:].replace("-", "_") for option in options if option.startswith("--")}
    return names | (set() if path is None else {one.name for one in read_settings(path) if one.value is not None})


def parse_known_arguments(dataclass_types: Sequence[type], argv: Sequence[str]) -> tuple[Any, ...]:
    """Read the options of a script that passes all others on.

    Args:
        dataclass_types (`Sequence[type]`): Dataclasses whose fields are the options of the script.
        argv (`Sequence[str]`): The command line without the program's name.

    Returns:
        `tuple`: One filled dataclass for each type, and the list of other strings.

    Raises:
        ConfigurationError: For a value of the wrong type, or an option that is missing.
    """
    return tuple(_Parser(dataclass_types).fill(argv))


def is_given(options: Sequence[str], name: str) -> bool:
    """Return whether a command line has an option, in any spelling: `--a_b 1`, `--a_b=1`, `--a-b 1`."""
    given = {option.partition("=")[0].replace("-", "_") for option in options if option.startswith("--")}
    return f"__{name}" in given


def read_settings(path: str | Path) -> list[FileSetting]:
    """Read a flat YAML file: one `key: value` a line, a value being one or a list.

    Raises:
        ConfigurationError: If it is not a flat YAML file, or has a key twice; the message names the line.
    """
    source = Path(path)
    if not source.is_file():
        raise ConfigurationError(f"`--config` is {str(path)!r}, which is not a file.")
    if source.stat().st_size > _MAX_BYTES:
        raise ConfigurationError(f"{path} has {source.stat().st_size} bytes; settings have at most {_MAX_BYTES}.")
    try:
        text = source.read_text(encoding="utf-8")
        _check_flat(text, source)
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not YAML in UTF-8 (byte {error.start}); save it as UTF-8.") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{_place(source, error)} is not YAML: {_problem(error)}.") from error
    found: dict[str, FileSetting] = {}
    for key, node in () if root is None else root.value:
        place = f"{path}, line {key.start_mark.line + 1}"
        if key.value in found:
            raise ConfigurationError(
                f"{place}: the key {key.value!r} is already in line {found[key.value].place.rpartition(' ')[2]}; keep "
                "one of the two."
            )
        try:
            value = loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise ConfigurationError(
                f"{place}: the value of {key.value!r} cannot be read ({_problem(error)}); write a word, a number, "
                "true, false or a list of these."
            ) from error
        pairs = zip(node.value, value, strict=True) if isinstance(value, list) else [(node, value)]
        found[key.value] = FileSetting(key.value, value, place, tuple(_as_written(*pair) for pair in pairs))
    return list(found.values())


def parse_weights(pairs: Sequence[str], argument: str) -> dict[str, float]:
    """Read `["nrip=1.0", "nsip=0.5"]`.

    Raises:
        ConfigurationError: If a pair is not `name=number` with a number of at least 0, or all are 0.
    """
    weights: dict[str, float] = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            raise ConfigurationError(f"`{argument}` has {pair!r}; write name=number, e.g. nrip=1.0.") from None
        if not 0 <= weights[name] < float("inf"):
            raise ConfigurationError(f"`{argument}` has {pair!r}; a weight is a number from 0 up.")
    if not any(weights.values()):
        raise ConfigurationError(f"`{argument}` is {list(pairs)}; at least one weight must be above 0.")
    return weights


class _Parser(HfArgumentParser):
    """Identical to `HfArgumentParser` except: mistakes are exceptions with a source, and a list may be empty."""

    source: str = "command line"

    def __init__(self, groups: Iterable[type]) -> None:
        # Types of dataclasses, of which the type checker knows no name.
        self.groups: list[Any] = list(groups)
        super().__init__(self.groups, allow_abbrev=False)
        for action in self._actions:
            if action.nargs == "+":
                action.nargs = "*"  # an option without a word is an empty list, as `[]` is in a file

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{self.source}: {message}")

    def action_of(self, name: str) -> argparse.Action | None:
        return self._option_string_actions.get(f"--{name}")

    def fill(self, options: Sequence[str]) -> list[Any]:
        """Return the dataclasses, and last the strings that belong to none."""
        try:
            # Without that, a file with the script's name and the suffix .args would be read, too.
            filled = self.parse_args_into_dataclasses(
                list(options), return_remaining_strings=True, look_for_args_file=False
            )
        except SeekrecError:
            raise
        except (ValueError, ImportError, TypeError) as error:
            # What the settings' own checks say, those of transformers among them.
            raise ConfigurationError(f"{self.source}: {error}") from error
        for part in filled[: len(self.groups)]:
            for name, value in vars(part).items():
                for number in value if isinstance(value, list) else [value]:
                    if isinstance(number, float) and not math.isfinite(number):
                        raise ConfigurationError(f"{self.source}: `{name}` is {number}; give a number that is finite.")
        return list(filled)


def _make(kind: type, options: object, source: str) -> Any:
    """Make an object of a class from its parsed options."""
    try:
        return kind(**vars(options))
    except (ValueError, TypeError, StrictDataclassError) as error:
        # A strict class wraps what its check says.
        said = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
        raise ConfigurationError(f"{source}: {said}") from error


def _no_value(_: str) -> None:
    return None


def _pop_config(options: list[str]) -> str | None:
    """Take `--config FILE` out of the options."""
    places = [place for place, option in enumerate(options) if option.partition("=")[0] == "--config"]
    if not places:
        return None
    if len(places) > 1:
        raise ConfigurationError(f"`--config` is given {len(places)} times; write all settings into one file.")
    _, is_one_word, path = options.pop(places[0]).partition("=")
    if is_one_word:
        return path
    if places[0] == len(options):
        raise ConfigurationError("`--config` names no file; write --config FILE.yaml.")
    return options.pop(places[0])


def _check_flat(text: str, path: Path) -> None:
    """Refuse what is not one mapping of words to values or lists, before anything is built from it.

    Events come one after the other: neither depth nor aliases cost anything here.
    """
    kinds: list[str] = []
    num_documents, expects_key = 0, False
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = f"{path}, line {event.start_mark.line + 1}" if event.start_mark is not None else str(path)
        if isinstance(event, yaml.DocumentStartEvent):
            num_documents += 1
            if num_documents > 1:
                raise ConfigurationError(f"{place}: a second document begins; write all settings into one.")
        elif isinstance(event, yaml.AliasEvent):
            raise ConfigurationError(f"{place}: `*{event.anchor}` refers to another value; write the value itself.")
        elif isinstance(event, yaml.NodeEvent):
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            if not kinds and not is_mapping:
                held = "a list" if isinstance(event, yaml.SequenceStartEvent) else "one value"
                raise ConfigurationError(f"{place} contains {held}; write one `key: value` a line.")
            if kinds and is_mapping:
                raise ConfigurationError(f"{place} contains a mapping; the file is flat, write a list of name=value.")
            if kinds == ["mapping"] and expects_key and not isinstance(event, yaml.ScalarEvent):
                raise ConfigurationError(f"{place}: a list in the place of a key; write one `key: value` a line.")
            if isinstance(event, yaml.SequenceStartEvent) and len(kinds) > 1:
                raise ConfigurationError(f"{place}: nested lists; write one flat list.")
            if len(kinds) == 1:
                expects_key = not expects_key
            if not isinstance(event, yaml.ScalarEvent):
                kinds.append("mapping" if is_mapping else "list")
                expects_key = expects_key or is_mapping
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            kinds.pop()
    if not num_documents:
        raise ConfigurationError(f"{path} is empty; write one `key: value` per line.")


def _file_options(settings: Sequence[FileSetting], parser: _Parser) -> list[str]:
    """Write the settings of a file as options, each checked by itself."""
    defaults = {one.name: one for kind in parser.groups for one in fields(kind)}
    options: list[str] = []
    for setting in settings:
        name, value = setting.name, setting.value
        action = parser.action_of(name)
        if name not in defaults or action is None:
            close = difflib.get_close_matches(name, defaults, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see --help for the keys."
            raise ConfigurationError(f"{setting.place}: the key {name!r} is unknown; {hint}")
        takes_list = action.nargs in ("+", "*")
        if value is None:
            if defaults[name].default is not None and defaults[name].default is not MISSING:
                raise ConfigurationError(
                    f"{setting.place}: {name!r} has no value; its default is {defaults[name].default!r}: write a "
                    "value, or leave the line out."
                )
            continue
        if isinstance(value, list) and not takes_list:
            raise ConfigurationError(f"{setting.place}: {name!r} is a list of {len(value)}; it takes one value.")
        for one in value if isinstance(value, list) else [value]:
            if one is None or (isinstance(one, bool) and action.type is str):
                raise ConfigurationError(
                    f"{setting.place}: {name!r} {'holds' if takes_list else 'is'} {json.dumps(one)}, and it takes "
                    f"{'words' if takes_list else 'a word'}; write it in quotes if it is one."
                )
        if value == []:
            parser.set_defaults(**{name: []})
            continue
        words = setting.words or tuple(map(str, value if isinstance(value, list) else [value]))
        own = [f"--{name}", *words] if isinstance(value, list) else [f"--{name}={words[0]}"]
        parser.source = setting.place
        parser.parse_known_args(own)
        options += own
    return options


def _as_written(node: yaml.Node, value: object) -> str:
    """Return the word that the setting reads; YAML takes 0123 for 83, 1.10 for 1.1 and 1:30 for 90."""
    is_word_of_yaml = isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value))
    return str(value if is_word_of_yaml else node.value)


def _place(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return str(path) if mark is None else f"{path}, line {mark.line + 1}"


def _problem(error: Exception) -> str:
    return str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).rstrip(".")


__all__ = [
    "FileSetting",
    "given_settings",
    "is_given",
    "parse_arguments",
    "parse_known_arguments",
    "parse_weights",
    "read_settings",
]
