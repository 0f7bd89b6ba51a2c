"""SwiGLU into the next matmul's activations: up * gate / (1 + exp(-gate)).

Each row has all of gate first, then all of up, as HF's gate_up_proj gives them. A large negative gate gives a number
near 0 and never NaN, because `exp` stays finite.
"""

from __future__ import annotations

from phi4mini.kernels.activations import BLOCK, SINK_FIELDS, pairs_of_blocks, rows_and_parts, sink_names, store_block
from phi4mini.kernels.lang.kernel import LANES, Kernel, V, kernel


@kernel("x:f32[rows:stride, 2 * cols] stride:int rows:i64[1] " + SINK_FIELDS, sink_names)
def swiglu(k: Kernel, format: str, cols: int) -> None:
    """x f32 (rows, 2 * cols), `stride` bytes from row to row, to activations (rows, cols)."""

    def part(row: V, first: V, end: V) -> None:
        x = k.x[row]
        for block, odd in pairs_of_blocks(k, cols, first, end):
            halves = []
            for i in range(2):
                col = block * BLOCK + i * LANES
                gate, up = k.load_float(x[col]), k.load_float(x[col + cols])
                halves.append(up * (gate / (k.exp(gate * -1.0) + 1.0)))
            store_block(k, format, cols, row, block, odd, *halves)

    rows_and_parts(k, k.load(k.rows), cols, part)
