"""Files that are whole or absent: atomic writes, removal of stale temporary files, a lock between processes, and the
path of our cache folder.

Promise: at every moment a path holds the old file or the complete new one. A write that fails removes its temporary
file at once; after kill -9 or a power cut, the next write in that folder removes it. This file does not know what the
files hold. POSIX only: it needs a rename that replaces an existing file, and flock.

    with atomic_write(path, size=needed) as file:
        file.write(header)
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from phi4mini.errors import BadInput, NoSpace

_TEMPORARY = re.compile(r"\..+\.(\d+)\.[0-9a-f]{16}\.tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_write(path: str | os.PathLike[str], size: int | None = None) -> Iterator[BinaryIO]:
    """Yield a binary file, readable and seekable, that becomes `path` when the block ends without an exception.

    size: bytes that will be written, if known; they are compared with the free space before the first byte is written.
    Raises NoSpace for a full disk, quota or file size limit, BadInput for a folder that cannot be written to.
    """
    target = Path(os.path.realpath(path))  # a symbolic link stays, and its target is replaced
    sweep_stale(target.parent)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(8).hex()}.tmp")
    try:
        _check_room(target, size)
        with open(temporary, "x+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # shows other containers, where our pid means nothing, that we are alive
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        if error.errno in _FULL:
            needed = "" if size is None else f", {size} bytes needed"
            raise NoSpace(f"no space to write {target}{needed}: {error.strerror}") from error
        if error.filename in (str(temporary), str(target.parent)):
            raise BadInput(f"cannot write {target}: {error.strerror}") from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def _check_room(target: Path, size: int | None) -> None:
    if target.is_dir():
        raise BadInput(f"cannot write {target}: it is a folder")
    if size is None:
        return
    disk = os.statvfs(target.parent)
    free = disk.f_bavail * disk.f_frsize
    if free < size:
        raise NoSpace(f"no space to write {target}: {size} bytes needed, {free} free")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)  # without it a power cut may undo the rename
    finally:
        os.close(descriptor)


def sweep_stale(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove temporary files in `folder` whose writer is dead, and return their paths; [] if the folder is missing."""
    removed = []
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        for path in Path(folder).iterdir():
            match = _TEMPORARY.fullmatch(path.name)
            if match and not _alive(int(match[1])) and _unlocked(path):
                path.unlink()
                removed.append(path)
    return removed


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _unlocked(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


@contextmanager
def lock(path: str | os.PathLike[str], say: Callable[[str], None] = _to_stderr) -> Iterator[None]:
    """An exclusive lock on making `path`, between processes and between threads, held while the block runs.

    say: called with one line if another holder makes this call wait. A caller that has waited should look again whether
    `path` exists now. The lock is an flock on a file beside `path`; the file is removed at the end of the block, and
    the system releases the lock of a process that dies.
    """
    file_path = Path(path).with_name(f".{Path(path).name}.lock")
    descriptor = _take(file_path, path, say)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            file_path.unlink()  # while we hold it: a process that waits on this file finds it gone and makes a new one
        os.close(descriptor)


def _take(file_path: Path, path: str | os.PathLike[str], say: Callable[[str], None]) -> int:
    told = False
    while True:
        try:
            descriptor = os.open(file_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise BadInput(f"cannot lock {path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                say(f"waiting for another process that is writing {path}")
                told = True
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(file_path)):
                return descriptor
        os.close(descriptor)  # the holder removed the file while we waited: a lock on it protects nothing


def cache_home() -> Path:
    """The folder of stores, compiled kernels and cached pages: PHI4MINI_HOME, or the user's cache."""
    own = os.environ.get("PHI4MINI_HOME")
    if own:
        return Path(own).expanduser().absolute()
    if sys.platform == "darwin":
        return Path("~/Library/Caches/phi4mini").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "phi4mini"
