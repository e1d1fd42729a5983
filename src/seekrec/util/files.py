# SPDX-License-Identifier: Apache-2.0
"""Write files and folders atomically: readers find either the complete old version or the complete new one.

New files are written to a hidden folder next to their destination, `.NAME.XXXXXXXX.seekrec-tmp`, and reach the disk
before the folder gets its final name. A process that dies leaves such a folder behind; the next one that writes there
removes it. Whether its process is alive is checked by an operating system lock on the folder, never by a process id,
which another process or machine may also have.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import secrets
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from seekrec.errors import ConfigurationError, FolderInUseError

if sys.platform != "win32":
    import fcntl

_SUFFIX = ".seekrec-tmp"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}" + re.escape(_SUFFIX))
_OLD = re.compile(r"\.(.+)\.[0-9a-f]{8}\.seekrec-old")


@contextmanager
def replace_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name for `path`; it becomes `path` when the block ends, and is deleted when the block fails.

    Args:
        path (`str` or `Path`): The file to write. Its folder must exist.

    Yields:
        `Path`: Where to write, in a folder of its own.
    """
    target = Path(path)
    with _temporary_folder(target) as folder:
        yield folder / target.name
        _sync(folder / target.name)
        os.replace(folder / target.name, target)
        _sync(target.parent)


def write_json(path: str | Path, content: object, *, sort_keys: bool = False, allow_nan: bool = True) -> None:
    """Write a JSON file in one step.

    Args:
        path (`str` or `Path`): The file to write. Its folder must exist.
        content (`object`): Value that JSON can hold.
        sort_keys (`bool`): Whether keys are written in order.
        allow_nan (`bool`): Whether numbers may be NaN or infinite.

    Raises:
        ValueError: If a number is not finite and `allow_nan` is off.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=sort_keys, allow_nan=allow_nan)
    with replace_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_table(path: str | Path, table: pa.Table) -> None:
    """Write a Parquet file in one step. The folder of `path` must exist."""
    with replace_file(path) as temporary:
        # Not "compliant": that renames the fields of lists, and a table must come back with the types it had.
        pq.write_table(table, temporary, compression="zstd", use_compliant_nested_type=False)


def as_stored(table: pa.Table) -> pa.Table:
    """Return a table with the types that it has when it is read again: Parquet has no times in seconds, say.

    Raises:
        pyarrow.ArrowException: If a Parquet file cannot hold one of them.
    """
    buffer = pa.BufferOutputStream()
    pq.ParquetWriter(buffer, table.schema, use_compliant_nested_type=False).close()
    return table.cast(pq.read_schema(pa.BufferReader(buffer.getvalue())))


@contextmanager
def replace_folder(path: str | Path, *, keep: Callable[[str], bool] | None = None) -> Iterator[Path]:
    """Yield an empty folder to fill; it takes the place of `path` when the block ends, in one step.

    Killed at any moment, the process leaves the whole old folder at `path` or the whole new one. Where the operating
    system cannot swap two folders in one step, there is a moment without either: [`recover_folder`] puts the old one
    back. Where `path` is the root of a mounted file system, its files change one after the other.

    Args:
        path (`str` or `Path`): The folder to write. Folders above it are made where missing; a symbolic link stays
            and what it points to is replaced.
        keep (`Callable[[str], bool]`, *optional*):
            Which entries of the old folder stay, by their name, unless the new one has its own of that name.
            Their files are linked, not copied, where the file system can.

    Yields:
        `Path`: Where to write. When the block fails it is deleted, and the old folder is as it was.

    Raises:
        ConfigurationError: If `path` is a file.
    """
    target = Path(os.path.realpath(path))
    if target.is_file():
        raise ConfigurationError(f"{path} is a file; pass a folder; it is created if it does not exist.")
    target.parent.mkdir(parents=True, exist_ok=True)
    # What is mounted cannot be swapped: it is changed entry by entry, from inside.
    is_mounted = os.path.ismount(target)
    recover_folder(target)
    with _temporary_folder(target / target.name if is_mounted else target) as outer:
        folder = outer / target.name if target.name else outer / "root"
        folder.mkdir()
        yield folder
        if is_mounted:
            _sync_tree(folder)
            _replace_entries(folder, target, keep)
        else:
            if target.is_dir():
                shutil.copymode(target, folder)
                _carry_over(target, folder, keep)
            _sync_tree(folder)
            if _swap(folder, target):
                # What another process has put into the old folder since is not lost.
                _carry_over(folder, target, keep)
        _sync(target.parent)


def recover_folder(path: str | Path) -> None:
    """Put an old folder back where a process died between the two steps that some systems need to replace one."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        return
    for entry in os.scandir(target.parent):
        found = _OLD.fullmatch(entry.name)
        if found and found[1] == target.name:
            if target.exists():
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.rename(entry.path, target)


@contextmanager
def lock_folder(path: str | Path) -> Iterator[None]:
    """Lock a folder for one process; create it if it does not exist.

    The lock is the operating system's: it leaves no file, and ends with the process however that ends.

    Args:
        path (`str` or `Path`): The folder.

    Raises:
        FolderInUseError: If another process, or another block of this one, holds it.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = _lock(folder)
    except OSError as error:
        warnings.warn(
            f"{folder} cannot be locked ({error.strerror or error}); make sure that no other process writes there.",
            stacklevel=3,
        )
        yield
        return
    if lock is None:
        raise FolderInUseError(f"{folder} is in use by another process; wait until it ends, or pass another folder.")
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    """Yield a locked, empty folder next to a place, and delete it afterwards with what is then in it."""
    sweep_folder(target.parent)
    folder, lock = _make_temporary(target)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _make_temporary(target: Path) -> tuple[Path, int | None]:
    while True:
        folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}{_SUFFIX}")
        folder.mkdir()
        try:
            lock = _lock(folder)
        except FileNotFoundError:
            continue  # a sweeping process was faster than the lock
        except OSError:
            return folder, None  # no locks here: nothing is swept either
        if lock is not None and folder.is_dir():
            return folder, lock
        if lock is not None:
            os.close(lock)


def sweep_folder(folder: str | Path) -> None:
    """Delete the temporary folders in a folder whose processes have died; writing there does so, too."""
    parent = Path(folder)
    for name in [entry.name for entry in os.scandir(parent) if _TEMPORARY.fullmatch(entry.name)]:
        try:
            lock = _lock(parent / name)
        except OSError:
            continue
        if lock is not None:
            shutil.rmtree(parent / name, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder: a descriptor to close, or `None` where another has it. OSError where the system has no locks."""
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "Windows has no folder locks")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _carry_over(source: Path, target: Path, keep: Callable[[str], bool] | None) -> None:
    """Link the entries to keep that the target lacks."""
    if keep is None:
        return
    for entry in list(os.scandir(source)):
        other = target / entry.name
        if not keep(entry.name) or os.path.lexists(other) or _TEMPORARY.fullmatch(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.copytree(entry.path, other, symlinks=True, copy_function=_link)
        else:
            _link(entry.path, str(other))


def _replace_entries(folder: Path, target: Path, keep: Callable[[str], bool] | None) -> None:
    """Move the entries of a folder into another, and delete those of the other that do not stay."""
    names = {entry.name for entry in os.scandir(folder)}
    for name in sorted(names):
        if (folder / name).is_dir():
            _swap(folder / name, target / name)
        else:
            os.replace(folder / name, target / name)
    for entry in list(os.scandir(target)):
        if entry.name in names or _TEMPORARY.fullmatch(entry.name) or (keep is not None and keep(entry.name)):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.remove(entry.path)
    _sync(target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without links
        shutil.copy2(source, target, follow_symlinks=False)


def _swap(folder: Path, target: Path) -> bool:
    """Swap a folder into a path. Return whether a folder was there before; it is then where the new one was."""
    try:
        # Onto nothing, or onto an empty folder: one step on every system.
        os.rename(folder, target)
        return False
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES):
            raise
    if not _exchange(folder, target):
        old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.seekrec-old")
        os.rename(target, old)
        os.rename(folder, target)
        os.rename(old, folder)
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Swap the names of two folders in one step; False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    at_working_folder, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of linux/fs.h
    if function(at_working_folder, os.fsencode(one), at_working_folder, os.fsencode(other), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            if not os.path.islink(os.path.join(root, name)):
                _sync(Path(root, name))
        _sync(Path(root))


def _sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    if os.name == "nt":
        return  # it opens no folders, and flushes files that were closed
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network file systems
            raise
    finally:
        os.close(descriptor)


__all__ = [
    "as_stored",
    "lock_folder",
    "recover_folder",
    "replace_file",
    "replace_folder",
    "sweep_folder",
    "write_json",
    "write_table",
]
