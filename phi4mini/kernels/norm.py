"""RMSNorm into the next matmul's activations: x / sqrt(mean(x^2) + eps) * weight.

The order is that of HF's Phi3RMSNorm: the product with the weight comes last. Squares are summed in 16 chains of fma, a
lane each, then as a tree.
"""

from __future__ import annotations

from functools import partial

from phi4mini.kernels.activations import (
    BLOCK,
    SINK_FIELDS,
    pairs_of_blocks,
    rows_and_parts,
    sink_names,
    store_block,
    store_fine,
)
from phi4mini.kernels.lang.kernel import F32, LANES, Kernel, V, kernel, vec


@kernel("x:f32[rows:stride, cols] stride:int weight:f32[cols] eps:float rows:i64[1] " + SINK_FIELDS, sink_names)
def rmsnorm(k: Kernel, format: str, cols: int, fine: int = 0) -> None:
    """x f32 (rows, cols), `stride` bytes from row to row; weight f32 (cols,).

    Where a row is split among threads, each of them sums the squares of all of it: 12 KB from cache is cheaper than a
    barrier, and the bits are those of one thread. With `fine`, the rounding error of row m goes into row m + fine
    (store_fine).
    """
    put = partial(store_fine, fine=fine) if fine else store_block

    def part(row: V, first: V, end: V) -> None:
        x = k.x[row]
        squares = k.var(vec(F32), 0.0)
        for col in k.span(0, cols, LANES):
            v = k.load_float(x[col])
            squares.set(k.fma(v, v, squares.get()))
        mean = k.sum(squares.get()) * (1.0 / cols)
        factor = k.like(1.0, F32) / k.intrinsic("sqrt", mean + k.eps)
        for block, odd in pairs_of_blocks(k, cols, first, end):
            halves = []
            for half in range(2):
                col = block * BLOCK + half * LANES
                halves.append(k.load_float(x[col]) * factor * k.load_float(k.weight[col]))
            put(k, format, cols, row, block, odd, *halves)

    rows_and_parts(k, k.load(k.rows), cols, part)
