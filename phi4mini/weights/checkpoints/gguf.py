"""The GGUF container: metadata and tensors of one file, read strictly.

Promises: every count, length and offset is checked against the bytes that are there before it is used, so a hostile
file ends in one `BadCheckpoint` line and never in a read outside the file or an allocation larger than it. Tensor
rows are read on demand with pread, so a file that shrinks is an error and not a crash. It does not know models or
block layouts.

Layout (version 2 and 3, little-endian): "GGUF", version u32, tensors u64, keys u64; keys: name, type u32, value;
tensors: name, dimensions u32 and u64 each (fastest first), type u32, offset u64; padding; data. Strings are u64
length + UTF-8.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phi4mini.errors import BadCheckpoint
from phi4mini.formats.gguf_blocks import TYPES
from phi4mini.model.config_json import short
from phi4mini.weights.checkpoints.row_file import RowFile

_OTHER_TYPES = {  # to name
    16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S", 29: "IQ1_M",
    34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_ENTRIES = 1 << 16  # keys, tensors
_LONGEST_NAME = 1 << 16


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies. `shape` is slowest dimension first, as in NumPy; `offset` is from the file's start."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    row_bytes: int


class GgufFile:
    """An opened GGUF: `metadata` (key -> value), `tensors` (name -> Tensor) and raw rows. Raises `BadCheckpoint`."""

    def __init__(self, path: Path) -> None:
        self.file = RowFile(path)
        self.path, self.size = path, self.file.size
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < 24:
                raise BadCheckpoint(f"{path}: {self.size} bytes are too few for a GGUF header")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                parser = _Parser(path, view)
                self.metadata = parser.metadata
                self.tensors = parser.tensors

    def raw(self, tensor: Tensor, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop of a tensor as stored: uint8 (stop - start, row_bytes)."""
        offset = tensor.offset + start * tensor.row_bytes
        return self.file.read(offset, (stop - start) * tensor.row_bytes).reshape(stop - start, tensor.row_bytes)


class _Parser:
    """One pass from the front; `at` is the next byte."""

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self.path, self.view, self.at = path, view, 0
        if self._take(4) != b"GGUF":
            raise self._bad("it does not begin with GGUF")
        version = self._scalar("I")
        if version not in (2, 3):
            wide = " (a big-endian file)" if version in (2 << 24, 3 << 24) else ""
            raise self._bad(f"GGUF version {version}{wide} is not supported; 2 and 3 are")
        tensors, keys = self._count("tensors", _MOST_ENTRIES), self._count("metadata keys", _MOST_ENTRIES)
        self.metadata: dict[str, Any] = {}
        for _ in range(keys):
            name = self._string()
            if name in self.metadata:
                raise self._bad(f"metadata key {short(name)} occurs twice")
            self.metadata[name] = self._value(self._scalar("I"), name)
        infos = [self._tensor_info() for _ in range(tensors)]
        self.tensors = self._place(infos)

    def _bad(self, what: str) -> BadCheckpoint:
        return BadCheckpoint(f"{self.path}: {what}")

    def _take(self, count: int) -> bytes:
        if count > len(self.view) - self.at:
            raise self._bad(f"truncated: its header wants {count} bytes at {self.at}, the file has {len(self.view)}")
        self.at += count
        return self.view[self.at - count : self.at]

    def _scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def _count(self, what: str, most: int) -> int:
        count = self._scalar("Q")
        if count > most:
            raise self._bad(f"{count} {what} are more than the limit {most}")
        return count

    def _string(self, most: int = _LONGEST_NAME) -> str:
        length = self._scalar("Q")
        if length > most:
            raise self._bad(f"a name of {length} bytes at {self.at} is longer than the limit {most}")
        return self._text(length)

    def _text(self, length: int) -> str:
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise self._bad(f"a string before byte {self.at} is not UTF-8") from error

    def _value(self, kind: int, key: str) -> Any:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            return self._string(len(self.view))
        if kind != _ARRAY:
            raise self._bad(f"metadata key {short(key)} has the unknown type {kind}")
        inner, count = self._scalar("I"), self._scalar("Q")
        if inner == _STRING:
            if count > (len(self.view) - self.at) // 8:
                raise self._bad(f"metadata key {short(key)} claims {count} strings, more than the file can hold")
            return [self._string(len(self.view)) for _ in range(count)]
        if inner not in _SCALARS:
            raise self._bad(f"metadata key {short(key)} is an array of the unsupported type {inner}")
        code = _SCALARS[inner]
        return list(struct.unpack(f"<{count}{code}", self._take(count * struct.calcsize("<" + code))))

    def _tensor_info(self) -> tuple[str, str, tuple[int, ...], int, int, int]:
        """(name, type, shape, offset from the data's start, bytes, bytes of a row)."""
        name = self._string()
        dimensions = self._scalar("I")
        if not 1 <= dimensions <= 4:
            raise self._bad(f"tensor {short(name)} has {dimensions} dimensions; 1 to 4 can be")
        shape = tuple(self._scalar("Q") for _ in range(dimensions))[::-1]
        kind, offset = self._scalar("I"), self._scalar("Q")
        if kind not in TYPES:
            known = ", ".join(n for n, _, _ in TYPES.values())
            raise self._bad(f"tensor {short(name)} is of type {_OTHER_TYPES.get(kind, kind)}, not one of {known}")
        label, weights, nbytes = TYPES[kind]
        if min(shape) < 1 or shape[-1] % weights:
            raise self._bad(f"tensor {short(name)} {list(shape)} is not made of whole {label} blocks of {weights}")
        rows = 1
        for size in shape[:-1]:
            rows *= size
        row_bytes = shape[-1] // weights * nbytes
        return name, label, shape, offset, rows * row_bytes, row_bytes

    def _place(self, infos: list[tuple[str, str, tuple[int, ...], int, int, int]]) -> dict[str, Tensor]:
        """The tensors, once they are known to be aligned, apart from each other and inside the file."""
        alignment = self.metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self._bad(f"general.alignment {short(alignment)} is not a power of two up to {1 << 20}")
        base = -(-self.at // alignment) * alignment
        found: dict[str, Tensor] = {}
        free = 0
        for name, label, shape, offset, nbytes, row_bytes in sorted(infos, key=lambda info: info[3]):
            if name in found:
                raise self._bad(f"tensor {short(name)} occurs twice")
            if offset % alignment or offset < free:
                raise self._bad(f"tensor {short(name)} at offset {offset} is misaligned or overlaps another one")
            free = offset + nbytes
            found[name] = Tensor(name, label, shape, base + offset, nbytes, row_bytes)
        if base + free > len(self.view):
            raise self._bad(f"truncated: its tensors end at byte {base + free}, the file has {len(self.view)}")
        return found
