"""The KV cache in NumPy, from its description in phi4mini/kernels/kv.py alone: heads to int8, tokens into pages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phi4mini.kernels.kv import PAGE, KVLayout
from phi4mini.kernels.threads.pool import aligned


def hadamard(x: np.ndarray) -> np.ndarray:
    """Walsh-Hadamard transform of the last axis in blocks of the largest power of two that divides it, unnormalised.

    One rounding a butterfly, wide ones first: f32 (..., dim) -> f32 (..., dim), the bits the kernel gives.
    """
    dim = x.shape[-1]
    bit, lanes = (dim & -dim) // 2, np.arange(dim)
    while bit:
        x = np.where(lanes & bit, -x, x) + x[..., lanes ^ bit]
        bit //= 2
    return x


def rounded(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f32 (..., dim) -> integers -127 .. 127 (..., dim) and their scale (...), operation by operation."""
    peak = np.abs(x).max(-1)
    inverse = np.divide(np.float32(127), peak, out=np.zeros_like(peak), where=peak > 0)
    return np.rint(x * inverse[..., None]).astype(np.int64), peak * np.float32(1 / 127)


@dataclass
class Stored:
    """K and V as an int8 cache holds them: integers (n, kv_heads, dim), scales (n, kv_heads); f32: scales of 1."""

    k: np.ndarray
    v: np.ndarray
    k_scale: np.ndarray
    v_scale: np.ndarray


def stored(kind: str, k: np.ndarray, v: np.ndarray) -> Stored:
    """Rotated K and V, f32 (n, kv_heads, dim), as the cache takes them; an int8 K is transformed first."""
    if kind == "f32":
        one = np.ones(k.shape[:2], np.float32)
        return Stored(k, v, one, one)
    (ki, ks), (vi, vs) = rounded(hadamard(k)), rounded(v)
    return Stored(ki, vi, ks, vs)


class PagePool:
    """One layer's pages, filled with garbage that is NaN as f32 wherever no token was put."""

    def __init__(self, kind: str, kv_heads: int, head_dim: int, pages: int) -> None:
        self.layout, self.pages = KVLayout(kind, head_dim, kv_heads), pages
        self.bytes = aligned(pages * self.layout.page_bytes, np.uint8)
        self.bytes[:] = 0xFF

    def head(self, page: int, head: int) -> np.ndarray:
        start = page * self.layout.page_bytes + head * self.layout.head_bytes
        return self.bytes[start : start + self.layout.head_bytes]

    def put(self, table: np.ndarray, values: Stored, first: int = 0) -> None:
        """Tokens first, first + 1, ... of a sequence into its pages."""
        for token in range(len(values.k)):
            page, slot = int(table[(first + token) // PAGE]), (first + token) % PAGE
            for head in range(self.layout.kv_heads):
                self._put_one(self.head(page, head), slot, values, token, head)

    def _put_one(self, region: np.ndarray, slot: int, values: Stored, token: int, head: int) -> None:
        dim, layout = self.layout.head_dim, self.layout
        ks, vs = region[: layout.v_offset], region[layout.v_offset : layout.scale_offset]
        if layout.kind == "f32":
            ks.view(np.float32).reshape(4, dim, 16)[slot // 16, :, slot % 16] = values.k[token, head]
            vs.view(np.float32).reshape(PAGE, dim)[slot] = values.v[token, head]
            return
        ks.reshape(4, dim // 4, 16, 4)[slot // 16, :, slot % 16] = (values.k[token, head] + 128).reshape(-1, 4)
        vs.view(np.int8).reshape(16, dim // 16, 16, 4)[slot // 4, :, :, slot % 4] = values.v[token, head].reshape(
            -1, 16
        )
        scales = region[layout.scale_offset :].view(np.float32).reshape(2, PAGE)
        scales[:, slot] = values.k_scale[token, head], values.v_scale[token, head]
