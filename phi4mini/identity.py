"""What the bytes of everything we keep on disk depend on, in one table, and the digests that stand for it.

Promises: a thing is found again only by all that its bytes depend on: sources, versions of libraries, and the facts
that its maker adds. A file is told from others by its content: a name, a size or a time is never taken for it. Content
that was hashed once is remembered by what the system says of the file (device, inode, size, time of last change and of
last change of status, which no program can set back), unless the file was changed so shortly before that the clock
may not tell a further change apart. It does not know what the things are.

The instruction set is in the key of a kernel and not in that of a page: all CPUs compute the same bits, so a page may
be read on a machine other than the one that wrote it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
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
    """One kind of cached thing. `sources`: files of this package, as patterns; `besides`: what its maker adds for each
    one, in words.
    """

    version: int  # raised by hand when its bytes change for a reason that is not in the sources
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
            "formats/*.py",
            "kernels/**/*.py",
            "engine/batch.py",
            "engine/compute/buffers.py",
            "engine/cache/pages.py",
            "engine/cache/disk.py",
            "engine/compute/forward.py",
            "engine/request.py",
            "model/arrays.py",
            "weights/store/store.py",
        ),
        ("llvmlite", "numpy"),
        "the weights (the hash of their store's header, which holds those of all matrices); the cache's layout and "
        "byte order; LongRoPE set and salt; every token up to the page's end",
    ),
    # a store outlives versions of this program, whose sources would tell too much: the number is held by a test
    # (tests/weights/test_source_identity.py) that knows the bytes which conversion gives
    "store": Thing(
        3, (), (), "kind of the source; of a hub model its id and revision; name and content of every file; the recipe"
    ),
    "synthetic store": Thing(2, (), ("numpy",), "the number of layers; the recipe"),
}


def key_of(what: str, *facts: str) -> str:
    """sha256, as hex, over the row of THINGS named `what` and the facts of one thing of that kind."""
    return hashlib.sha256(json.dumps([_code(what), *facts]).encode()).hexdigest()


@functools.cache
def _code(what: str) -> list[str]:
    """The row of a kind as text: its version, each source with its hash, each library with its version."""
    thing = THINGS[what]
    lines = [f"{what} {thing.version}"]
    lines += [f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for name, path in sources(what).items()]
    return [*lines, *(f"{name} {library_version(name)}" for name in thing.libraries)]


def sources(what: str) -> dict[str, Path]:
    """The source files that a kind of thing depends on, by their names within the package, in order."""
    package = Path(__file__).parent
    found: dict[str, Path] = {}
    for pattern in THINGS[what].sources:
        paths = sorted(package.glob(pattern))
        if not paths:
            raise Phi4MiniError(f"{package / pattern}: no such source; this installation is not whole")
        found |= {path.relative_to(package).as_posix(): path for path in paths}
    return found


def library_version(name: str) -> str:
    """The version of an installed library. Raises `NotFound`."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise NotFound(f"{name} is not installed, or without its metadata") from error


# ---- the content of files

MEMO = "contents.json"  # in the cache folder
_SMALL = 1 << 20  # bytes; a smaller file is read each time
_SETTLED = 3_000_000_000  # ns since a file's last change, after which a further one shows in its times (FAT: 2 s)
_PATIENCE = 2.0  # seconds of reading after which it is said
_BLOCK = 1 << 22
_MOST_REMEMBERED = 512
State = tuple[int, int, int, int, int]  # device, inode, size, ns of the last change of content and of status


@dataclass(frozen=True)
class Content:
    """The sha256 of a file as hex, and the state that the file was in when it was read."""

    sha256: str
    state: State

    def check(self, path: Path) -> None:
        """Raises `BadInput` if the file is not, or is no longer, the one that was read."""
        try:
            same = _state(os.stat(path)) == self.state
        except OSError:
            same = False
        if not same:
            raise BadInput(f"{path} was changed while it was read; try again when it is whole")


def contents(paths: Iterable[Path], say: Callable[[str], None] | None = None) -> dict[Path, Content]:
    """The content of each file. `say` gets one line when reading them takes long. Raises `NotFound` or `BadInput`."""
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
    """What was hashed before, in one file: real path -> state and sha256."""

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
        """The content of a file that is in the state in which it was hashed."""
        row = self._known.get(str(path))
        try:
            state = _state(os.stat(path))
        except OSError as error:
            raise NotFound(f"{path}: {error.strerror}") from error
        if not isinstance(row, list) or len(row) != len(state) + 1 or row[:-1] != list(state):
            return None
        return Content(str(row[-1]), state)

    def keep(self, read: Mapping[Path, Content], began: int) -> None:
        """Remember large files that had rested for a while when reading them `began`, ns since 1970."""
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
