"""Matrices in memory: `Blocks`, their plain parts, `Matrix`, their stored bytes, and the way from one to the other.

Promises: `pack_blocks` and `Matrix.dequantize` are inverse to each other, bit for bit in the integers and scales;
the tables of format_table.py say where each bit lies. This file does not know how floats are rounded (rounding.py), nor
models, kernels and files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phi4mini.errors import BadInput
from phi4mini.formats.format_table import LANES, QUADS, Format


@dataclass
class Blocks:
    """A block-format matrix in plain row-major parts, as quantisers and GGUF readers produce it.

    q uint8 (rows, cols), values 0 .. 2**bits - 1. One level: scale f16, minimum f16 | None, both (rows, cols / group).
    Two levels: scale u8 or s8, minimum u8 | None, both (rows, cols / group), d and dmin f16 (rows, cols / superblock).
    """

    q: np.ndarray
    scale: np.ndarray
    minimum: np.ndarray | None = None
    d: np.ndarray | None = None
    dmin: np.ndarray | None = None


@dataclass
class Matrix:
    """A stored matrix: `data` is flat uint8, `format.matrix_bytes(rows, cols)` long, 64-byte aligned for kernels."""

    format: Format
    rows: int
    cols: int
    data: np.ndarray

    def __post_init__(self) -> None:
        want = self.format.matrix_bytes(self.rows, self.cols)
        if self.data.dtype != np.uint8 or self.data.ndim != 1 or self.data.size != want:
            raise BadInput(
                f"a {self.format.name} matrix of {self.rows} x {self.cols} takes {want} bytes, "
                f"got {self.data.size} x {self.data.dtype}"
            )

    @property
    def nbytes(self) -> int:
        return self.data.size

    def strips(self) -> np.ndarray:
        """The bytes as (strips, superblocks, superblock_bytes) uint8; a view."""
        return self.data.reshape(-(-self.rows // LANES), -1, self.format.superblock_bytes)

    def dequantize(self) -> np.ndarray:
        """The matrix as float32 (rows, cols), each weight rounded once from its exact value."""
        return _unpack(self.format, self.strips(), self.cols)[: self.rows]

    def rows_at(self, ids: np.ndarray) -> np.ndarray:
        """The given rows as float32 (len(ids), cols): an embedding look-up. Ids are trusted to be in range."""
        ids = np.asarray(ids, np.int64)
        out = np.empty((len(ids), self.cols), np.float32)
        strips = self.strips()
        for i, row in enumerate(ids):
            out[i] = _unpack_lane(self.format, strips[row // LANES], int(row % LANES))[: self.cols]
        return out


def pack_dense(values: np.ndarray, format: Format) -> np.ndarray:
    """float32 (rows, cols) -> bytes of a dense format; bf16 rounds to nearest even. Strips may be packed one by one."""
    rows, cols = values.shape
    whole = padded(np.asarray(values, np.float32), -(-rows // LANES) * LANES, cols)
    lanes = np.ascontiguousarray(whole.reshape(-1, LANES, cols).transpose(0, 2, 1))
    return (lanes if format.name == "f32" else to_bf16(lanes)).reshape(-1).view(np.uint8)


def pack_blocks(parts: Blocks, format: Format) -> np.ndarray:
    """Row-major parts -> bytes of a block format. Whole strips may be packed one by one and their bytes joined."""
    rows, cols = parts.q.shape
    strips, width = -(-rows // LANES), format.padded(cols)
    supers = width // format.superblock
    out = np.zeros((strips, supers, format.superblock_bytes), np.uint8)
    _pack_header(parts, format, out)
    q = padded(parts.q, strips * LANES, width).reshape(strips, LANES, supers, -1, QUADS, 4)
    lines = _lines_of(format, q).reshape(strips, LANES, supers, -1, 4).transpose(0, 2, 3, 1, 4)
    out[:, :, format.header_bytes :] = lines.reshape(strips, supers, -1)
    return out.reshape(-1)


def to_bf16(values: np.ndarray) -> np.ndarray:
    """float32 -> bfloat16 bits as uint16, to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits as uint16 -> float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def padded(a: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """An array of two dimensions with zeros added below and to the right: (rows, cols)."""
    if a.shape == (rows, cols):
        return a
    out = np.zeros((rows, cols), a.dtype)
    out[: a.shape[0], : a.shape[1]] = a
    return out


def _pack_header(parts: Blocks, format: Format, out: np.ndarray) -> None:
    """Write the scales and minima into superblocks (strips, superblocks, superblock_bytes)."""
    if format.two_level and parts.d is None:
        raise BadInput(f"{format.name} needs a first-level scale")
    if format.minimum and parts.minimum is None:
        raise BadInput(f"{format.name} needs a minimum per group")
    strips, supers, _ = out.shape
    for field in format.header.values():
        values = getattr(parts, field.name)
        if values is None:
            continue  # dmin of a format without minima: zeros
        lanes = padded(values, strips * LANES, supers * field.count).reshape(strips, LANES, supers, field.count)
        stored = np.ascontiguousarray(lanes.transpose(0, 2, 3, 1)).view(np.uint8)
        out[:, :, field.at : field.end] = stored.reshape(strips, supers, -1)


def _unpack(format: Format, strips: np.ndarray, cols: int) -> np.ndarray:
    """(strips, superblocks, bytes) -> float32 (strips * 16, cols)."""
    if not format.block:
        bits = strips.reshape(strips.shape[0], -1, LANES * format.bits // 8)
        values = bits.view(np.float32) if format.name == "f32" else from_bf16(bits.view(np.uint16))
        return values.transpose(0, 2, 1).reshape(-1, cols)
    scale, minimum = _group_scales(format, strips, slice(None))
    values = _values(format, _integers(format, _lines(format, strips)), scale, minimum)
    # (strips, superblocks, groups, group / 4, 16, 4) -> (strips, 16, superblocks, groups, group / 4, 4)
    return values.transpose(0, 4, 1, 2, 3, 5).reshape(strips.shape[0] * LANES, -1)[:, :cols]


def _unpack_lane(format: Format, strip: np.ndarray, lane: int) -> np.ndarray:
    """One row of one strip (superblocks, bytes) -> float32 (padded cols,), touching only that row's bytes."""
    if not format.block:
        wide = strip.reshape(-1).view(np.float32 if format.name == "f32" else np.uint16).reshape(-1, LANES)[:, lane]
        return wide.astype(np.float32) if format.name == "f32" else from_bf16(wide)
    one = slice(lane, lane + 1)
    scale, minimum = _group_scales(format, strip[None], one)
    q = _integers(format, _lines(format, strip[None])[:, :, :, :, one])
    return _values(format, q, scale, minimum).reshape(-1)


def _lines_of(format: Format, q: np.ndarray) -> np.ndarray:
    """Integers (.., steps, 16 quads, 4) -> (.., steps, lines, 4): the bits of each integer where the table has them."""
    if len(format.fields) == 1:
        return q
    lines = np.empty((*q.shape[:-2], format.lines, 4), np.uint8)
    for field in format.fields:
        bits = q[..., field.quads, :]
        if field.count < format.bits:
            bits = bits >> field.to & field.mask
        if field.low:
            lines[..., field.lines, :] |= bits << field.low
        else:
            lines[..., field.lines, :] = bits
    return lines


def _lines(format: Format, strips: np.ndarray) -> np.ndarray:
    """(strips, superblocks, bytes) -> (strips, superblocks, steps, lines of a step, 16 rows, 4)."""
    return strips[:, :, format.header_bytes :].reshape(*strips.shape[:2], -1, format.lines, LANES, 4)


def _integers(format: Format, lines: np.ndarray) -> np.ndarray:
    """Lines (s, superblocks, steps, lines, rows, 4) -> integers (s, superblocks, groups, group / 4, rows, 4)."""
    s, supers, steps, _, rows, _ = lines.shape
    q = lines
    if len(format.fields) > 1:
        q = np.empty((s, supers, steps, QUADS, rows, 4), np.uint8)
        for field in format.fields:
            bits = lines[:, :, :, field.lines]
            bits = bits >> field.low if field.low else bits  # each step less counts: a look-up of one row is all calls
            bits = bits & field.mask if field.low + field.count < 8 else bits
            if field.to:
                q[:, :, :, field.quads] |= bits << field.to
            else:
                q[:, :, :, field.quads] = bits
    return q.reshape(s, supers, format.groups, -1, rows, 4)


def _values(format: Format, q: np.ndarray, scale: np.ndarray, minimum: np.ndarray | None) -> np.ndarray:
    """What integers (s, superblocks, groups, group / 4, rows, 4) stand for, as f32."""
    values = (q.astype(np.float32) - format.zero) * scale[..., None]
    return values if minimum is None else values + minimum[..., None]


def _group_scales(format: Format, supers: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray | None]:
    """Superblocks (s, superblocks, bytes) -> scale and minimum (s, superblocks, groups, 1, rows) f32, levels joined."""
    found = {}
    for name, field in format.header.items():
        stored = np.ascontiguousarray(supers[:, :, field.at : field.end]).view(field.dtype)
        found[name] = stored.reshape(*supers.shape[:2], field.count, 1, LANES)[..., rows].astype(np.float32)
    scale, minimum = found["scale"], found.get("minimum")
    if not format.two_level:
        return scale, minimum
    return found["d"] * scale, None if minimum is None else -(found["dmin"] * minimum)
