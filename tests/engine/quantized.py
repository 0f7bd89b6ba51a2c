"""The engine's rounding, on top of `phi4mini.model.reference`: what q8, q4 and an int8 cache are defined to compute.

Each matrix reads activations rounded to int8 in groups of its format; the head reads two such rows, the second holding
the first one's rounding error; an int8 cache rounds Q and K (after a Walsh-Hadamard transform) and V per head. All in
float64, so the engine differs by float32 rounding alone, and where that decides a tie, by one step of one number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from phi4mini.formats.format_table import Format
from phi4mini.model import reference
from phi4mini.model.arrays import Weights, pieces
from phi4mini.model.longrope import RopeMode
from tests import tiny
from tests.kernels.pages import hadamard

FINER = 254  # steps of the head's second row in one of the first


def steps(x: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    """float64 (..., columns) in units of its groups' steps, (..., groups, group), and the steps (..., groups, 1)."""
    parts = x.reshape(*x.shape[:-1], -1, group)
    peak = np.abs(parts).max(-1, keepdims=True)
    return np.divide(127 * parts, peak, out=np.zeros_like(parts), where=peak > 0), peak / 127


def rounded(x: np.ndarray, group: int) -> np.ndarray:
    """Rounded to int8 with one scale a group."""
    units, step = steps(x, group)
    return (np.rint(units) * step).reshape(x.shape)


def for_matrix(x: np.ndarray, format: Format) -> np.ndarray:
    """Activations as a matrix of a format meets them."""
    return rounded(x, format.act_group) if format.block else x


def for_head(x: np.ndarray, format: Format) -> np.ndarray:
    """As `for_matrix`, with the rounding error kept in a second row."""
    if not format.block:
        return x
    units, step = steps(x, format.act_group)
    whole = np.rint(units)
    return ((whole + np.rint((units - whole) * FINER) / FINER) * step).reshape(x.shape)


def mixed(x: np.ndarray) -> np.ndarray:
    """Q or K (heads, n, dim): transformed, rounded, transformed back."""
    dim = x.shape[-1]
    return hadamard(rounded(hadamard(x), dim)) / (dim & -dim)


def attention_int8(q: np.ndarray, k: np.ndarray, v: np.ndarray, sliding_window: int | None) -> np.ndarray:
    return plain_attention(mixed(q), mixed(k), rounded(v, v.shape[-1]), sliding_window)


plain_attention = reference.attention


def logits(weights: Weights, ids: list[int], kv: str, rope: RopeMode = "auto") -> np.ndarray:
    """Logits (n, vocab) in float64 of the rounded model."""
    arrays = tiny.dense_arrays(weights)
    formats = _formats_in_order(weights)
    with pytest.MonkeyPatch.context() as patch:
        if kv == "int8":
            patch.setattr(reference, "attention", attention_int8)
        x = reference.hidden(arrays, ids, rope, np.float64, round_input=_rounder(formats))
    return for_head(x, weights.head.format) @ arrays.head.T


def _formats_in_order(weights: Weights) -> Iterator[Format]:
    """The formats of the matrices in the order in which reference.py reads them; the first part's of a stack, whose
    parts must all share activations' groups of one size.
    """
    for layer in weights.layers:
        yield from (pieces(m)[0].format for m in (layer.qkv, layer.o, layer.gate_up, layer.down))


def _rounder(formats: Iterator[Format]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: for_matrix(x, next(formats))
