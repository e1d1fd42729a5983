"""A stage is run once, a changed setting runs it again, an interrupted one leaves nothing that looks finished."""

import pytest

from seekrec.errors import ConfigurationError
from seekrec.training import StageCache


def test_a_stage_runs_once_for_each_setting(tmp_path):
    calls = []

    def make(folder):
        calls.append(folder)
        (folder / "x").write_text(str(len(calls)))

    def read(folder):
        return (folder / "x").read_text()

    cache = StageCache(tmp_path)
    assert cache.run("s", {"a": 1}, make, read) == "1"
    assert cache.run("s", {"a": 1}, make, read) == "1"
    assert StageCache(tmp_path).run("s", {"a": 1}, make, read) == "1"
    assert cache.run("s", {"a": 2}, make, read) == "2"
    assert cache.run("t", {"a": 1}, make, read) == "3"
    assert len(calls) == 3
    assert cache.seconds["s"] >= 0


def test_an_interrupted_stage_starts_from_its_own_folder(tmp_path):
    seen = []

    def make(folder):
        seen.append(sorted(path.name for path in folder.iterdir()))
        (folder / "checkpoint").write_text("half")
        if len(seen) == 1:
            raise KeyboardInterrupt

    cache = StageCache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.run("s", {}, make, lambda folder: None)
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    cache.run("s", {}, make, lambda folder: None)
    assert seen == [[], ["checkpoint"]]
    assert [path.suffix for path in tmp_path.iterdir()] == [""]


def test_a_key_must_be_json(tmp_path):
    with pytest.raises(ConfigurationError, match="The key of stage 's' cannot be written as JSON"):
        StageCache(tmp_path).run("s", {"a": object()}, lambda folder: None, lambda folder: None)
