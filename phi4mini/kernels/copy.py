"""Rows picked by index, and pairs of rows added: before and after the head."""

from __future__ import annotations

from phi4mini.kernels.lang import I64, LANES, LINE, Kernel, kernel


@kernel("x:ptr index:ptr rows:ptr out:ptr")
def gather(k: Kernel, cols: int) -> None:
    """out[i] = x[index[i]], f32 rows of `cols`; index i64 (rows,)."""
    first, end = k.share(k.load(k.rows, I64))
    for i in k.span(first, end):
        row = k.x.at(k.load(k.index.at(i * 8), I64) * (cols * 4))
        to = k.out.at(i * (cols * 4))
        for at in k.span(0, cols // LANES * LINE, LINE):
            k.store(to.at(at), k.load_float(row.at(at)))


@kernel("x:ptr rows:ptr stride:int")
def add_pairs(k: Kernel) -> None:
    """x[i] = x[2 i] + x[2 i + 1] in place, for f32 rows `stride` bytes apart (a multiple of 64); threads share the
    columns.
    """
    first, end = k.share(k.stride // LINE)
    for i in k.span(0, k.load(k.rows, I64)):
        to, pair = k.x.at(i * k.stride), k.x.at(i * 2 * k.stride)
        for at in k.span(first * LINE, end * LINE, LINE):
            k.store(to.at(at), k.load_float(pair.at(at)) + k.load_float(pair.at(k.stride + at)))
