"""Readers of quantised safetensors in four layouts: each gives unsigned integers, scales and zero points by rows.

Promises: nothing is rounded; a weight is scale * (integer - zero) with the scale and the zero point of its group; a
tensor of a wrong shape or dtype is refused by name when the matrix is opened. This file does not know which of our
formats will hold them. Sources: compressed-tensors (pack_quantized.py), AutoAWQ (packing_utils.py), AutoGPTQ
(qlinear_cuda.py) and GPTQModel (utils/model.py, the change of version 1 to 2).

    pack-quantized  weight_packed i32 (rows, cols / 8), weight_zero_point i32 (rows / 8, groups): nibble j is entry j
    int-quantized   weight i8 (rows, cols)
    AWQ GEMM        qweight i32 (cols, rows / 8), qzeros i32 (groups, rows / 8): nibble j is row 0 2 4 6 1 3 5 7 [j]
    GPTQ            qweight i32 (cols / 8, rows), qzeros i32 (groups, rows / 8): nibble j is entry j; version 1 stores
                    the zero point less one; g_idx i32 (cols) names the group of every input
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import numpy as np

from phi4mini.errors import BadCheckpoint
from phi4mini.weights.checkpoints.safetensors import FLOATS, Stored

_AWQ_NIBBLE = np.array([0, 4, 1, 5, 2, 6, 3, 7])  # where row k of eight lies in a word: the inverse of AWQ's order
_MOST_KEPT = 48 << 20  # bytes: one tensor of the largest matrix, and what belongs to it


class Integers(Protocol):
    """A quantised matrix (rows, cols); `bits` of an integer; `group_of` (cols,) the group of every input."""

    rows: int
    cols: int
    bits: int
    group_of: np.ndarray

    def ints(self, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop, uint8 (n, cols), values 0 .. 2**bits - 1."""
        ...

    def scales(self, start: int, stop: int) -> np.ndarray:
        """Their scales, float32 (n, groups), exactly."""
        ...

    def zeros(self, start: int, stop: int) -> np.ndarray:
        """Their zero points, int16 (n, groups), 0 .. 2**bits."""
        ...


@dataclass(frozen=True)
class Settings:
    """What only the quantisation config tells: the group size, and how zero points are stored."""

    group_size: int | None = None
    less_one: bool = True  # GPTQ version 1 stores zero points less one
    by_words: bool = False  # the one was subtracted from whole words (GPTQModel): a zero borrowed from its neighbour


class Kept:
    """A cache of whole tensors, least recently used dropped first. AWQ and GPTQ store a matrix by columns, so every
    chunk of rows needs all of a tensor.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._arrays: OrderedDict[Stored, np.ndarray] = OrderedDict()

    def array(self, tensor: Stored) -> np.ndarray:
        """The whole tensor, read from the file unless it is cached."""
        with self._lock:
            if tensor not in self._arrays:
                self._arrays[tensor] = tensor.array()
                while len(self._arrays) > 1 and sum(a.nbytes for a in self._arrays.values()) > _MOST_KEPT:
                    self._arrays.popitem(last=False)
            self._arrays.move_to_end(tensor)
            return self._arrays[tensor]


class PackQuantized:
    """compressed-tensors' pack-quantized: a row of integers is a row of words, eight of 4 bits or four of 8 in each."""

    def __init__(self, name: str, tensors: Mapping[str, Stored], settings: Settings) -> None:
        self._packed, self._scale = tensors["weight_packed"], tensors["weight_scale"]
        self._zero = tensors.get("weight_zero_point")
        _demand(name, tensors, weight_packed="I32", weight_shape="I64 I32", weight_scale=" ".join(FLOATS))
        shape = tensors["weight_shape"].array().reshape(-1).tolist() if tensors["weight_shape"].shape == (2,) else []
        packed = self._packed.shape
        widths = [bits for bits in (4, 8, 2) if len(shape) == 2 and packed == (shape[0], -(-shape[1] * bits // 32))]
        if not widths:
            raise BadCheckpoint(f"{name}: weight_packed {list(packed)} is no matrix {shape} of 2, 4 or 8 bits")
        self.rows, self.cols = shape
        self.bits = widths[0]
        self.groups = _scale_groups(name, self._scale.shape, self.rows)
        words = (-(-self.rows * self.bits // 32), self.groups)
        known = {("I32", words), ("I8", self._scale.shape)}
        if self._zero is not None and (self._zero.dtype, self._zero.shape) not in known:
            raise _misshapen(name, "weight_zero_point", self._zero)
        order = tensors.get("weight_g_idx")
        self.group_of = _groups(name, self.cols, self.groups, settings.group_size, order)

    def ints(self, start: int, stop: int) -> np.ndarray:
        return unpack(self._packed.array(start, stop), self.bits).reshape(stop - start, -1)[:, : self.cols]

    def scales(self, start: int, stop: int) -> np.ndarray:
        return _scale_rows(self._scale, start, stop, self.groups)

    def zeros(self, start: int, stop: int) -> np.ndarray:
        """Zero points of rows start .. stop, int16 (n, groups); without stored ones, the middle of the range."""
        middle = 1 << (self.bits - 1)
        if self._zero is None:
            return np.full((stop - start, self.groups), middle, np.int16)
        if self._zero.dtype == "I8":  # earlier versions: not packed, and signed
            return _scale_rows(self._zero, start, stop, self.groups).astype(np.int16) + np.int16(middle)
        per_word = 32 // self.bits
        first = start // per_word
        words = self._zero.array(first, -(-stop // per_word)).T  # (groups, words)
        zeros = unpack(np.ascontiguousarray(words), self.bits).reshape(self.groups, -1).T
        return zeros[start - first * per_word : stop - first * per_word].astype(np.int16)


class IntQuantized:
    """compressed-tensors' int-quantized: signed bytes, one scale a row (or a group)."""

    bits = 8

    def __init__(self, name: str, tensors: Mapping[str, Stored], settings: Settings) -> None:
        self._weight, self._scale = tensors["weight"], tensors["weight_scale"]
        self._zero = tensors.get("weight_zero_point")
        _demand(name, tensors, weight="I8", weight_scale=" ".join(FLOATS), weight_zero_point="I8")
        if len(self._weight.shape) != 2:
            raise _misshapen(name, "weight", self._weight)
        if self._zero is not None and self._zero.shape != self._scale.shape:
            raise _misshapen(name, "weight_zero_point", self._zero)
        self.rows, self.cols = self._weight.shape
        self.groups = _scale_groups(name, self._scale.shape, self.rows)
        self.group_of = _groups(name, self.cols, self.groups, settings.group_size, None)

    def ints(self, start: int, stop: int) -> np.ndarray:
        return self._weight.array(start, stop).view(np.uint8) ^ np.uint8(0x80)

    def scales(self, start: int, stop: int) -> np.ndarray:
        return _scale_rows(self._scale, start, stop, self.groups)

    def zeros(self, start: int, stop: int) -> np.ndarray:
        if self._zero is None:
            return np.full((stop - start, self.groups), 128, np.int16)
        return _scale_rows(self._zero, start, stop, self.groups).astype(np.int16) + np.int16(128)


class Columns:
    """The part that AWQ and GPTQ share: rows of the matrix are columns of each tensor; scales, zeros (groups, rows)."""

    def __init__(self, name: str, tensors: Mapping[str, Stored], settings: Settings, kept: Kept) -> None:
        self._name, self._settings, self._kept = name, settings, kept
        self._weight, self._zero, self._scale = tensors["qweight"], tensors["qzeros"], tensors["scales"]
        _demand(name, tensors, qweight="I32", qzeros="I32", scales=" ".join(FLOATS), g_idx="I32 I64")
        if any(len(t.shape) != 2 for t in (self._weight, self._zero, self._scale)) or 0 in self._scale.shape:
            raise _misshapen(name, "qweight", self._weight)
        self.groups, self.rows = self._scale.shape

    def scales(self, start: int, stop: int) -> np.ndarray:
        """Scales of rows start .. stop, float32 (n, groups)."""
        return self._kept.array(self._scale)[:, start:stop].T


class Awq(Columns):
    """AutoAWQ's GEMM version."""

    bits = 4

    def __init__(self, name: str, tensors: Mapping[str, Stored], settings: Settings, kept: Kept) -> None:
        super().__init__(name, tensors, settings, kept)
        self.cols = self._weight.shape[0]
        if self.rows % 8 or self._weight.shape[1] * 8 != self.rows:
            raise _misshapen(name, "qweight", self._weight)
        if self._zero.shape != (self.groups, self.rows // 8):
            raise _misshapen(name, "qzeros", self._zero)
        self.group_of = _groups(name, self.cols, self.groups, settings.group_size, None)

    def ints(self, start: int, stop: int) -> np.ndarray:
        return self._rows(self._weight, start, stop)

    def zeros(self, start: int, stop: int) -> np.ndarray:
        return self._rows(self._zero, start, stop).astype(np.int16)

    def _rows(self, tensor: Stored, start: int, stop: int) -> np.ndarray:
        first = start // 8
        words = np.ascontiguousarray(self._kept.array(tensor)[:, first : -(-stop // 8)])
        rows = unpack(words, 4)[:, :, _AWQ_NIBBLE].reshape(len(words), -1)[:, start - first * 8 : stop - first * 8]
        return np.ascontiguousarray(rows.T)


class Gptq(Columns):
    """AutoGPTQ's and GPTQModel's layout, versions 1 and 2."""

    def __init__(self, name: str, tensors: Mapping[str, Stored], settings: Settings, kept: Kept) -> None:
        super().__init__(name, tensors, settings, kept)
        widths = [bits for bits in (2, 4, 8) if self._zero.shape == (self.groups, self.rows * bits / 32)]
        if not widths:
            raise _misshapen(name, "qzeros", self._zero)
        if self._weight.shape[1] != self.rows:
            raise _misshapen(name, "qweight", self._weight)
        self.bits = widths[0]
        self.cols = self._weight.shape[0] * 32 // self.bits
        self.group_of = _groups(name, self.cols, self.groups, settings.group_size, tensors.get("g_idx"))

    def ints(self, start: int, stop: int) -> np.ndarray:
        words = np.ascontiguousarray(self._kept.array(self._weight)[:, start:stop].T)  # (n, words)
        return unpack(words, self.bits).reshape(stop - start, -1)

    def zeros(self, start: int, stop: int) -> np.ndarray:
        """Zero points of rows start .. stop, int16 (n, groups). Raises `BadCheckpoint` if a stored one is ambiguous."""
        per_word = 32 // self.bits
        first = start // per_word
        words = np.ascontiguousarray(self._kept.array(self._zero)[:, first : -(-stop // per_word)])
        rows = slice(start - first * per_word, stop - first * per_word)
        if self._settings.less_one and self._settings.by_words:
            words = words.view(np.uint32) + np.uint32(sum(1 << shift for shift in range(0, 32, self.bits)))
        zeros = unpack(words, self.bits).reshape(self.groups, -1)[:, rows].T.astype(np.int16)
        if not self._settings.less_one or self._settings.by_words:
            return zeros
        top = (1 << self.bits) - 1
        if (zeros == top).any():  # programs wrote this for a zero point of 0 as well as of 16, and read it either way
            raise BadCheckpoint(
                f"{self._name}: qzeros of GPTQ version 1 hold {top}, which programs read as {top + 1} or as 0; "
                f"save it with checkpoint_format gptq_v2"
            )
        return zeros + np.int16(1)


def unpack(words: np.ndarray, bits: int) -> np.ndarray:
    """Words i32 or u32 (a, b), contiguous -> their integers from the lowest bits up, uint8 (a, b, 32 / bits)."""
    parts = words.view(np.uint8).reshape(*words.shape, 4, 1)  # little-endian: the lowest byte first
    return ((parts >> np.arange(0, 8, bits, dtype=np.uint8)) & np.uint8((1 << bits) - 1)).reshape(*words.shape, -1)


def _demand(name: str, tensors: Mapping[str, Stored], **dtypes: str) -> None:
    for suffix, allowed in dtypes.items():
        if suffix in tensors and tensors[suffix].dtype not in allowed.split():
            raise BadCheckpoint(f"{name}.{suffix} has dtype {tensors[suffix].dtype} instead of {allowed}")


def _misshapen(name: str, suffix: str, tensor: Stored) -> BadCheckpoint:
    return BadCheckpoint(f"{name}.{suffix} is {tensor.dtype} {list(tensor.shape)}, which fits no layout of its matrix")


def _scale_groups(name: str, shape: tuple[int, ...], rows: int) -> int:
    if shape in ((), (1,), (1, 1)):
        return 1
    if shape[0] != rows or len(shape) > 2 or 0 in shape:
        raise BadCheckpoint(f"{name}.weight_scale is {list(shape)}, not one row of scales for each of {rows} rows")
    return shape[1] if len(shape) == 2 else 1


def _scale_rows(tensor: Stored, start: int, stop: int, groups: int) -> np.ndarray:
    """Rows of scales or zero points, (n, groups); a single number for the whole matrix is repeated."""
    if tensor.shape in ((), (1,), (1, 1)):
        return np.repeat(tensor.array().reshape(1, 1), stop - start, axis=0)
    return tensor.array(start, stop).reshape(stop - start, groups)


def _groups(name: str, cols: int, groups: int, stated: int | None, order: Stored | None) -> np.ndarray:
    """The group of every input, int64 (cols,): from g_idx if there is one, else groups of equal size in order."""
    if order is not None:
        index = order.array().reshape(-1).astype(np.int64)
        if index.size != cols or (index.size and not -1 <= index.min() <= index.max() < groups):
            raise BadCheckpoint(f"{name}: g_idx does not name one of {groups} groups for each of {cols} inputs")
        if (index >= 0).all():
            return index
        if (index >= 0).any():
            raise BadCheckpoint(f"{name}: g_idx names groups for some inputs only")
    if groups == 1:
        size = cols
    elif stated is not None and stated > 0 and -(-cols // stated) == groups:
        size = stated
    elif cols % groups == 0:
        size = cols // groups
    else:
        raise BadCheckpoint(f"{name}: {groups} groups do not divide {cols} inputs")
    return np.arange(cols) // max(size, 1)
