"""Rows picked by index: those whose logits are wanted, before the head."""

from __future__ import annotations

from phi4mini.kernels.lang.kernel import I64, LANES, LINE, Kernel, kernel


@kernel("x:f32[] stride:int index:i64[] rows:i64[] out:f32[]")
def gather(k: Kernel, cols: int) -> None:
    """out[i] = x[index[i]], f32 rows of `cols`, those of x `stride` bytes apart; index i64 (rows,)."""
    first, end = k.share(k.load(k.rows, I64))
    for i in k.span(first, end):
        row = k.x.at(k.load(k.index.at(i * 8), I64) * k.stride)
        to = k.out.at(i * (cols * 4))
        for at in k.span(0, cols // LANES * LINE, LINE):
            k.store(to.at(at), k.load_float(row.at(at)))
