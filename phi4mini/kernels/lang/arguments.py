"""A kernel's run-time arguments: how they are declared, and the check of a value against its declaration.

    x:f32[rows:stride, 2 * cols]   stride:int   eps:float   rows:i64[1]   q:u8[]   program:ptr

A kernel reads memory as it declared it, whatever lies there: float64 would be read as twice as many f32, and a row that
is too short would run on into the next one. So element type, number of dimensions, sizes and distances are checked
when a call is recorded (`Call` in threads/pool.py), once, and never in a pass.

    element    f32 f16 u8 i8 i32 i64, or a name that `names` of `@kernel` gives for the staging parameters
    size       a number, a staging parameter, a size from `names`, an `int` argument, or a product of these: the array
               is at least so large. Another argument's name or `_`: any size
    :stride    the `int` argument that tells the kernel how many bytes lie from one to the next along this dimension.
               Without it they lie as in C, by the declared sizes
    []         an array of which only the element type is known

It does not know what a kernel does with its arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

_FIELD = re.compile(r"\s*(\w+):(\w+)(\[[^\]]*\])?(?=\s|$)")
_DTYPES: dict[str, np.dtype] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "u8": np.dtype(np.uint8),
    "i8": np.dtype(np.int8),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
}
_SCALARS = ("int", "float", "ptr")


class Dim(NamedTuple):
    """One dimension: at least `size` (times an int argument), or any number if it is None."""

    name: str  # as declared, for errors
    size: int | None = None
    times: str | None = None
    stride: str | None = None

    def least(self, number: Callable[[str], int]) -> int | None:
        """The smallest size that fits; `number` gives the value of an int argument."""
        return self.size if self.times is None or self.size is None else self.size * number(self.times)


class Type(NamedTuple):
    """What an argument is: "int", "float", "ptr", or an array by its element. `dims`: None where it says only `[]`."""

    kind: str
    array: bool = False
    dims: tuple[Dim, ...] | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of an element of an array."""
        return _DTYPES[self.kind].itemsize


Fields = tuple[tuple[str, Type], ...]


def split(fields: str) -> tuple[tuple[str, str, str | None], ...]:
    """A declaration as (name, kind, dimensions with their brackets). Raises ValueError for what is none."""
    found, at = [], 0
    while fields[at:].strip():
        match = _FIELD.match(fields, at)
        if match is None:
            raise ValueError(f"not a declaration name:type or name:type[sizes]: {fields[at:].strip()!r}")
        found.append((match[1], match[2], match[3]))
        at = match.end()
    return tuple(found)


def resolve(fields: tuple[tuple[str, str, str | None], ...], names: Mapping[str, Any]) -> Fields:
    """A declaration's types under staging parameters and further names. Raises TypeError for a name that is neither."""
    kinds = {name: kind for name, kind, _ in fields}
    types = []
    for name, kind, dims in fields:
        real = names.get(kind, kind)
        if real not in (_SCALARS if dims is None else _DTYPES):
            raise TypeError(f"{name}: there is no type {real}{'' if dims is None else '[]'}")
        inside = None if dims is None else dims[1:-1].strip()
        sizes = tuple(_dim(part.strip(), names, kinds) for part in inside.split(",")) if inside else None
        types.append((name, Type(real, dims is not None, sizes)))
    return tuple(types)


def _dim(text: str, names: Mapping[str, Any], kinds: Mapping[str, str]) -> Dim:
    size, _, stride = (part.strip() for part in text.partition(":"))
    if stride and kinds.get(stride) != "int":
        raise TypeError(f"{text}: {stride} is not an int argument")
    count, times = 1, None
    for factor in (part.strip() for part in size.split("*")):
        known = int(factor) if factor.isdigit() else names.get(factor)
        if isinstance(known, int):
            count *= known
        elif kinds.get(factor) == "int" and times is None:
            times = factor
        elif factor == size and (factor == "_" or factor in kinds or factor in names):
            return Dim(size, None, None, stride or None)
        else:
            raise TypeError(f"{text}: {factor} is no number, staging parameter, size or int argument")
    return Dim(size, count, times, stride or None)


# a value against its type --------------------------------------------------------------------------------------------


def as_word(value: int | float | np.ndarray, type: Type) -> int:
    """A value of a declared type as the 64 bits of an argument block. Raises TypeError or ValueError; an array's shape
    is not looked at.
    """
    if type.array:
        return _address(value, _DTYPES[type.kind])
    if type.kind == "float" and isinstance(value, (int, float, np.floating)):
        return int(np.array([value, 0], np.float32).view(np.int64)[0])
    if type.kind in ("int", "ptr") and isinstance(value, (int, np.integer)):
        return int(value)
    raise TypeError(f"is {type.kind}, got {_told(value)}")


def check_shape(value: np.ndarray, type: Type, number: Callable[[str], int]) -> None:
    """Raises ValueError if an array is smaller than declared or its rows lie otherwise; `number` gives the value of an
    int argument. Dimensions beyond the declared ones count as one with the last, where their elements lie together.
    """
    dims = type.dims
    if dims is None:
        return
    shape, strides = _folded(value.shape, value.strides, len(dims))
    apart = type.itemsize
    for i in range(len(dims) - 1, -1, -1):
        if i >= len(shape) or len(shape) > len(dims):
            raise ValueError(f"is {_declared(type, number)}, got shape {value.shape}")
        _, size, times, stride = dims[i]
        least = size if times is None or size is None else size * number(times)
        if least is not None and shape[i] < least:
            raise ValueError(f"is {_declared(type, number)}, got shape {value.shape}")
        if stride is not None:
            apart = number(stride)
        if strides[i] != apart and shape[i] > 1:
            said = f"{stride} says {apart}" if stride else f"{_declared(type, number)} has {apart}"
            raise ValueError(f"has {strides[i]} bytes from row to row, and {said}")
        apart *= shape[i] if least is None else least


def _folded(shape: tuple[int, ...], strides: tuple[int, ...], most: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The last dimensions as one while there are more than `most`, which is at least two, and they lie together."""
    while len(shape) > most > 1 and strides[-2] == strides[-1] * shape[-1]:
        shape, strides = (*shape[:-2], shape[-2] * shape[-1]), (*strides[:-2], strides[-1])
    return shape, strides


def _declared(type: Type, number: Callable[[str], int]) -> str:
    sizes = (dim.least(number) for dim in type.dims or ())
    shown = ", ".join(dim.name if size is None else str(size) for dim, size in zip(type.dims or (), sizes, strict=True))
    return f"{_DTYPES[type.kind]} [{shown}]"


def _address(value: object, dtype: np.dtype) -> int:
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        raise TypeError(f"is an array of {dtype}, got {_told(value)}")
    # Rows may lie apart, and kernels are told how far; the elements of a row must lie together.
    if value.ndim and value.shape[-1] > 1 and value.strides[-1] != dtype.itemsize:
        raise ValueError(f"has {value.strides[-1]} bytes from one {dtype} of a row to the next")
    address = int(value.__array_interface__["data"][0])  # half the time of value.ctypes.data
    if address % dtype.itemsize:
        raise ValueError(f"begins inside a {dtype}, at address {address}")
    return address


def _told(value: object) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
