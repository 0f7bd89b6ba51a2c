"""Attention over pages: right within its derived error, and the same bits for one row or many, alone or beside others.

The error bound, u = 2^-24, for one output o = sum p v / sum p over n keys in c pages:

    score   int8: exact integers times three once-rounded factors: |s| (6 u)
            f32: a chain of dim fma: gamma(dim) |q| . |k|, and |s| (6 u)
    p       exp is within 2 ulp (4 u) of e^(s - m), whose argument was rounded: its relative error is at most
            r = 2 error(s) + u |s - m| + 4 u, where m, a score itself, cancels but for its error
    sums    f32: at most n + 2 c roundings; int8: integers exact, 5 roundings a page
    int8    p times V's scale is rounded to 16 bits against the largest in its page: half a step and, for the roundings
            of 65535 / peak and the product, 65535 x 4 u = 0.02 steps more, for each key, times |v|

so |got - exact| <= (2 r + gamma(sums)) sum p |v| / sum p + 0.52 sum step |v| / sum p.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from phi4mini.kernels import attention, rope
from phi4mini.kernels.kv import PAGE
from tests.kernels.attentions import FREE, SHAPES, Sequence, attend, setting
from tests.kernels.harness import U, gamma, same
from tests.kernels.pages import PagePool

STEPS = 65535


def exact(pool: PagePool, s: Sequence, row: int, head: int, group: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """One head's output and its error bound, (dim,) each, in float64 from what is stored."""
    layout, shared, n = pool.layout, head // group, row + 1
    first = max(0, n - window)
    q = s.q[row, head].astype(np.float64)
    k, v = (a[first:n, shared].astype(np.float64) for a in (s.kv.k, s.kv.v))
    factor = layout.head_dim**-0.5 * rope.mix_factor(layout.kind, layout.head_dim) * float(s.q_scale[row, head])
    score = k @ q * factor * s.kv.k_scale[first:n, shared]
    off = np.abs(score) * 6 * U
    if layout.kind == "f32":
        off = off + gamma(layout.head_dim) * (np.abs(k) @ np.abs(q)) * factor
    p = np.exp(score - score.max())
    relative = 2 * off.max() + U * np.ptp(score) + 4 * U
    scaled = p * s.kv.v_scale[first:n, shared]
    pages = np.arange(first, n) // PAGE
    roundings = n + 2 * len(set(pages)) if layout.kind == "f32" else 5 * len(set(pages))
    bound = (2 * relative + gamma(roundings + 8)) * (scaled @ np.abs(v))
    if layout.kind == "int8":
        peaks = {page: scaled[pages == page].max() for page in set(pages)}
        bound = bound + 0.52 / STEPS * (np.array([peaks[page] for page in pages]) @ np.abs(v))
    return scaled @ v / p.sum(), bound / p.sum()


def check(kind: str, shape: tuple[int, int, int], start: int, count: int, window: int, tall: int) -> None:
    heads, kv_heads, dim = shape
    pool, sequence = setting(kind, shape)
    got = attend(pool, heads, [(sequence, start, count)], tall, window)["q"].reshape(count, heads, dim)
    worst = 0.0
    for row in range(count):
        for head in range(heads):
            want, bound = exact(pool, sequence, start + row, head, heads // kv_heads, window)
            worst = max(worst, float((np.abs(got[row, head] - want) / (bound + 1e-30)).max()))
    print(f"{kind} {shape} from {start}, window {window}: worst error {worst:.2f} of its bound")
    assert worst <= 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["int8", "f32"])
@pytest.mark.parametrize(("start", "count"), [(0, 3), (60, 7), (1020, 8)])
def test_softmax_within_the_derived_error(kind: str, shape: tuple[int, int, int], start: int, count: int) -> None:
    check(kind, shape, start, count, FREE, attention.heights(shape[0] // shape[1])[-1])


@pytest.mark.parametrize("window", [1, 24, 64, 1000])
@pytest.mark.parametrize("kind", ["int8", "f32"])
def test_a_sliding_window_hides_what_is_older(kind: str, window: int) -> None:
    for start, count in ((0, 2), (22, 4), (62, 5), (1022, 4)):
        check(kind, SHAPES[1], start, count, window, attention.heights(3)[-1])


@pytest.mark.parametrize("kind", ["int8", "f32"])
def test_the_bound_tells_one_key_more_or_less(kind: str) -> None:
    """At a thousand keys, the exact output without the first key lies outside the bound around the exact one."""
    pool, sequence = setting(kind, SHAPES[1])
    want, bound = exact(pool, sequence, 1024, 0, 3, FREE)
    less, _ = exact(pool, sequence, 1024, 0, 3, 1024)
    assert (np.abs(want - less) > 2 * bound).any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["int8", "f32"])
@pytest.mark.parametrize("window", [FREE, 40])
def test_one_row_or_a_tile_same_bits(kind: str, shape: tuple[int, int, int], window: int) -> None:
    """Decode's kernel row by row, prefill's over tiles that begin anywhere, across pages and chunks."""
    heads, kv_heads, _ = shape
    pool, s = setting(kind, shape)
    for start, count in ((58, 14), (1018, 13)):
        single = attend(pool, heads, [(s, start + i, 1) for i in range(count)], 1, window)["q"]
        for tall in attention.heights(heads // kv_heads):
            tiles = attend(pool, heads, [(s, start, count)], tall, window)["q"]
            later = attend(pool, heads, [(s, start + 1, 2), (s, start + 3, count - 3)], tall, window)["q"]
            assert same(single, tiles)
            assert same(later, tiles[1:])


@pytest.mark.parametrize("kind", ["int8", "f32"])
def test_the_heads_of_one_item_change_no_bit(kind: str) -> None:
    """Five KV heads, in items that do not divide them."""
    heads, kv_heads, dim = 10, 5, 32
    pool, s = setting(kind, (heads, kv_heads, dim))
    alone = attend(pool, heads, [(s, 1018, 9)], 1)["q"]
    for together in range(2, kv_heads + 1):
        for threads in (1, 3):
            assert same(attend(pool, heads, [(s, 1018, 9)], 1, threads=threads, together=together)["q"], alone)


def test_heads_go_together_where_there_is_work_enough() -> None:
    together = attention.heads_together
    assert together(8, 8, 2) == 8 and together(2, 8, 2) == 2 and together(1, 8, 2) == 1
    for items, kv_heads, threads in product(range(1, 40), (1, 2, 5, 8), (1, 2, 6)):
        n = together(items, kv_heads, threads)
        assert 1 <= n <= kv_heads
        assert n == 1 or items * -(-kv_heads // n) >= 4 * threads


@pytest.mark.parametrize("kind", ["int8", "f32"])
def test_sequences_in_one_pass_do_not_meet(kind: str) -> None:
    """Each row alone, and beside sequences that are longer (more chunks), shorter, or the same pages read again."""
    heads = SHAPES[1][0]
    pool, s = setting(kind, SHAPES[1])
    short = Sequence(pool, heads, np.array([1, 0]), 70, seed=1)
    runs = [(short, 66, 4), (s, 1015, 20), (short, 0, 1), (s, 63, 2)]
    alone = [attend(pool, heads, [r], attention.heights(3)[-1])["q"] for r in runs]
    for threads in (1, 2, 3):
        together = attend(pool, heads, runs, attention.heights(3)[-1], threads=threads)["q"]
        assert same(together, np.concatenate(alone))


@pytest.mark.parametrize("kind", ["int8", "f32"])
@pytest.mark.parametrize("garbage", [0xFF, 0x7F, 0x80, 0x00])
@pytest.mark.parametrize("tall", [1, 4])
def test_what_an_earlier_sequence_left_in_a_page_changes_nothing(kind: str, garbage: int, tall: int) -> None:
    """Bytes after the last token: NaN, huge, tiny, zero, as numbers and as scales."""
    heads, kv_heads, dim = SHAPES[1]
    outs = []
    for fill in (0x11, garbage):
        pool = PagePool(kind, kv_heads, dim, 2)
        pool.bytes[:] = fill
        s = Sequence(pool, heads, np.array([1, 0]), 70, seed=2)
        outs.append([attend(pool, heads, [(s, start, 4)], tall)["q"] for start in (0, 20, 66)])
    assert all(same(a, b) for a, b in zip(*outs, strict=True))
    assert all(np.isfinite(a).all() for a in outs[0])


@pytest.mark.parametrize("part", ["q_scale", "k_scale", "v_scale"])
def test_nan_among_what_is_seen_reaches_the_output(part: str) -> None:
    """Int8 queries, keys or values that were NaN have a scale of NaN; the row is NaN, not quietly wrong."""
    heads, kv_heads, dim = SHAPES[1]
    pool = PagePool("int8", kv_heads, dim, 2)
    s = Sequence(pool, heads, np.array([1, 0]), 70, seed=3)
    if part == "q_scale":
        s.q_scale[65] = np.nan
    else:
        getattr(s.kv, part)[65] = np.nan
        pool.put(s.table, s.kv)
    for tall in (1, 4):
        got = attend(pool, heads, [(s, 62, 8)], tall)["q"]
        broken = np.isnan(got).all(1)
        assert np.array_equal(broken, np.isnan(got).any(1))
        assert broken.tolist() == [row == 65 if part == "q_scale" else row >= 65 for row in range(62, 70)]


def test_tiles_are_about_a_dozen_queries() -> None:
    for group in range(1, 17):
        one, *taller = attention.heights(group)
        assert one == 1 and all(rows * group <= max(12, group) for rows in taller)
        assert attention.height(1, group) == 1 and attention.height(300, group) == attention.heights(group)[-1]
    assert attention.heights(3) == (1, 2, 4) and [attention.height(n, 3) for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 4, 4]
