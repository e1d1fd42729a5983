# SPDX-License-Identifier: Apache-2.0
"""The wheel can train: settings and templates of cards are in it, and its command resolves them."""

from __future__ import annotations

import runpy
import subprocess
import sys
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from seekrec.errors import ConfigurationError
from seekrec.recipes.command import FAMILIES, main
from seekrec.recipes.launch import find_packaged_settings
from seekrec.util.package_data import data_folder, find_settings, settings_names

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(folder / done.stdout.split()[-1]) as file:
        file.extractall(folder / "site")
    return folder / "site"


def test_settings_and_templates_are_in_the_wheel_where_the_package_looks(wheel):
    for name, place in (("recipes", "seekrec/recipes/settings"), ("hub_cards", "seekrec/hub/templates")):
        pattern = "*/*.yaml" if name == "recipes" else "**/*.md"
        there = {path.relative_to(wheel / place).as_posix() for path in (wheel / place).glob(pattern)}
        assert there == {path.relative_to(ROOT / name).as_posix() for path in (ROOT / name).glob(pattern)}
        assert len(there) > 5
    # No README, no results, no tests; every module.
    modules = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*.py")}
    assert modules == {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    own = runpy.run_path(str(wheel / "seekrec" / "util" / "package_data.py"))
    assert (own["data_folder"]("hub_cards") / "gensar.md").is_file()
    assert own["find_settings"]("gensar", "tiny") == str(wheel / "seekrec/recipes/settings/gensar/tiny.yaml")


def test_the_command_of_the_wheel_is_ours(wheel):
    (listed,) = wheel.glob("*.dist-info/entry_points.txt")
    name, _, value = listed.read_text().partition("[console_scripts]\n")[2].strip().partition(" = ")
    assert name == "seekrec" and EntryPoint(name, value, "console_scripts").load() is main


def test_settings_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = str(data_folder("recipes") / "gensr" / "tiny.yaml")
    assert find_packaged_settings("gensr", ["--seed", "1", "--config", "tiny"])[-1] == packaged
    assert find_packaged_settings("gensr", ["--config=tiny"]) == [f"--config={packaged}"]
    assert {"movielens-100k", "paper", "tiny"} <= set(settings_names("synergen"))
    # A file of that name comes first; what is a path, or no name of ours, stays.
    (tmp_path / "tiny").touch()
    assert find_settings("gensr", "tiny") == "tiny"
    assert (
        find_settings("gensr", "other/tiny.yaml") == "other/tiny.yaml" and find_settings("gensr", "a.yml") == "a.yml"
    )
    with pytest.raises(ConfigurationError, match="`--config` is 'no', which is neither a file nor .* gensr are movie"):
        find_settings("gensr", "no")
    with pytest.raises(
        ConfigurationError, match="contains settings of gensr, not of intsr; train gensr, or name one of intsr"
    ):
        find_settings("intsr", packaged)


def test_help_is_short_and_names_what_there_is(capsys):
    main([])
    text = capsys.readouterr().out
    assert "seekrec quickstart" in text and "train" in text and len(text.splitlines()) < 30
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert not stop.value.code and all(family in text for family in FAMILIES) and "movielens-100k" in text
    with pytest.raises(SystemExit):
        main(["train", "bert4rec"])
    assert "invalid choice: 'bert4rec'" in capsys.readouterr().err
