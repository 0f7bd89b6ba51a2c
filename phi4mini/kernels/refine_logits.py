"""The head's second look: the logits of likely tokens get back what rounding the head's input to int8 took from them.

The head multiplies its input as int8 like any other matrix. The norm before it also leaves the rounding error, 254
times finer, as a second row (activations.py), and the strips of 16 tokens that hold a row's largest logits are
multiplied by that row as well:

    logit  =  W q                      everywhere
    logit  =  W q + W (x - q)          in a strip whose largest W q is at least the row's floor
    floor  =  max W q - d              d the largest of LADDER with at most MOST such strips; all, if there are no more

So the logits of all likely tokens have 16 bits of activation behind them, for at most 256 of 12,504 strips, 2 % of the
head's work. Rounding the head's input alone costs a KL of 0.0008 of 0.0032 in all. Two int8 rows everywhere would make
the head a quarter of a pass of eight rows (29 of 119 ms on Zen 4) and gain a KL of 0.0001. Which strips are corrected
depends on the row's own logits and on nothing else, so neighbours in a pass change no bit.
"""

from __future__ import annotations

from phi4mini.formats.format_table import FORMATS
from phi4mini.kernels.activations import SINK_FIELDS, sink_names
from phi4mini.kernels.lang.kernel import F32, I64, LANES, Kernel, kernel, vec
from phi4mini.kernels.matmul import Activations, one_strip

MOST = 256  # strips of a row that are corrected
# How far below the largest logit, in nats: a token 16 below has 1e-7 of the largest one's probability. Fixed
# steps instead of a search, so that one more pass over the logits counts all of them.
LADDER = (16.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.25)
_LOWEST = -3.0e38
_PORTION = 16  # strips that a thread takes at once; likely tokens lie close together, so fixed parts would be uneven


@kernel("logits:f32[rows:stride, strips * 16] stride:int strips:int rows:i64[1] floors:f32[rows]")
def floors(k: Kernel) -> None:
    """logits f32 rows, `stride` bytes apart, of 16 * strips; floors f32 (rows,)."""
    first, end = k.share(k.load(k.rows))
    for row in k.span(first, end):
        logits = k.logits[row]
        peak = k.var(vec(F32), _LOWEST)
        for strip in k.span(0, k.strips):
            peak.set(k.maximum(k.load_float(logits[strip * LANES]), peak.get()))
        best = k.peak(peak.get())
        counts = [k.var(I64, 0) for _ in LADDER]
        for strip in k.span(0, k.strips):
            below = best - k.peak(k.load_float(logits[strip * LANES]))
            for depth, count in zip(LADDER, counts, strict=True):
                count.set(count.get() + k.widen(below <= depth, I64, signed=False))
        floor = best
        for depth, count in zip(reversed(LADDER), reversed(counts), strict=True):
            floor = k.select(count.get() <= MOST, best - depth, floor)
        k.store(k.floors[row], k.select(k.strips <= MOST, k.like(_LOWEST, F32), floor))


@kernel(
    "weights:u8[strips * strip_bytes] out:f32[rows:out_stride, strips * 16] out_stride:int strips:int rows:i64[1] "
    "floors:f32[rows] ticket:i64[1] " + SINK_FIELDS,
    sink_names,
)
def refine(k: Kernel, format: str, cols: int, fine: int) -> None:
    """Logits out f32 (rows, 16 * strips) corrected in place; row m's second row of activations is row m + fine."""
    f = FORMATS[format]
    x = Activations(f, f.padded(cols), k.q, k.scale, k.start, k.sums)
    rows = k.load(k.rows)
    with k.until() as leave:
        first = k.fetch_add(k.ticket, 1) * _PORTION
        leave(first >= k.strips)
        for strip in k.span(first, k.minimum(first + _PORTION, k.strips)):
            for row in k.span(0, rows):
                out = k.out[row, strip * LANES]
                with k.when(k.peak(k.load_float(out)) >= k.load(k.floors[row])):
                    one_strip(k, x.row(row + fine), k.weights, strip, out, 1, residual=True)
