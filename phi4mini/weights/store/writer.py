"""Writing a store: arrays arrive as a stream of chunks, the file appears whole or not at all.

Promises: no more than one chunk is in memory; the header, whose length is known in advance, is written last, with the
hashes; a full disk raises `NoSpace` with the path and the bytes needed, and leaves no file. store.py describes the
layout. This file does not know where the arrays come from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from phi4mini.errors import BadInput
from phi4mini.files import atomic_write
from phi4mini.formats.format_table import Format
from phi4mini.model.arrays import StackFormat
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints import tensor_names
from phi4mini.weights.store.store import HEADER_AT, MAGIC, PREFIX, VERSION, Entry, align, array_bytes

Progress = Callable[[int, int], None]  # bytes done, bytes in all
_NO_HASH = "0" * 64


@dataclass(frozen=True)
class Contents:
    """Everything in a store's header except where the arrays lie. `formats`: the format of every matrix, by name."""

    config: Config
    tokenizer: bytes
    chat_format: str
    recipe: str
    source: Mapping[str, str]  # name, kind, identity, converter and revision of the source (source_identity.py)
    formats: Mapping[str, Format | StackFormat]
    chat_note: str = ""  # a warning about the chat format, shown at every opening

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return tensor_names.arrays(self.config)


def write_store(
    path: Path,
    contents: Contents,
    array: Callable[[str], Iterable[np.ndarray]],
    progress: Progress | None = None,
    check: Callable[[], None] | None = None,
) -> None:
    """Write a store. `array(name)` yields the bytes (uint8) of one array in order. `check` is called after the last
    array; if it raises, no file is left. Raises `NoSpace`.
    """
    entries = _layout(contents)
    total = entries[-1].offset + entries[-1].nbytes
    with atomic_write(path, size=total) as file:
        done = []
        for entry in entries:
            chunks = array(entry.name) if entry.shape else [np.frombuffer(contents.tokenizer, np.uint8)]
            done.append(replace(entry, sha256=_write_blob(file, entry, chunks)))
            if progress:
                progress(entry.offset + entry.nbytes, total)
        if check:
            check()
        file.seek(0)
        file.write(_front(contents, done, total))


def _layout(contents: Contents) -> list[Entry]:
    """The place of every blob. The header's length depends on how many digits the offsets have, and the offsets on the
    header's length, so the room for the header grows until the two agree.
    """
    room = 0
    while True:
        entries = _placed(contents, align(HEADER_AT + room))
        needed = len(_header(contents, entries, entries[-1].offset + entries[-1].nbytes))
        if align(HEADER_AT + needed) <= align(HEADER_AT + room):
            return entries
        room = needed


def _placed(contents: Contents, at: int) -> list[Entry]:
    entries = [Entry("tokenizer", (), "bytes", at, len(contents.tokenizer), _NO_HASH)]
    for name, shape in contents.shapes().items():
        form = contents.formats[name].name if len(shape) == 2 else "f32"
        at = align(entries[-1].offset + entries[-1].nbytes)
        entries.append(Entry(name, shape, form, at, array_bytes(shape, form), _NO_HASH))
    return entries


def _header(contents: Contents, entries: list[Entry], total: int) -> bytes:
    blob, *listed = (asdict(entry) for entry in entries)
    header: dict[str, Any] = {
        "config": contents.config.to_json(),
        "chat_format": contents.chat_format,
        "chat_note": contents.chat_note,
        "recipe": contents.recipe,
        "source": dict(contents.source),
        "rotation": None,
        "nbytes": total,
        "tokenizer": {key: blob[key] for key in ("offset", "nbytes", "sha256")},
        "arrays": listed,
    }
    return json.dumps(header, separators=(",", ":")).encode()


def _front(contents: Contents, entries: list[Entry], total: int) -> bytes:
    text = _header(contents, entries, total)
    return PREFIX.pack(MAGIC, VERSION, len(text), hashlib.sha256(text).digest()).ljust(HEADER_AT, b"\0") + text


def _write_blob(file: BinaryIO, entry: Entry, chunks: Iterable[np.ndarray]) -> str:
    """Write one blob where its entry says, sha256 taken on the way."""
    file.seek(entry.offset)
    digest, written = hashlib.sha256(), 0
    for chunk in chunks:
        file.write(chunk.data)
        digest.update(chunk.data)
        written += chunk.size
    if written != entry.nbytes:
        raise BadInput(f"{entry.name}: {written} bytes were made, the layout has {entry.nbytes}")
    return digest.hexdigest()
