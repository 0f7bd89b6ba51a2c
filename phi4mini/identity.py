"""The keys of everything that we keep on disk: one table of what the bytes of each kind depend on, and their digests.

Promises: the key of a cached thing covers all that its bytes depend on: source files, versions of libraries, and the
facts that the caller adds. A file is identified by the sha256 of its content, never by its name, size or time. A hash
is remembered under the file's device, inode, size, time of change of content (mtime) and time of change of status
(ctime, which no program can set back). It is not remembered if the file had changed within the last three seconds: a
second change could then leave the same times. This file does not know what the cached things are.

The key of a kernel contains the instruction set, the key of a page does not: all CPUs compute the same bits, so one
machine may read the pages that another wrote.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from phi4mini.errors import BadInput, NotFound, Phi4MiniError
from phi4mini.files import atomic_write, cache_home

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Thing:
    """One kind of cached thing. `sources`: files of this package, as patterns; `besides`: in words, the facts that the
    caller of `key_of` adds for each thing.
    """

    version: int  # raised by hand when the bytes change for a reason that the sources do not show
    sources: tuple[str, ...]
    libraries: tuple[str, ...]
    besides: str


THINGS = {
    "kernel": Thing(
        1,
        ("formats/*.py", "kernels/**/*.py"),
        ("llvmlite", "numpy"),
        "the kernel's parameters; the target: instruction set, triple, CPU and its features",
    ),
    "page": Thing(
        2,
        (
            "model/config.py",
            "model/config_json.py",
            "model/longrope.py",
            "formats/*.py",
            "kernels/**/*.py",
            "engine/batch.py",
            "engine/collate.py",
            "engine/request.py",
            "engine/cache/disk.py",
            "engine/cache/pages.py",
            "engine/cache/seat.py",
            "engine/compute/buffers.py",
            "engine/compute/forward.py",
            "engine/schedule/prefix.py",
            "model/arrays.py",
            "weights/store/store.py",
        ),
        ("llvmlite", "numpy"),
        "the weights (the hash of their store's header, which holds those of all matrices); the cache's layout and "
        "byte order; LongRoPE set, salt and adapter; every token up to the page's end",
    ),
    # A store outlives versions of this program, and most changes of the sources leave its bytes as they are. So the
    # version is raised by hand; tests/weights/test_source_identity.py knows the bytes of a conversion and fails if it
    # was not.
    "store": Thing(
        3, (), (), "kind of the source; of a hub model its id and revision; name and content of every file; the recipe"
    ),
    "synthetic store": Thing(2, (), ("numpy",), "the number of layers; the recipe"),
}


def key_of(what: str, *facts: str) -> str:
    """sha256, as hex, of the row `what` of THINGS together with the facts of one thing of that kind."""
    return hashlib.sha256(json.dumps([_code(what), *facts]).encode()).hexdigest()


@functools.cache
def _code(what: str) -> list[str]:
    """The row of a kind as lines: its version, each source with its sha256, each library with its version."""
    thing = THINGS[what]
    lines = [f"{what} {thing.version}"]
    lines += [f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for name, path in sources(what).items()]
    return [*lines, *(f"{name} {library_version(name)}" for name in thing.libraries)]


def sources(what: str) -> dict[str, Path]:
    """The source files that a kind of thing depends on: name within the package -> path, in a fixed order."""
    package = Path(__file__).parent
    found: dict[str, Path] = {}
    for pattern in THINGS[what].sources:
        paths = sorted(package.glob(pattern))
        if not paths:
            raise Phi4MiniError(f"{package / pattern}: no such source; this installation is not whole")
        found |= {path.relative_to(package).as_posix(): path for path in paths}
    return found


def library_version(name: str) -> str:
    """The version of a library by its module. Raises `NotFound`.

    The module is imported, which costs nothing here: whoever asks uses it. The package's metadata would take 20 ms of
    every start.
    """
    try:
        return str(importlib.import_module(name).__version__)
    except (ImportError, AttributeError) as error:
        raise NotFound(f"{name} is not installed, or does not state its version") from error


# ---- the content of files

MEMO = "contents.json"  # in the cache folder
_SMALL = 1 << 20  # bytes; smaller files are hashed each time and not remembered
_SETTLED = 3_000_000_000  # ns: a file that changes again later than this gets other times (FAT counts in 2 s)
_PATIENCE = 2.0  # seconds of reading after which a line says so
_BLOCK = 1 << 22
_MOST_REMEMBERED = 512
State = tuple[int, int, int, int, int]  # device, inode, size, ns of the last change of content and of status


@dataclass(frozen=True)
class Content:
    """The sha256 of a file as hex, and the state of the file when it was read."""

    sha256: str
    state: State

    def check(self, path: Path) -> None:
        """Raises `BadInput` if the file at `path` has changed since it was read, or is another one."""
        try:
            same = _state(os.stat(path)) == self.state
        except OSError:
            same = False
        if not same:
            raise BadInput(f"{path} was changed while it was read; try again when it is whole")


def contents(paths: Iterable[Path], say: Callable[[str], None] | None = None) -> dict[Path, Content]:
    """The content of each file. `say` gets one line if reading takes more than two seconds. Raises `NotFound` for a
    missing file, `BadInput` for one that changes meanwhile.
    """
    real = {path: Path(os.path.realpath(path)) for path in paths}
    memo = _Memo()
    found = {path: memo.find(path) for path in set(real.values())}
    missing = [path for path, known in found.items() if known is None]
    if missing:
        began = time.time_ns()
        read = _hash_all(missing, say)
        memo.keep(read, began)
        found.update(read)
    return {path: content for path, where in real.items() if (content := found[where]) is not None}


def _hash_all(paths: list[Path], say: Callable[[str], None] | None) -> dict[Path, Content]:
    """Read files on two threads, the largest first."""
    stop = threading.Event()
    sizes = {path: path.stat().st_size if path.exists() else 0 for path in paths}
    pool = ThreadPoolExecutor(2, thread_name_prefix="phi4mini-contents")
    try:
        tasks: dict[Path, Future[Content]] = {
            path: pool.submit(_hash, path, stop) for path in sorted(paths, key=sizes.__getitem__, reverse=True)
        }
        _, late = wait(tasks.values(), _PATIENCE)
        if late and say:
            say(f"reading {sum(sizes.values()) / 1e9:.1f} GB to tell these weights from others; this is remembered")
        return {path: task.result() for path, task in tasks.items()}
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _hash(path: Path, stop: threading.Event) -> Content:
    whole, buffer = hashlib.sha256(), bytearray(_BLOCK)
    try:
        with open(path, "rb", buffering=0) as file:
            state = _state(os.fstat(file.fileno()))
            while not stop.is_set() and (count := file.readinto(buffer)):
                whole.update(memoryview(buffer)[:count])
            content = Content(whole.hexdigest(), state)
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror}") from error
    content.check(path)
    return content


def _state(about: os.stat_result) -> State:
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


class _Memo:
    """Hashes of earlier calls, in one JSON file in the cache folder: real path -> state and sha256."""

    def __init__(self) -> None:
        self._path = cache_home() / MEMO
        self._known = self._read()

    def _read(self) -> dict[str, list[object]]:
        try:
            known = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            _log.warning("%s cannot be read (%s); files are hashed again", self._path, type(error).__name__)
            return {}
        return known if isinstance(known, dict) else {}

    def find(self, path: Path) -> Content | None:
        """The remembered content of a file, or None if the file is not in the state in which it was hashed."""
        row = self._known.get(str(path))
        try:
            state = _state(os.stat(path))
        except OSError as error:
            raise NotFound(f"{path}: {error.strerror}") from error
        if not isinstance(row, list) or len(row) != len(state) + 1 or row[:-1] != list(state):
            return None
        return Content(str(row[-1]), state)

    def keep(self, read: Mapping[Path, Content], began: int) -> None:
        """Remember large files that had not changed for three seconds when reading them `began`, ns since 1970."""
        rested = {
            str(path): [*content.state, content.sha256]
            for path, content in read.items()
            if content.state[2] >= _SMALL and began - max(content.state[3:]) > _SETTLED
        }
        if not rested:
            return
        known = {path: row for path, row in (self._read() | rested).items() if path in rested or os.path.exists(path)}
        text = json.dumps(dict(list(known.items())[-_MOST_REMEMBERED:])).encode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path, len(text)) as file:
                file.write(text)
        except (OSError, Phi4MiniError) as error:
            _log.warning("the content of large files cannot be remembered: %s", error)
