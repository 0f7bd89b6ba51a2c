"""Sequences in pages and one pass of attention over them: what test_attention.py and test_attention_merge.py share."""

from __future__ import annotations

from functools import cache

import numpy as np

from phi4mini.kernels import attention, attention_merge, rope
from phi4mini.kernels.kv import CHUNK, PAGE
from phi4mini.kernels.threads.pool import Call, aligned
from tests.kernels.harness import PAD, fitted, run, sink, word
from tests.kernels.pages import PagePool, hadamard, rounded, stored

SHAPES = [(2, 2, 32), (3, 1, 64), (4, 1, 96), (6, 2, 128)]  # heads, kv heads, head_dim: groups of 1, 3, 4, 3
LENGTH = 1090
FREE = 1 << 40  # a window that hides nothing


class Sequence:
    """Random K, V and Q of one sequence; K and V of `length` tokens in pages of a shared pool."""

    def __init__(self, pool: PagePool, heads: int, table: np.ndarray, length: int = LENGTH, seed: int = 0) -> None:
        kv_heads, dim, kind = pool.layout.kv_heads, pool.layout.head_dim, pool.layout.kind
        rng = np.random.default_rng([seed, dim])
        k, v = rng.standard_normal((2, length, kv_heads, dim)).astype(np.float32)
        q = (1.2 * rng.standard_normal((length, heads, dim))).astype(np.float32)
        self.kv, self.table = stored(kind, k, v), table.astype(np.int32)
        pool.put(table, self.kv)
        if kind == "int8":
            integers, self.q_scale = rounded(hadamard(q))
            self.q = integers.astype(np.int8)
            self.q_start = (-128 * integers.sum(-1)).astype(np.int32)
        else:
            self.q, self.q_scale, self.q_start = q, np.ones(q.shape[:2], np.float32), np.zeros(q.shape[:2], np.int32)


@cache
def setting(kind: str, shape: tuple[int, int, int]) -> tuple[PagePool, Sequence]:
    """A pool with one long sequence in scattered pages and room for more."""
    heads, kv_heads, dim = shape
    pages = -(-LENGTH // PAGE)
    pool = PagePool(kind, kv_heads, dim, pages + 8)
    return pool, Sequence(pool, heads, np.random.default_rng(5).permutation(pages) + 4)


def attend(
    pool: PagePool, heads: int, runs: list[tuple[Sequence, int, int]], tall: int, window: int = FREE, threads: int = 1,
    format: str = "f32", together: int = 1,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Rows start .. start + count - 1 of each sequence in one pass; the sink after `merge`, (rows, heads * dim)."""
    kind, dim, kv_heads = pool.layout.kind, pool.layout.head_dim, pool.layout.kv_heads
    tiles, first = [], 0
    for sequence, start, count in runs:
        for row in range(0, count, tall):
            tiles.append((first + row, min(tall, count - row), start + row, sequence.table.ctypes.data))
        first += count
    q, q_scale, q_start = (
        fitted(np.concatenate([getattr(s, name)[a : a + n] for s, a, n in runs]))
        for name in ("q", "q_scale", "q_start")
    )
    positions = np.concatenate([np.arange(a, a + n) for _, a, n in runs])
    chunks = int(positions.max()) // CHUNK + 1
    counts, partial = word(len(tiles)), aligned(first * chunks * heads * attention.partial_floats(dim))
    counts[1:3], partial[:] = (chunks, together), np.nan
    stride = attention.scratch_bytes(tall, heads // kv_heads, kv_heads, dim)
    stride = -(-stride // 64) * 64
    out = sink(format, first, heads * dim)
    run(
        Call(
            attention.attend(kind=kind, heads=heads, kv_heads=kv_heads, head_dim=dim, tall=tall),
            q=q, q_scale=q_scale, q_start=q_start, pool=pool.bytes, page_stride=pool.layout.page_bytes,
            tiles=np.array(tiles, np.int64), counts=counts,
            partial=partial, scale=dim**-0.5 * rope.mix_factor(kind, dim), window=window, ticket=word(0),
            scratch=aligned(stride * threads, np.uint8), scratch_stride=stride,
        ),
        Call(
            attention_merge.merge(format=format, heads=heads, head_dim=dim),
            partial=partial, counts=counts, positions=positions.astype(np.int64), rows=word(first), **out,
        ),
        threads=threads,
    )  # fmt: skip
    return {name: a[:-PAD].copy() if len(a) else a for name, a in out.items()}
