"""RMSNorm into the next matmul's activations: x / sqrt(mean(x^2) + eps) * weight (HF: the product with the weight
comes last).
"""

from __future__ import annotations

from functools import partial

from phi4mini.kernels.activations import (
    BLOCK,
    SINK_FIELDS,
    pairs_of_blocks,
    rows_and_parts,
    sink_types,
    store_block,
    store_fine,
)
from phi4mini.kernels.lang.kernel import F32, I64, Kernel, V, kernel, vec


@kernel("x:f32[] stride:int weight:f32[] eps:float rows:i64[] " + SINK_FIELDS, sink_types)
def rmsnorm(k: Kernel, format: str, cols: int, fine: int = 0) -> None:
    """x f32 (rows, cols), `stride` bytes from row to row; weight f32 (cols,). Where a row is split among threads, each
    of them sums all of it: same bits.

    With `fine`, what rounding takes from row m goes into row m + fine (store_fine).
    """
    put = partial(store_fine, fine=fine) if fine else store_block

    def part(row: V, first: V, end: V) -> None:
        x = k.x.at(row * k.stride)
        squares = k.var(vec(F32), 0.0)
        for i in k.span(0, cols * 4, 64):
            v = k.load_float(x.at(i))
            squares.set(k.fma(v, v, squares.get()))
        mean = k.sum(squares.get()) * (1.0 / cols)
        factor = k.like(1.0, F32) / k.intrinsic("sqrt", mean + k.eps)
        for block, odd in pairs_of_blocks(k, cols, first, end):
            halves = []
            for half in range(2):
                at = block * (BLOCK * 4) + half * 64
                halves.append(k.load_float(x.at(at)) * factor * k.load_float(k.weight.at(at)))
            put(k, format, cols, row, block, odd, *halves)

    rows_and_parts(k, k.load(k.rows, I64), cols, part)
