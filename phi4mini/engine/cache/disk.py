"""Pages of the KV cache as files: a prompt seen before a restart is read instead of computed.

Promises: a page is served only if all its bytes are there, and if the weights, the code and libraries that computed it
(the row "page" of identity.py), its layout and every token up to its end are the ones asked for. Any other file is
ignored with one line, and the prompt is computed. Only files that this user alone may write are read. The folder stays
below its limit; the least recently used files are deleted first.

Writing happens on a thread of its own, so that no pass waits for the disk. The thread does not hold the page it writes:
a page whose place is taken by another request before it is copied is simply not written.

    bytes 0..7    magic "PHI4PAGE"
    bytes 8..11   version u32 (1)
    bytes 12..15  length of the header u32
    bytes 16..47  sha256 of the header
    bytes 48..    header: JSON, UTF-8 (identity, name, parent, tokens, nbytes, crc32); then the page, layer by layer

A file's name is a chain of sha256 from the root of the tree to its page: over the identity; then over LongRoPE set,
salt, adapter and the first 64 tokens; then over the next 64 tokens; and so on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import queue
import stat
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phi4mini.engine.cache.pages import Content, Node
from phi4mini.errors import BadInput, Phi4MiniError
from phi4mini.files import atomic_write, sweep_stale
from phi4mini.identity import key_of
from phi4mini.kernels.kv import PAGE

MAGIC, VERSION, SUFFIX = b"PHI4PAGE", 1, ".page"
PREFIX = struct.Struct("<8sII32s")
MOST_HEADER = 1 << 16  # bytes
_DEPTH_STEP = 1000  # ns: a page counts as used so much earlier than the page before it, so it is deleted first


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


@dataclass(frozen=True)
class CacheFolder:
    """Where pages outlive the process. `fingerprint` is the identity of the weights: the hash of their store's header,
    which holds the hashes of all matrices. `say` gets warnings.
    """

    path: Path
    fingerprint: str
    limit: int = 8 << 30  # bytes of all files
    say: Callable[[str], None] = _to_stderr


class _Unusable(Exception):
    """The reason why a file is ignored."""


class Disk:
    """The files of one engine. `has` and `read` work in the caller's thread; everything that writes is queued."""

    def __init__(self, folder: CacheFolder, content: Content) -> None:
        self.folder, self.content = folder, content
        layout = content.layout
        shape = [layout.kind, layout.kv_heads, layout.head_dim, PAGE, content.layers, sys.byteorder]
        self.identity = bytes.fromhex(key_of("page", str(VERSION), folder.fingerprint, json.dumps(shape)))
        if folder.limit < content.nbytes + MOST_HEADER:
            raise BadInput(f"a prefix cache of {folder.limit} bytes holds no page of {content.nbytes}")
        _make(folder.path)
        self._warned = False
        self._bad: set[bytes] = set()  # pages whose files were found unusable
        self._replaced: set[bytes] = set()  # pages whose files were written anew; files that continue them are suspect
        self._used: int | None = None  # bytes of all files; None until they are counted
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._run, name="phi4mini-prefix-cache", daemon=True)
        self._writer.start()

    def path(self, node: Node) -> Path:
        """The path of a page's file, whether it exists or not."""
        return self.folder.path / (node.digest.hex() + SUFFIX)

    def has(self, node: Node) -> bool:
        """True if there is a file under this page's name that was not found unusable."""
        return node.digest not in self._bad and os.path.exists(self.path(node))

    def read(self, node: Node, page: np.ndarray) -> bool:
        """Fill a page, uint8 (nbytes,), from its file. False, at first with a warning, if it is of no use."""
        try:
            descriptor = os.open(self.path(node), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb", buffering=0) as file:
                header = self._header(node, os.fstat(descriptor), file)
                if header["crc32"] != _fill(page, file):
                    raise _Unusable("its bytes were changed")
        except FileNotFoundError:
            return False  # another process made room
        except (_Unusable, OSError) as error:
            self._bad.add(node.digest)
            self._warn(f"{self.path(node)} is ignored: {getattr(error, 'strerror', None) or error}")
            return False
        return True

    def put(self, node: Node) -> None:
        """Queue a page to be written. It is not written if its place is taken first."""
        self._work.put(functools.partial(self._write, node))

    def touch(self, node: Node) -> None:
        """Queue an update of the times of last use of a page and all pages before it."""
        self._work.put(functools.partial(self._refresh, node))

    def remove(self, nodes: list[Node]) -> None:
        """Queue the deletion of the pages' files."""
        self._work.put(functools.partial(_unlink, [self.path(node) for node in nodes]))

    def close(self) -> None:
        """Work off the queue and end the thread."""
        self._work.put(None)
        self._writer.join()

    # the file --------------------------------------------------------------------------------------------------------

    def _header(self, node: Node, about: os.stat_result, file: Any) -> dict[str, Any]:
        """The header of an open file. Raises _Unusable unless it is exactly the header that this page must have."""
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o022:
            raise _Unusable("it is not a file that only this user may write")
        prefix = file.read(PREFIX.size)
        if len(prefix) < PREFIX.size or prefix[:8] != MAGIC:
            raise _Unusable("it is not a page")
        _, version, length, digest = PREFIX.unpack(prefix)
        if version != VERSION:
            raise _Unusable(f"version {version} is not the one known here, {VERSION}")
        text = file.read(min(length, MOST_HEADER))
        if hashlib.sha256(text).digest() != digest:
            raise _Unusable("its header was changed")
        try:
            header = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _Unusable("its header is not one of a page") from error
        if not isinstance(header, dict) or header != self._about(node, header.get("crc32")):
            raise _Unusable("it holds other tokens, or those of another model")
        if about.st_size != (size := PREFIX.size + length + self.content.nbytes):
            raise _Unusable(f"it has {about.st_size} bytes and should have {size}")
        return header

    def _about(self, node: Node, crc: int | None) -> dict[str, Any]:
        assert node.parent is not None
        return {
            "identity": self.identity.hex(),
            "name": node.digest.hex(),
            "parent": node.parent.digest.hex(),
            "tokens": np.frombuffer(node.tokens[-4 * PAGE :], np.int32).tolist(),
            "nbytes": self.content.nbytes,
            "crc32": crc,
        }

    # the thread ------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (task := self._work.get()) is not None:
            try:
                task()
            except (Phi4MiniError, OSError) as error:
                self._warn(f"a page was not written: {error}")

    def _write(self, node: Node) -> None:
        assert node.parent is not None
        suspect = node.digest in self._bad or node.parent.digest in self._replaced
        if (page := node.page) is None or (os.path.exists(self.path(node)) and not suspect):
            return
        data = self.content.view(page).copy()
        if not node.known:  # the place was taken during the copy, which may then hold bytes of both
            return
        text = json.dumps(self._about(node, zlib.crc32(data.data))).encode()
        size = PREFIX.size + len(text) + data.nbytes
        self._make_room(size)
        with atomic_write(self.path(node), size) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(PREFIX.pack(MAGIC, VERSION, len(text), hashlib.sha256(text).digest()) + text)
            file.write(data.data)
        if suspect:
            self._replaced.add(node.digest)
            self._bad.discard(node.digest)

    def _refresh(self, node: Node) -> None:
        step, now = node, time.time_ns()
        while step.parent:
            used = now - step.depth * _DEPTH_STEP
            with suppress(FileNotFoundError):
                os.utime(self.path(step), ns=(used, used))
            step = step.parent

    def _make_room(self, size: int) -> None:
        """If `size` more bytes do not fit, delete the least recently used files down to nine tenths of the limit. Below
        the limit the bytes are only counted, so the folder is not listed for every page.
        """
        if self._used is not None and self._used + size <= self.folder.limit:
            self._used += size
            return
        files = sorted(_pages(self.folder.path), key=lambda entry: entry[0])
        self._used = sum(length for _, length, _ in files) + size
        if self._used > self.folder.limit:
            for _, length, path in files:
                if self._used <= max(self.folder.limit * 9 // 10, size):
                    break
                _unlink([path])
                self._used -= length

    def _warn(self, line: str) -> None:
        if not self._warned:
            self._warned = True
            self.folder.say(f"prefix cache: {line}")


def _fill(page: np.ndarray, file: Any) -> int:
    """Read a page in place and return its crc32. A file that ends early leaves the rest of the page unchanged."""
    file.readinto(page.data)
    return zlib.crc32(page.data)


def _pages(folder: Path) -> Iterable[tuple[int, int, Path]]:
    """(time of last use in ns, bytes, path) of all files of pages."""
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):
            about = path.lstat()
            yield about.st_mtime_ns, about.st_size, path


def _unlink(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot make the folder of the prefix cache {folder}: {error.strerror}") from error
    sweep_stale(folder)
