# SPDX-License-Identifier: Apache-2.0
"""A class of settings as a group of options."""

import dataclasses
from typing import ClassVar, Literal

import pytest
from huggingface_hub.dataclasses import strict
from transformers import T5Config

from seekrec.errors import ConfigurationError
from seekrec.util.parsing import given_settings, parse_arguments
from seekrec.util.settings import argument_texts, option_names, options_of


@strict
class KiteConfig(T5Config):
    """Configuration of a kite.

    Args:
        tail (`str`): Length of the tail, 100 % of
            the kite's or more.
        colors (`list[str]`):
            Its colours.
        num_items (`int`): Number of items.

    Raises:
        ValueError: If it cannot fly.
    """

    fields_from_data: ClassVar[tuple[str, ...]] = ("num_items",)
    fields_from_base: ClassVar[tuple[str, ...]] = ("d_model",)

    tail: Literal["short", "long"] = "short"
    colors: list[Literal["red", "blue"]] | tuple[Literal["red", "blue"], ...] = ("red",)
    num_items: int = 0


# Fields of classes of other packages are no options unless they are named.
KiteConfig.__module__ = "seekrec.kites"


def parse(*options):
    return parse_arguments([KiteConfig], options)[0]


def test_the_docstring_is_the_help():
    fields = {field.name: field for field in dataclasses.fields(options_of(KiteConfig))}
    assert fields["tail"].metadata["help"] == "Length of the tail, 100 %% of the kite's or more."
    assert fields["colors"].metadata["help"] == "Its colours."
    assert argument_texts("Do.\n\nArgs:\n    a (`int`): One.\n\n    More text.\n") == {"a": "One."}


def test_options_are_own_fields_that_are_chosen_and_named_fields_of_the_base():
    assert sorted(option_names(KiteConfig)) == ["colors", "d_model", "tail"]
    with pytest.raises(ConfigurationError, match="--num_items 3 is not a setting"):
        parse("--num_items", "3")


def test_a_configuration_is_parsed():
    config = parse("--d_model", "32", "--tail", "long", "--colors", "red", "blue")
    assert isinstance(config, KiteConfig)
    assert (config.d_model, config.tail, list(config.colors)) == (32, "long", ["red", "blue"])
    assert (list(parse().colors), parse().num_items) == (["red"], 0)


@pytest.mark.parametrize("options", [("--tail", "wide"), ("--colors", "green")])
def test_choices_are_those_of_the_type(options):
    with pytest.raises(ConfigurationError, match="invalid choice"):
        parse(*options)


def test_given_settings_are_those_of_the_file_and_the_command_line(tmp_path):
    path = tmp_path / "kite.yaml"
    path.write_text("tail: long\nnum-items: 3\ncolors:\n")
    assert given_settings(["--config", str(path), "--d-model=8"]) == {"tail", "num-items", "d_model"}
    assert given_settings([]) == set()
