"""Safetensors files, read strictly: header checked against the file's length, rows read on demand.

Promises: a file that opens has no hole, no overlap, no lie about a length; nothing in it is executed; reading touches
the rows asked for. It does not know models. Format: 8 bytes length, JSON {name: {dtype, shape, data_offsets}}, data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phi4mini.errors import BadCheckpoint
from phi4mini.formats.format_table import Format
from phi4mini.formats.matrix import Blocks, from_bf16
from phi4mini.model.config_json import short
from phi4mini.weights.checkpoints.row_file import RowFile

FLOATS = {"F32": 4, "F16": 2, "BF16": 2}  # what a weight can be read from
INTEGERS = {"I8": np.int8, "U8": np.uint8, "I16": np.int16, "I32": np.int32, "I64": np.int64}
# Bytes of an element of every type the library writes: a file may hold what is only passed over, or named in an error.
DTYPES = FLOATS | {"F64": 8, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "U32": 4, "U64": 8}
DTYPES |= {name: np.dtype(kind).itemsize for name, kind in INTEGERS.items()}
_MOST_HEADER = 100_000_000  # bytes, the limit of the safetensors library
_MOST_DIMENSIONS = 8


@dataclass(frozen=True)
class Tensor:
    """One tensor of one file; `offset` is from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


class SafetensorsFile:
    """One opened file: `tensors` (name -> Tensor). Raises `NotFound` or `BadCheckpoint`."""

    def __init__(self, path: Path) -> None:
        self.file = RowFile(path)
        self.path = path
        size = self.file.size
        if size < 8:
            raise self._bad(f"truncated: at least 8 bytes expected, the file has {size}")
        length = int.from_bytes(self.file.read(0, 8).tobytes(), "little")
        if length > _MOST_HEADER:
            raise self._bad(f"a header of {length} bytes is more than the limit {_MOST_HEADER}")
        if 8 + length > size:
            raise self._bad(f"truncated: the header ends at byte {8 + length}, the file has {size}")
        self.tensors = self._tensors(self._header(length), 8 + length, size)

    def rows(self, name: str) -> FloatRows:
        """A float tensor read by rows; a vector is one row. Raises `BadCheckpoint` for another dtype."""
        tensor = self.tensors[name]
        if tensor.dtype not in FLOATS:
            raise self._bad(f"tensor {short(name)} has dtype {tensor.dtype}; {', '.join(FLOATS)} can be read")
        shape = tensor.shape if len(tensor.shape) == 2 else (1, math.prod(tensor.shape))
        return FloatRows(self.file, tensor.dtype, tensor.offset, *shape)

    def array(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Entries start .. stop along the first axis: integers in their own dtype, floats as float32, exactly."""
        tensor = self.tensors[name]
        if tensor.dtype not in FLOATS and tensor.dtype not in INTEGERS:
            raise self._bad(f"tensor {short(name)} has dtype {tensor.dtype}; floats and integers can be read")
        shape = tensor.shape or (1,)
        stop = shape[0] if stop is None else stop
        width = math.prod(shape[1:]) * DTYPES[tensor.dtype]
        raw = self.file.read(tensor.offset + start * width, (stop - start) * width)
        kind = INTEGERS.get(tensor.dtype)
        return (to_f32(raw, tensor.dtype) if kind is None else raw.view(kind)).reshape(stop - start, *shape[1:])

    def _bad(self, what: str) -> BadCheckpoint:
        return BadCheckpoint(f"{self.path}: {what}")

    def _header(self, length: int) -> Mapping[str, Any]:
        def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            made = dict(pairs)
            if len(made) != len(pairs):
                raise self._bad("its header names something twice")
            return made

        try:
            header = json.loads(self.file.read(8, length).tobytes(), object_pairs_hook=once)
        except (ValueError, RecursionError) as error:
            raise self._bad(f"its header is not JSON: {short(str(error))}") from error
        if not isinstance(header, dict):
            raise self._bad(f"its header is not an object but {short(header)}")
        return header

    def _tensors(self, header: Mapping[str, Any], base: int, size: int) -> dict[str, Tensor]:
        spans: list[tuple[int, int, str]] = []
        found: dict[str, Tensor] = {}
        for name, info in header.items():
            if name == "__metadata__":
                continue
            dtype, shape, begin, end = self._info(name, info)
            spans.append((begin, end, name))
            found[name] = Tensor(dtype, shape, base + begin)
        free = 0
        for begin, end, name in sorted(spans):
            if begin != free:
                raise self._bad(f"tensor {short(name)} begins at {begin}, not at {free}: an overlap or a hole")
            free = end
        if base + free != size:
            what = "truncated" if base + free > size else "too long"
            raise self._bad(f"{what}: {base + free} bytes expected, the file has {size}")
        return found

    def _info(self, name: str, info: Any) -> tuple[str, tuple[int, ...], int, int]:
        try:
            dtype, shape, (begin, end) = info["dtype"], tuple(info["shape"]), info["data_offsets"]
            numbers = [*shape, begin, end]
        except (TypeError, KeyError, ValueError) as error:
            raise self._bad(f"tensor {short(name)} is described by {short(info)}") from error
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise self._bad(f"tensor {short(name)} has the unknown dtype {short(dtype)}")
        if len(shape) > _MOST_DIMENSIONS or any(type(n) is not int or not 0 <= n < 1 << 63 for n in numbers):
            raise self._bad(f"tensor {short(name)} has the shape {short(shape)} at {short([begin, end])}")
        if end - begin != math.prod(shape) * DTYPES[dtype]:
            raise self._bad(f"tensor {short(name)}: {end - begin} bytes do not make {dtype} {list(shape)}")
        return dtype, shape, begin, end


@dataclass(frozen=True)
class Stored:
    """One tensor where it lies: its file, and its name there."""

    file: SafetensorsFile
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.file.tensors[self.name].shape

    @property
    def dtype(self) -> str:
        return self.file.tensors[self.name].dtype

    def rows(self) -> FloatRows:
        """The tensor as rows of floats."""
        return self.file.rows(self.name)

    def array(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Entries start .. stop along the first axis."""
        return self.file.array(self.name, start, stop)


class FloatRows:
    """A float matrix inside a file."""

    format: Format | None = None

    def __init__(self, file: RowFile, dtype: str, offset: int, rows: int, cols: int) -> None:
        self.file, self.dtype, self.offset = file, dtype, offset
        self.rows, self.cols = rows, cols

    def values(self, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop as float32."""
        width = self.cols * FLOATS[self.dtype]
        raw = self.file.read(self.offset + start * width, (stop - start) * width)
        return to_f32(raw, self.dtype).reshape(stop - start, self.cols)

    def blocks(self, start: int, stop: int) -> Blocks:
        raise BadCheckpoint(f"{self.file.path}: {self.dtype} rows have no blocks")


def to_f32(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Bytes of F32, F16 or BF16 as float32, exactly."""
    if dtype == "BF16":
        return from_bf16(raw.view(np.uint16))
    return raw.view(np.float32 if dtype == "F32" else np.float16).astype(np.float32, copy=False)
