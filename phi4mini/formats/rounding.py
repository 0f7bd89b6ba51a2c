"""Float weights to the integers and scales of a format, in NumPy: the readable definition.

Promises: bf16 rounds to nearest even; scales are rounded to f16 before the integers are chosen, so that the integers
are the nearest ones for the scale that is stored. Conversion uses kernels/round_weights.py for q4 and q8, which is
faster and, by test, no worse. This file does not know where the bytes lie (format_table.py, matrix.py).
"""

from __future__ import annotations

import numpy as np

from phi4mini.errors import BadInput
from phi4mini.formats.format_table import Format
from phi4mini.formats.matrix import Blocks, Matrix, pack_blocks, pack_dense, padded


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
    x = padded(values, rows, width).reshape(rows, -1, format.group)
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
