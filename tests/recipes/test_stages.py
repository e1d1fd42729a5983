# SPDX-License-Identifier: Apache-2.0
"""A stage is run once, a changed setting runs it again, and so does damage; unfinished ones never look finished."""

import shutil
import threading
import time
from pathlib import Path

import pytest

from seekrec.errors import ConfigurationError
from seekrec.recipes import stages
from seekrec.recipes.stages import TRAINING_FOLDER, StageCache
from seekrec.training.budget import StageTime
from seekrec.util.files import lock_folder


def make_number(folder):
    """Write how often this was called; what `read` gives."""
    make_number.calls += 1
    (folder / "part").mkdir(exist_ok=True)
    (folder / "part" / "x").write_text(str(make_number.calls))


def read(folder):
    return (folder / "part" / "x").read_text()


@pytest.fixture(autouse=True)
def _no_calls():
    make_number.calls = 0


def test_a_stage_runs_once_for_each_setting(tmp_path):
    cache = StageCache(tmp_path)
    assert cache.run("s", {"a": 1}, make_number, read) == "1"
    assert cache.run("s", {"a": 1}, make_number, read) == "1"
    assert StageCache(tmp_path).run("s", {"a": 1}, make_number, read) == "1"
    assert cache.run("s", {"a": 2}, make_number, read) == "2"
    assert cache.run("t", {"a": 1}, make_number, read) == "3"
    assert make_number.calls == 3
    assert cache.seconds["s"] >= 0


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_another_version_of_a_library_runs_it_again(tmp_path, monkeypatch, library):
    def run():
        return StageCache(tmp_path).run("s", {}, make_number, read, libraries=(library,))

    assert [run(), run()] == ["1", "1"]
    for version, expected in (("99.1.5", "2"), ("99.1.6", "2"), ("99.2.0", "3")):
        monkeypatch.setattr(stages, "version", lambda name, version=version: version)
        assert run() == expected
    monkeypatch.setattr(stages, "STAGE_VERSION", 1_000)
    assert run() == "4"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


@pytest.mark.parametrize("name", ["part/x", "stage.json"])
@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.unlink()], ids=["cut", "changed", "removed"])
def test_a_damaged_stage_is_made_again(tmp_path, caplog, name, damage):
    cache = StageCache(tmp_path)
    cache.run("s", {}, make_number, read)
    (folder,) = tmp_path.iterdir()
    damage(folder / name)
    assert cache.run("s", {}, make_number, read) == "2"
    assert cache.run("s", {}, make_number, read) == "2"
    assert str(folder) in caplog.text and "redoing the stage" in caplog.text
    assert list(tmp_path.iterdir()) == [folder]


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


def test_a_stage_that_only_lacks_its_name_is_taken(tmp_path):
    cache = StageCache(tmp_path)
    cache.run("s", {}, make_number, read)
    (folder,) = tmp_path.iterdir()
    folder.rename(folder.with_name(f"{folder.name}.partial"))
    assert cache.run("s", {}, make_number, read) == "1"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("minutes", [None, 60.0])
def test_what_a_clock_cut_is_not_taken_by_another_run(tmp_path, monkeypatch, minutes):
    """Killed while its checkpoints are deleted, it lies there under the name of the whole."""

    def make_half(folder):
        (folder / "part").mkdir()
        (folder / "part" / "x").write_text("half")
        (folder / TRAINING_FOLDER).mkdir()
        cut.left_out = "9 of 10 epochs"

    def killed(path, **options):
        raise KeyboardInterrupt

    cut = StageTime(1.0, 60.0, lambda: 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("seekrec.recipes.stages.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            StageCache(tmp_path, max_minutes=1).run("s", {}, make_half, read, time=cut)
    again = StageTime(1.0, 60.0, lambda: 0.0)
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    limit = None if minutes is None else StageTime(900.0, 60 * minutes, lambda: 0.0)
    assert StageCache(tmp_path, max_minutes=minutes).run("s", {}, make_number, read, time=limit) == "1"
    assert limit is None or limit.left_out is None
    # A run of as many minutes takes what is whole, too.
    assert StageCache(tmp_path, max_minutes=1).run("s", {}, make_number, read, time=again) == "1"


def test_what_a_killed_process_left_in_a_stage_is_swept(tmp_path):
    cache = StageCache(tmp_path)
    cache.run("s", {}, make_number, read)
    (made,) = tmp_path.iterdir()
    partial = made.rename(f"{made}.partial")
    (partial / ".stage.json.0123abcd.seekrec-tmp").mkdir()  # killed after the record got its name
    assert cache.run("s", {}, make_number, read) == "1"
    assert sorted(path.name for path in made.iterdir()) == ["part", "stage.json"]


def test_a_stage_is_waited_for_while_another_process_makes_one(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "_SECONDS_BETWEEN_LOOKS", 0.01)
    with lock_folder(tmp_path):
        thread = threading.Thread(target=StageCache(tmp_path).run, args=("s", {}, make_number, read))
        thread.start()
        time.sleep(0.1)
        assert make_number.calls == 0
    thread.join(10)
    assert make_number.calls == 1


def test_a_key_must_be_json(tmp_path):
    with pytest.raises(ConfigurationError, match="The key of stage 's' cannot be written as JSON"):
        StageCache(tmp_path).run("s", {"a": object()}, lambda folder: None, lambda folder: None)


def test_checkpoints_of_a_stage_go_when_its_result_is_whole(tmp_path, monkeypatch):
    def make(folder):
        for name in (TRAINING_FOLDER, f"{TRAINING_FOLDER}-unknown"):
            (folder / name).mkdir()
            (folder / name / "checkpoint").write_text("x")
        make_number(folder)

    delete = shutil.rmtree

    def fail(folder, **options):
        if not Path(folder).name.startswith(TRAINING_FOLDER):
            return delete(folder, **options)
        # Killed when the first of the files is gone.
        next(folder.iterdir()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", fail)
        StageCache(tmp_path).run("s", {"a": 1}, make, read)
    assert StageCache(tmp_path).run("s", {"a": 1}, make, read) == "1"
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert sorted(path.name for path in folder.iterdir()) == ["part", "stage.json"]
