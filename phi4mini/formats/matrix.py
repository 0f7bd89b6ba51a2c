"""How a matrix is stored: blocks, scales, byte layout and why; NumPy to pack and unpack. Knows no model and no kernel.

Every format cuts a matrix (rows = outputs, cols = inputs) into *strips* of 16 rows, one row a lane of a 512-bit vector,
so that a kernel reads one strip as one stream from front to back. Rows are padded to 16 and cols to a whole superblock,
with zeros.

Dense formats (f32, bf16): strip = [cols][16 rows]. A vector of 16 outputs takes one fma an input.

Block formats: strip = [superblocks], superblock = header, then lines of 64 bytes. A line holds 16 rows x 4 consecutive
inputs, the natural unit of one VNNI or sdot lane (u8 weight x s8 activation, four products summed into an int32).
Weights are unsigned; where a format is symmetric its zero point is folded in through the sum of the activations, at no
cost.

    8 bit   line i holds inputs 4i .. 4i+3 of the superblock
    4 bit   line i of a pair of groups: low nibbles = inputs 4i .. of the even group, high nibbles = of the odd one

    one-level header   superblock = 64 inputs:   scale f16 [2 groups][16 rows], minimum f16 [2][16] where there is one
    two-level header   superblock = 256 inputs:  d f16 [16], dmin f16 [16], scale (u8 or s8) [groups][16],
                                                 minimum u8 [groups][16] where there is one

    value of a weight  one level:   scale * (q - zero) + minimum
                       two levels:  d * scale * (q - zero) - dmin * minimum

| format | bits a weight | group | activations | carries exactly |
|---|---|---|---|---|
| q4  | 4.5   | 32 | 32 | GGUF Q4_0 |
| q4m | 5     | 32 | 32 | GGUF Q4_1 |
| q5m | 9     | 32 | 32 | GGUF Q5_1 (q4m's layout, a byte a weight) |
| q8  | 8.5   | 32 | 16 | GGUF Q8_0, Q5_0, IQ4_NL (the integers its table holds) |
| q2k | 9.125 | 16 | 16 | GGUF Q2_K |
| q4k | 4.625 | 32 | 32 | GGUF Q4_K (its own 6-bit scales, widened to bytes) |
| q5k | 8.625 | 32 | 32 | GGUF Q5_K |
| q6k | 8.625 | 16 | 16 | GGUF Q6_K, Q3_K |
| q8k | 8.375 | 32 | 16 | GGUF IQ4_XS (the integers its table holds) |

`activations` is how many share a scale when they meet the format: with 8-bit weights they are the larger error, and
half the block leaves little more than half of it (KL 0.0024 to 0.0014 on the demo model); with 4-bit weights speed
comes first and 32 is what others use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phi4mini.errors import BadInput

LANES = 16  # rows of a strip: the logical vector width on every CPU
LINE = 64  # bytes of a line: 16 rows x 4 inputs


@dataclass(frozen=True)
class Format:
    """One way to store a matrix; `block` formats carry integers in groups, the others one float a weight."""

    name: str
    bits: int
    group: int = 1  # inputs that share one scale
    superblock: int = 1  # inputs a header speaks for
    two_level: bool = False
    minimum: bool = False
    zero: int = 0  # the integer that means 0.0 (before a minimum)
    signed_scale: bool = False  # second-level scales are s8 instead of u8
    top: int = 0  # the largest integer where it is less than the bits allow
    act_group: int = 32  # activations that share one scale when a matrix of this format is multiplied

    @property
    def block(self) -> bool:
        return self.superblock > 1

    @property
    def largest(self) -> int:
        """The largest stored integer."""
        return self.top or (1 << self.bits) - 1

    @property
    def run(self) -> int:
        """Inputs whose products are summed as integers before a scale is needed."""
        return min(self.group, self.act_group)

    @property
    def groups(self) -> int:
        """Groups of one superblock."""
        return self.superblock // self.group

    @property
    def header_bytes(self) -> int:
        if not self.block:
            return 0
        if self.two_level:
            return 4 * LANES + self.groups * LANES * (2 if self.minimum else 1)
        return 2 * self.groups * LANES * (2 if self.minimum else 1)

    @property
    def superblock_bytes(self) -> int:
        """Bytes of one superblock of one strip (for dense formats: of one input)."""
        return self.header_bytes + LANES * self.superblock * self.bits // 8

    @property
    def bits_a_weight(self) -> float:
        """Bits that one weight takes, its share of the header included."""
        return 8 * self.superblock_bytes / (LANES * self.superblock)

    def padded(self, cols: int) -> int:
        """Inputs of a row after padding to whole superblocks."""
        return -(-cols // self.superblock) * self.superblock

    def strip_bytes(self, cols: int) -> int:
        return self.padded(cols) // self.superblock * self.superblock_bytes

    def matrix_bytes(self, rows: int, cols: int) -> int:
        return -(-rows // LANES) * self.strip_bytes(cols)


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("f32", 32),
        Format("bf16", 16),
        Format("q8", 8, group=32, superblock=64, zero=128, act_group=16),
        Format("q4", 4, group=32, superblock=64, zero=8),
        Format("q4m", 4, group=32, superblock=64, minimum=True),
        Format("q5m", 8, group=32, superblock=64, minimum=True, top=31),
        Format("q2k", 8, group=16, superblock=256, two_level=True, minimum=True, top=3, act_group=16),
        Format("q4k", 4, group=32, superblock=256, two_level=True, minimum=True),
        Format("q5k", 8, group=32, superblock=256, two_level=True, minimum=True, top=31),
        Format("q6k", 8, group=16, superblock=256, two_level=True, zero=32, signed_scale=True, top=63, act_group=16),
        Format("q8k", 8, group=32, superblock=256, two_level=True, zero=128, signed_scale=True, act_group=16),
    )
}


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
    padded = np.zeros((-(-rows // LANES) * LANES, cols), np.float32)
    padded[:rows] = values
    lanes = np.ascontiguousarray(padded.reshape(-1, LANES, cols).transpose(0, 2, 1))
    return (lanes if format.name == "f32" else to_bf16(lanes)).reshape(-1).view(np.uint8)


def pack_blocks(parts: Blocks, format: Format) -> np.ndarray:
    """Row-major parts -> bytes of a block format. Whole strips may be packed one by one and their bytes joined."""
    rows, cols = parts.q.shape
    strips, width = -(-rows // LANES), format.padded(cols)
    supers = width // format.superblock
    out = np.zeros((strips, supers, format.superblock_bytes), np.uint8)
    out[:, :, : format.header_bytes] = _pack_header(parts, format, strips, supers)
    q = _pad(parts.q, strips * LANES, width).reshape(strips, LANES, supers, -1, 4).transpose(0, 2, 3, 1, 4)
    # q: (strips, superblocks, lines of 4 inputs, 16 rows, 4)
    if format.bits == 4:
        pairs = q.reshape(strips, supers, format.groups // 2, 2, -1, LANES, 4)
        q = pairs[:, :, :, 0] | (pairs[:, :, :, 1] << 4)
    out[:, :, format.header_bytes :] = q.reshape(strips, supers, -1)
    return out.reshape(-1)


def quantize(values: np.ndarray, format: Format) -> Matrix:
    """Store float32 (rows, cols) in a format, rounding to nearest; q4 chooses each group's scale by least squares."""
    values = np.ascontiguousarray(values, np.float32)
    if values.ndim != 2:
        raise BadInput(f"a matrix has two dimensions, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise BadInput("the matrix holds NaN or infinity")
    packed = pack_blocks(quantize_blocks(values, format), format) if format.block else pack_dense(values, format)
    return Matrix(format, values.shape[0], values.shape[1], packed)


def quantize_blocks(values: np.ndarray, format: Format) -> Blocks:
    """float32 (rows, cols) -> the parts of a one-level format. Two-level ones are only carried over, never made."""
    if format.two_level or not format.block:
        raise BadInput(f"{format.name} is a format to carry GGUF blocks in; quantise to q4, q4m or q8")
    rows, cols = values.shape
    width = -(-cols // format.group) * format.group
    x = _pad(values, rows, width).reshape(rows, -1, format.group)
    top = format.largest
    if format.minimum:
        low = _as_f16(x.min(axis=2, keepdims=True))
        scale = _as_f16((x - low).max(axis=2, keepdims=True) / top)
        q = _nearest(x - low, scale, 0, top)
        return Blocks(q.reshape(rows, -1)[:, :cols], scale[..., 0].astype(np.float16), low[..., 0].astype(np.float16))
    if format.bits == 8:
        scale = _as_f16(np.abs(x).max(axis=2, keepdims=True) / 127)
        q = _nearest(x, scale, 128, top)
    else:
        scale, q = _least_squares(x, format.zero, top)
    return Blocks(q.reshape(rows, -1)[:, :cols], scale[..., 0].astype(np.float16))


def to_bf16(values: np.ndarray) -> np.ndarray:
    """float32 -> bfloat16 bits as uint16, to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits as uint16 -> float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _least_squares(x: np.ndarray, zero: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The best of a few scales per group, each refitted once to its integers: (scale (rows, groups, 1) f32, q u8)."""
    peak = np.take_along_axis(x, np.abs(x).argmax(axis=2, keepdims=True), axis=2)
    best_error: np.ndarray | None = None
    for stretch in (1.0, 0.92, 0.85):
        scale = _as_f16(peak / -zero * stretch)
        integers = _nearest(x, scale, zero, top).astype(np.float32) - zero
        scale = _as_f16(
            (x * integers).sum(axis=2, keepdims=True) / np.maximum((integers**2).sum(axis=2, keepdims=True), 1)
        )
        q = _nearest(x, scale, zero, top)
        error = ((scale * (q.astype(np.float32) - zero) - x) ** 2).sum(axis=2, keepdims=True)
        if best_error is None:
            best_error, best_scale, best_q = error, scale, q
            continue
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best_scale = np.where(better, scale, best_scale)
        best_q = np.where(better, q, best_q)
    return best_scale, best_q


def _nearest(x: np.ndarray, scale: np.ndarray, zero: int, top: int) -> np.ndarray:
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0)
    return np.clip(np.rint(x * inverse) + zero, 0, top).astype(np.uint8)


def _as_f16(scale: np.ndarray) -> np.ndarray:
    """Scales as they will be stored; one that f16 cannot hold is refused rather than turned into infinity."""
    with np.errstate(over="ignore"):  # said below, in words
        stored = scale.astype(np.float16).astype(np.float32)
    if not np.isfinite(stored).all():
        raise BadInput(f"a scale of {np.abs(scale).max():.3g} is beyond what a half can hold")
    return stored


def _pad(a: np.ndarray, rows: int, cols: int) -> np.ndarray:
    if a.shape == (rows, cols):
        return a
    out = np.zeros((rows, cols), a.dtype)
    out[: a.shape[0], : a.shape[1]] = a
    return out


def _pack_header(parts: Blocks, format: Format, strips: int, supers: int) -> np.ndarray:
    def lanes(a: np.ndarray, per_superblock: int) -> np.ndarray:
        padded = _pad(a, strips * LANES, supers * per_superblock).reshape(strips, LANES, supers, per_superblock)
        return np.ascontiguousarray(padded.transpose(0, 2, 3, 1)).view(np.uint8).reshape(strips, supers, -1)

    fields = []
    if format.two_level:
        if parts.d is None:
            raise BadInput(f"{format.name} needs a first-level scale")
        fields += [lanes(parts.d, 1), lanes(parts.dmin if parts.dmin is not None else np.zeros_like(parts.d), 1)]
    fields.append(lanes(parts.scale, format.groups))
    if format.minimum:
        if parts.minimum is None:
            raise BadInput(f"{format.name} needs a minimum per group")
        fields.append(lanes(parts.minimum, format.groups))
    return np.concatenate(fields, axis=2)


def _unpack(format: Format, strips: np.ndarray, cols: int) -> np.ndarray:
    """(strips, superblocks, bytes) -> float32 (strips * 16, cols)."""
    if not format.block:
        bits = strips.reshape(strips.shape[0], -1, LANES * format.bits // 8)
        values = bits.view(np.float32) if format.name == "f32" else from_bf16(bits.view(np.uint16))
        return values.transpose(0, 2, 1).reshape(-1, cols)
    scale, minimum = _group_scales(format, strips[:, :, : format.header_bytes])
    q = _integers(format, strips[:, :, format.header_bytes :].reshape(*strips.shape[:2], -1, LANES, 4))
    values = _values(format, q, scale[..., None], None if minimum is None else minimum[..., None])
    # (strips, superblocks, groups, group / 4, 16, 4) -> (strips, 16, superblocks, groups, group / 4, 4)
    return values.transpose(0, 4, 1, 2, 3, 5).reshape(strips.shape[0] * LANES, -1)[:, :cols]


def _unpack_lane(format: Format, strip: np.ndarray, lane: int) -> np.ndarray:
    """One row of one strip (superblocks, bytes) -> float32 (padded cols,), touching only that row's bytes."""
    if not format.block:
        wide = strip.reshape(-1).view(np.float32 if format.name == "f32" else np.uint16).reshape(-1, LANES)[:, lane]
        return wide.astype(np.float32) if format.name == "f32" else from_bf16(wide)
    scale, minimum = _group_scales(format, strip[None, :, : format.header_bytes])
    q = _integers(
        format, strip[None, :, format.header_bytes :].reshape(1, len(strip), -1, LANES, 4)[:, :, :, lane : lane + 1]
    )
    one = slice(lane, lane + 1)
    low = None if minimum is None else minimum[..., one, None]
    return _values(format, q, scale[..., one, None], low).reshape(-1)


def _integers(format: Format, lines: np.ndarray) -> np.ndarray:
    """Lines (s, superblocks, lines, rows, 4) -> integers (s, superblocks, groups, group / 4, rows, 4)."""
    s, supers, _, rows, _ = lines.shape
    if format.bits == 8:
        return lines.reshape(s, supers, format.groups, -1, rows, 4)
    pairs = lines.reshape(s, supers, format.groups // 2, 1, -1, rows, 4)
    return np.concatenate([pairs & 15, pairs >> 4], axis=3).reshape(s, supers, format.groups, -1, rows, 4)


def _values(format: Format, q: np.ndarray, scale: np.ndarray, minimum: np.ndarray | None) -> np.ndarray:
    values = (q.astype(np.float32) - format.zero) * scale
    return values if minimum is None else values + minimum


def _group_scales(format: Format, header: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Header (s, superblocks, bytes) -> scale and minimum (s, superblocks, groups, 1, 16) float32, levels joined."""
    s, supers, _ = header.shape
    shape = (s, supers, format.groups, 1, LANES)
    if not format.two_level:
        halves = (
            np.ascontiguousarray(header)
            .view(np.float16)
            .astype(np.float32)
            .reshape(s, supers, -1, format.groups, 1, LANES)
        )
        return halves[:, :, 0], halves[:, :, 1] if format.minimum else None
    first = (
        np.ascontiguousarray(header[:, :, : 4 * LANES])
        .view(np.float16)
        .astype(np.float32)
        .reshape(s, supers, 2, 1, 1, LANES)
    )
    small = header[:, :, 4 * LANES :].reshape(s, supers, -1, format.groups, 1, LANES)
    scale = small[:, :, 0].view(np.int8) if format.signed_scale else small[:, :, 0]
    minimum = -(first[:, :, 1] * small[:, :, 1].astype(np.float32)) if format.minimum else None
    return (first[:, :, 0] * scale.astype(np.float32)).reshape(shape), minimum
