"""Where an operation puts the activations that the next matmul reads, its *sink*: f32 as they are, or int8 in groups of
32 or 16 (formats/).

    scale = max|x| / 127          q = round_even(x * (127 / max|x|))          an all-zero group has scale 0
    start = -zero * sum(q)        the integer start value of a run: folds the weights' zero point in
                                  (times the `factor` that unpack.py leaves on those weights)
    sums  = scale * sum(q)        what a weight format's minimum is multiplied by

The head's activations are kept finer: a second row holds the rounding error of q in steps 254 times finer, and
refine_logits.py multiplies it where it matters.

Groups are this small because of the error: on the demo model groups of 32, 64 and 256 gave a KL of 0.0036, 0.0066 and
0.019 (docs/log.md). Groups of 256 would give prefill 6 points more of the dot units' peak, for five times the error.

No pass of its own quantises: norm, swiglu and attention's merge write int8 while they have the numbers in registers.
These small operations are about 1 % of a token, so fusing them into the matmuls as well would not pay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from phi4mini.formats.format_table import FORMATS, Format
from phi4mini.kernels.lang.kernel import I8, LANES, Kernel, V, kernel
from phi4mini.kernels.unpack import factor

BLOCK = 32
_FINER = 254.0  # half a step either way, on -127 .. 127
# Every operation with a sink declares these arguments; a sink of floats uses q only.
SINK_FIELDS = "q:activation[rows, width] scale:f32[rows, groups] start:i32[rows, runs] sums:f32[rows, groups]"


def sink_names(params: dict[str, Any]) -> dict[str, str | int | None]:
    """What the names in SINK_FIELDS are, by the staging parameters of a kernel with a sink: `format`, and `cols` or the
    heads that make up a row. `strip_bytes`: of a matrix of that format that reads it.
    """
    f, cols = FORMATS[params["format"]], params["cols"] if "cols" in params else params["heads"] * params["head_dim"]
    width, strip = f.padded(cols), f.strip_bytes(cols)
    if not f.block:  # scales and sums are there and not looked at
        return {"activation": "f32", "width": width, "groups": None, "runs": None, "strip_bytes": strip}
    groups, runs = width // f.act_group, width // f.run
    return {"activation": "i8", "width": width, "groups": groups, "runs": runs, "strip_bytes": strip}


def store_block(k: Kernel, format: str, cols: int, row: V, block: V, odd: bool, low: V, high: V) -> None:
    """Put 32 consecutive activations of a row where a matrix of `format` with `cols` inputs will read them.

    `odd` says at staging time whether the block is the second of its pair of 64.
    """
    f = FORMATS[format]
    if not f.block:
        to = k.q.at((row * cols + block * BLOCK) * 4)
        k.store(to, low)
        k.store(to.at(64), high)
        return
    for i, values in _groups(f, low, high):
        whole, scale, _ = _rounded(k, values)
        _store_group(k, f, cols, row, block, i, odd, whole, scale)


def store_fine(k: Kernel, format: str, cols: int, row: V, block: V, odd: bool, low: V, high: V, fine: int) -> None:
    """As store_block, and the rounding error as row `row + fine`; the products of both rows are to be added. A sink of
    floats needs no second row.
    """
    f = FORMATS[format]
    if not f.block:
        store_block(k, format, cols, row, block, odd, low, high)
        return
    for i, values in _groups(f, low, high):
        whole, scale, inverse = _rounded(k, values)
        rest = [k.to_int((x * inverse - k.to_float(w)) * _FINER) for x, w in zip(values, whole, strict=True)]
        _store_group(k, f, cols, row, block, i, odd, whole, scale)
        _store_group(k, f, cols, row + fine, block, i, odd, rest, scale * (1.0 / _FINER))


def _groups(f: Format, low: V, high: V) -> list[tuple[int, list[V]]]:
    """The activations that share a scale: both vectors, or each by itself."""
    return [(0, [low, high])] if f.act_group == BLOCK else [(0, [low]), (1, [high])]


def _rounded(k: Kernel, values: list[V]) -> tuple[list[V], V, V]:
    """Values as integers of -127 .. 127, with their scale and its inverse. Never -128: AVX2 moves the sign of a weight
    over to its activation (isa.py), and -128 has no opposite in 8 bits.
    """
    peak = k.magnitude(values)
    inverse = k.select(peak > 0.0, k.like(127.0, peak) / peak, 0.0)
    return [k.to_int(x * inverse) for x in values], peak * (1.0 / 127.0), inverse


def _store_group(
    k: Kernel, f: Format, cols: int, row: V, block: V, i: int, odd: bool, whole: list[V], scale: V
) -> None:
    """The i-th group of a block: one scale, one start value, one sum. A run is as long as a group of activations in
    every format, so one start value is enough.
    """
    width = f.padded(cols)
    to = k.q.at(row * width + block * BLOCK + i * f.act_group)
    for j, part in enumerate(whole):
        k.store(to.at(16 * j), k.narrow(part, I8))
    at = (row * (width // f.act_group) + block * (BLOCK // f.act_group) + i) * 4
    total = k.sum(whole[0] if len(whole) == 1 else whole[0] + whole[1])
    k.store(k.scale.at(at), scale)
    k.store(k.start.at(at), total * (-f.zero * factor(k, f, (BLOCK * odd + i * f.act_group) // f.group)))
    k.store(k.sums.at(at), scale * k.to_float(total))


def pairs_of_blocks(k: Kernel, cols: int, first: V, end: V) -> Iterator[tuple[V, bool]]:
    """Blocks first .. end - 1 (first even) as (block, odd), two a turn; the last turn may have one."""
    for block in k.span(first, end, 2):
        yield block, False
        with k.when(block + 1 < end):
            yield block + 1, True


def rows_and_parts(k: Kernel, rows: V, cols: int, body: Callable[[V, V, V], None]) -> None:
    """Split rows x blocks among threads: whole rows, or parts of rows where there are fewer rows than threads. Parts
    begin at an even block, because the two halves of a pair of 64 inputs have start values of different factors.
    """
    pairs = -(-cols // (2 * BLOCK))
    parts = k.select(rows < k.threads, k.threads, 1)
    first, end = k.share(rows * parts)
    for item in k.span(first, end):
        row, part = item // parts, item % parts
        start, stop = part * pairs // parts * 2, (part + 1) * pairs // parts * 2
        body(row, start, k.minimum(stop, cols // BLOCK))


@kernel("x:f32[rows, cols] rows:i64[1] " + SINK_FIELDS, sink_names)
def quantize(k: Kernel, format: str, cols: int) -> None:
    """f32 rows (rows, cols) into a sink."""

    def part(row: V, first: V, end: V) -> None:
        for block, odd in pairs_of_blocks(k, cols, first, end):
            x, col = k.x[row], block * BLOCK
            store_block(k, format, cols, row, block, odd, k.load_float(x[col]), k.load_float(x[col + LANES]))

    rows_and_parts(k, k.load(k.rows), cols, part)
