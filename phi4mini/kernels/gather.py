"""Rows picked by index: those whose logits are wanted, before the head."""

from __future__ import annotations

from phi4mini.kernels.lang.kernel import LANES, Kernel, kernel


@kernel("x:f32[_:stride, cols] stride:int index:i64[rows] rows:i64[1] out:f32[rows, cols]")
def gather(k: Kernel, cols: int) -> None:
    """out[i] = x[index[i]], f32 rows of `cols`, those of x `stride` bytes apart; index i64 (rows,)."""
    first, end = k.share(k.load(k.rows))
    for i in k.span(first, end):
        row, to = k.x[k.load(k.index[i])], k.out[i]
        for col in k.span(0, cols // LANES * LANES, LANES):
            k.store(to[col], k.load_float(row[col]))
