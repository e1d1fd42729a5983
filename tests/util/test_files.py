# SPDX-License-Identifier: Apache-2.0
"""Files and folders are the old ones or the new ones, wherever the process that writes them dies."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
from kill_points import run_killed

from seekrec.errors import ConfigurationError, FolderInUseError
from seekrec.util import files
from seekrec.util.files import lock_folder, recover_folder, replace_file, replace_folder
from seekrec.util.hashing import file_sha256


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def write(folder: Path, text: str, names=("a", "sub/b")) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replace_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with replace_file(path) as temporary:
        assert temporary.name == "file"
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "x" / "folder"
    with replace_folder(target) as folder:
        write(folder, "old", ("a", "sub/b", "sub/only_old"))
    with pytest.raises(RuntimeError), replace_folder(target) as folder:
        write(folder, "half")
        raise RuntimeError
    assert contents(target) == {"a": "old", "sub/b": "old", "sub/only_old": "old"}
    with replace_folder(target) as folder:
        assert list(folder.iterdir()) == []
        write(folder, "new")
    assert contents(target) == {"a": "new", "sub/b": "new"}
    assert os.listdir(tmp_path / "x") == ["folder"]


def test_entries_to_keep_stay_unless_the_new_folder_has_them(tmp_path):
    target = tmp_path / "folder"
    write(target, "old", ("a", "notes/1", "notes/2", "dropped"))
    (target / "link").symlink_to("a")
    with replace_folder(target, keep=lambda name: name != "dropped") as folder:
        write(folder, "new", ("a",))
        write(target, "late", ("notes2",))  # another process writes meanwhile
    assert contents(target) == {"a": "new", "link": "new", "notes/1": "old", "notes/2": "old", "notes2": "late"}
    assert os.readlink(target / "link") == "a"


def test_what_is_written_into_the_old_folder_at_the_last_moment_stays(tmp_path, monkeypatch):
    target, exchange = tmp_path / "folder", files._exchange
    write(target, "old")

    def late(one, other):
        write(target, "late", ("rng_state_1",))
        return exchange(one, other)

    monkeypatch.setattr(files, "_exchange", late)
    with replace_folder(target, keep=lambda name: name.startswith("rng")) as folder:
        write(folder, "new", ("a",))
    assert contents(target) == {"a": "new", "rng_state_1": "late"}


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    write(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    with replace_folder(tmp_path / "link") as folder:
        write(folder, "new", ("a",))
    assert (tmp_path / "link").is_symlink() and contents(tmp_path / "real") == {"a": "new"}


def test_a_file_is_no_folder_to_replace(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="is a file"), replace_folder(tmp_path / "file"):
        pass


def test_what_is_mounted_is_changed_from_inside(tmp_path, monkeypatch):
    target = tmp_path / "volume"
    write(target, "old", ("a", "sub/b", "kept", "gone/c"))
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == target)
    with replace_folder(target, keep=lambda name: name == "kept") as folder:
        write(folder, "new")
        assert target in folder.parents
    assert contents(target) == {"a": "new", "sub/b": "new", "kept": "old"}
    assert sorted(os.listdir(target)) == ["a", "kept", "sub"]


@pytest.mark.parametrize("has_exchange", [True, False], ids=["one step", "two steps"])
def test_a_folder_is_old_or_new_wherever_the_process_is_killed(tmp_path, monkeypatch, has_exchange):
    if not has_exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    old, new = {"a": "old", "sub/b": "old", "kept": "old"}, {"a": "new", "sub/b": "new", "kept": "old"}

    def save() -> None:
        with replace_folder(target, keep=lambda name: name == "kept") as folder:
            write(folder, "new")

    states, kill_at, killed = [], 1, True
    while killed:
        target = tmp_path / str(kill_at) / "folder"
        write(target, "old", tuple(old))
        killed = run_killed(save, kill_at)
        recover_folder(target)
        found = contents(target)
        states.append("old" if found == old else "new" if found == new else found)
        save()  # sweeps what the killed process has left
        assert contents(target) == new and os.listdir(target.parent) == ["folder"]
        kill_at += 1
    assert set(states) == {"old", "new"} and states == sorted(states, reverse=True)
    assert len(states) > 10


def test_a_file_is_old_or_new_wherever_the_process_is_killed(tmp_path):
    def save() -> None:
        with replace_file(path) as temporary:
            temporary.write_text("new")

    states, kill_at, killed = [], 1, True
    while killed:
        path = tmp_path / str(kill_at) / "file"
        write(path.parent, "old", ("file",))
        killed = run_killed(save, kill_at)
        states.append(path.read_text())
        save()
        assert contents(path.parent) == {"file": "new"} and len(os.listdir(path.parent)) == 1
        kill_at += 1
    assert set(states) == {"old", "new"} and states == sorted(states, reverse=True)


def test_temporary_folders_of_living_processes_stay(tmp_path):
    with replace_file(tmp_path / "a") as one:
        with replace_file(tmp_path / "b") as other:
            other.write_text("b")
        one.write_text("a")
    assert contents(tmp_path) == {"a": "a", "b": "b"}


def test_a_locked_folder_is_named(tmp_path):
    with lock_folder(tmp_path / "run"):
        with pytest.raises(FolderInUseError, match=r"run is in use by another process"):
            with lock_folder(tmp_path / "run"):
                pass
    with lock_folder(tmp_path / "run"):
        assert os.listdir(tmp_path / "run") == []


def _hold(folder: Path) -> None:
    with lock_folder(folder):
        (folder / "held").touch()


def test_a_lock_ends_with_its_process(tmp_path):
    # A process killed before its first file operation inside the block.
    assert run_killed(lambda: _hold(tmp_path), 3)
    with lock_folder(tmp_path):
        pass


def test_a_file_system_without_locks_warns(tmp_path, monkeypatch):
    def fail(folder):
        raise OSError(errno.EBADF, "Bad file descriptor")  # what NFS says

    monkeypatch.setattr(files, "_lock", fail)
    with pytest.warns(UserWarning, match="cannot be locked"), lock_folder(tmp_path):
        pass
    with replace_folder(tmp_path / "folder") as folder:
        write(folder, "new")
    assert os.listdir(tmp_path) == ["folder"]


def test_file_sha256_is_the_standard_librarys(tmp_path):
    content = bytes(range(256)) * 5000  # 1.28 MB: two blocks
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
