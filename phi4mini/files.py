"""Files that are whole or absent: atomic writing, sweeping after a kill, a lock between processes, our cache folder.

Promise: at every moment a path holds the old file or the complete new one; what an error leaves is removed at once,
what kill -9 or a power cut leaves is removed by the next write in that folder. It does not know what the files hold.
POSIX only: rename over an existing file and flock are the ground it stands on.

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

    size: bytes that will be written, if known; checked against the free space before anything is.
    Raises NoSpace for a full disk, quota or file size limit, BadInput for a folder that cannot be written to.
    """
    target = Path(os.path.realpath(path))  # a link stays a link and its target is replaced
    sweep_stale(target.parent)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(8).hex()}.tmp")
    try:
        _check_room(target, size)
        with open(temporary, "x+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # tells a sweeper in another container, where our pid means nothing
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
    """Remove the temporary files in `folder` whose writer is dead; return them. A missing folder has none."""
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
    """Hold the right to make `path` while the block runs, against other processes and threads; waits for it if need be.

    say: gets one line when the lock is taken and this call waits. The one who waited looks again whether `path` is
    there by now. The lock is a file beside `path` that is gone afterwards; a dead holder holds nothing.
    """
    file_path = Path(path).with_name(f".{Path(path).name}.lock")
    descriptor = _take(file_path, path, say)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            file_path.unlink()  # still held: who waits on this file finds it gone and makes a new one
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
        os.close(descriptor)  # the holder removed the file while we waited on it


def cache_home() -> Path:
    """Where our converted models and compiled kernels live: PHI4MINI_HOME, else phi4mini in the user's cache folder."""
    own = os.environ.get("PHI4MINI_HOME")
    if own:
        return Path(own).expanduser().absolute()
    if sys.platform == "darwin":
        return Path("~/Library/Caches/phi4mini").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "phi4mini"
