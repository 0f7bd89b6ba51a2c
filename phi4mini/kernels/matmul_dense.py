"""out[m] = residual[m] + W x[m] for weights that are stored as floats, f32 or bf16.

For each output: one chain of fma over ascending inputs, starting from the residual (or zero), whatever the number of
rows.
"""

from __future__ import annotations

from phi4mini.formats.format_table import FORMATS
from phi4mini.kernels.lang.kernel import F32, I64, LINE, Kernel, kernel, vec


@kernel(
    "weights:u8[strips * strip_bytes] x:f32[rows, cols] out:f32[rows:out_stride, strips * 16] "
    "strips:int out_stride:int rows:i64[1] ticket:i64[1]",
    lambda params: {"strip_bytes": FORMATS[params["format"]].strip_bytes(params["cols"])},
)
def dense(k: Kernel, format: str, tall: int, wide: int, cols: int, residual: bool) -> None:
    """f32 and bf16 weights: acc = fma(w, x, acc) over ascending inputs, tiles of `tall` rows x `wide` strips handed
    out by ticket.
    """
    f = FORMATS[format]
    load = k.load_float if format == "f32" else k.load_bfloat
    rows = k.load(k.rows, I64, align=8)
    with k.until() as leave:
        tile = k.fetch_add(k.ticket, 1)
        leave(tile >= k.strips // wide)
        base = k.weights.at(tile * (wide * f.strip_bytes(cols)))
        for row in k.span(0, rows, tall):
            out = k.out.at(tile * (wide * LINE) + row * k.out_stride)
            cells = [(m, s, out.at(k.out_stride * m + s * LINE)) for m in range(tall) for s in range(wide)]
            acc = {(m, s): k.var(vec(F32), k.load_float(at) if residual else 0.0) for m, s, at in cells}
            for i in k.span(0, cols):
                weights = [load(base.at(i * f.superblock_bytes + s * f.strip_bytes(cols))) for s in range(wide)]
                for m in range(tall):
                    x = k.spread(k.x.at(((row + m) * cols + i) * 4), F32)
                    for s in range(wide):
                        acc[m, s].set(k.fma(weights[s], x, acc[m, s].get()))
            for m, s, at in cells:
                k.store(at, acc[m, s].get())


def dense_tall(rows: int) -> int:
    """Rows of a dense tile: the height that wastes the fewest padded rows, tall ones first."""
    return min((6, 4, 3, 2, 1), key=lambda t: (-(-rows // t) * t, -t))
