"""Rotary embedding and what follows it, bit for bit: queries for attention, keys and values in their pages."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini.kernels import rope
from phi4mini.kernels.kv import PAGE
from phi4mini.kernels.threads.pool import Call, aligned
from phi4mini.model.reference import rotate
from tests.kernels.harness import apart, fitted, run, same, word
from tests.kernels.pages import PagePool, hadamard, rounded, stored

SHAPES = [
    (4, 2, 32, 12),
    (3, 1, 64, 32),
    (4, 1, 96, 48),
    (3, 3, 128, 48),
]  # heads, kv heads, head_dim, half of what turns
ROWS = 5
TABLE = np.array([3, 0, 2], np.int32)
FIRST = 62  # the rows lie across a page's end


class Append:
    """One run of the kernel over ROWS rows of a sequence."""

    def __init__(
        self, kind: str, shape: tuple[int, int, int, int], threads: int = 1, x: np.ndarray | None = None
    ) -> None:
        heads, kv_heads, dim, half = shape
        rng = np.random.default_rng(dim)
        self.x = rng.standard_normal((ROWS, heads + 2 * kv_heads, dim)).astype(np.float32) if x is None else x
        angle = rng.uniform(0, 6, (ROWS, half))
        self.cos, self.sin = (f(angle).astype(np.float32) * np.float32(1.19) for f in (np.cos, np.sin))
        self.qkv, self.pool = apart(self.x.reshape(ROWS, -1)), PagePool(kind, kv_heads, dim, 4)
        self.q = aligned((ROWS, heads, dim), np.int8 if kind == "int8" else np.float32)
        self.q_scale, self.q_start = aligned((ROWS, heads)), aligned((ROWS, heads), np.int32)
        at = np.arange(FIRST, FIRST + ROWS)
        self.pages, self.slots = TABLE[at // PAGE].astype(np.int64), (at % PAGE).astype(np.int64)
        spec = rope.rope_append(kind=kind, heads=heads, kv_heads=kv_heads, head_dim=dim, half=half)
        call = Call(
            spec, qkv=self.qkv, stride=self.qkv.strides[0], cos=fitted(self.cos), sin=fitted(self.sin), rows=word(ROWS),
            pages=self.pages, slots=self.slots, pool=self.pool.bytes, page_stride=self.pool.layout.page_bytes,
            q=self.q, q_scale=self.q_scale, q_start=self.q_start,
        )  # fmt: skip
        run(call, threads=threads)

    def rotated(self, heads: int, kv_heads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Q, K and V by the reference, which rounds each product and each sum once: (ROWS, heads, dim)."""
        turned = rotate(self.x.transpose(1, 0, 2), self.cos, self.sin).transpose(1, 0, 2)
        return turned[:, :heads], turned[:, heads : heads + kv_heads], self.x[:, heads + kv_heads :]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["int8", "f32"])
def test_queries_and_pages_are_the_bits_numpy_gives(kind: str, shape: tuple[int, int, int, int]) -> None:
    heads, kv_heads, dim, _ = shape
    done = Append(kind, shape)
    q, k, v = done.rotated(heads, kv_heads)
    want = PagePool(kind, kv_heads, dim, 4)
    want.put(TABLE, stored(kind, k, v), FIRST)
    assert same(done.pool.bytes, want.bytes), "other tokens' bytes are left alone, these are as described"
    if kind == "f32":
        assert same(done.q, np.ascontiguousarray(q))
        return
    integers, scale = rounded(hadamard(q))
    assert np.array_equal(done.q, integers)
    assert same(done.q_scale, scale)
    assert np.array_equal(done.q_start, -128 * integers.sum(-1))


@pytest.mark.parametrize("kind", ["int8", "f32"])
def test_threads_change_no_bit(kind: str) -> None:
    alone = Append(kind, SHAPES[0])
    for threads in (2, 3):
        together = Append(kind, SHAPES[0], threads)
        assert same(together.pool.bytes, alone.pool.bytes) and same(together.q, alone.q)
        assert same(together.q_scale, alone.q_scale) and same(together.q_start, alone.q_start)


@pytest.mark.parametrize("dim", [32, 64, 96, 128])
def test_mixing_keeps_products_up_to_its_factor(dim: int) -> None:
    q, k = np.random.default_rng(dim).standard_normal((2, dim))
    mixed = hadamard(q) @ hadamard(k) * rope.mix_factor("int8", dim)
    assert mixed == pytest.approx(q @ k, abs=1e-12 * dim)
    assert rope.mix_factor("f32", dim) == 1


@pytest.mark.parametrize("unit", range(8))
def test_nan_makes_its_head_nan_and_no_other(unit: int) -> None:
    """Int8 has no NaN, so the scale must carry it: of a query, a key or a value."""
    shape = heads, kv_heads, _, _ = SHAPES[0]
    clean = Append("int8", shape)
    x = clean.x.copy()
    x[2, unit, 30] = np.nan
    dirty = Append("int8", shape, x=x)
    changed = np.isnan(dirty.q_scale)
    assert changed.sum() == (unit < heads) and changed[2, : unit + 1].sum() == changed.sum()
    page, slot = int(dirty.pages[2]), int(dirty.slots[2])
    for head in range(kv_heads):
        scales = dirty.pool.head(page, head)[dirty.pool.layout.scale_offset :].view(np.float32).reshape(2, PAGE)
        assert np.isnan(scales[0, slot]) == (unit == heads + head)
        assert np.isnan(scales[1, slot]) == (unit == heads + kv_heads + head)
