"""The partial results of attention joined: chunks of 1,024 tokens in ascending order, by the formula of the online
softmax (attention.py), divided by l, into the activations that the output projection reads.

An operation of its own, because the chunks of a row may have been computed by different threads: the barrier between
the two is what makes them whole, and the ascending order is what makes the sum independent of who computed which.
"""

from __future__ import annotations

from phi4mini.kernels.activations import BLOCK, SINK_FIELDS, sink_names, store_block
from phi4mini.kernels.attention import partial_floats
from phi4mini.kernels.kv import CHUNK
from phi4mini.kernels.lang.kernel import F32, LANES, LINE, Kernel, kernel, vec


@kernel("partial:f32[] counts:i64[3] positions:i64[rows] rows:i64[1] " + SINK_FIELDS, sink_names)
def merge(k: Kernel, format: str, heads: int, head_dim: int) -> None:
    """Chunks joined in ascending order, divided by l, into the sink (rows, heads * head_dim). positions i64 (rows,)."""
    chunks = k.load(k.counts[1])
    width = partial_floats(head_dim) * 4
    first, end = k.share(k.load(k.rows) * heads)
    for item in k.span(first, end):
        row, head = item // heads, item % heads
        base = k.partial.at(item * chunks * width)
        out = [k.var(vec(F32), k.load_float(base.at(d * 4))) for d in range(0, head_dim, LANES)]
        peak = k.var(F32, k.load(base.at(head_dim * 4), F32))
        total = k.var(F32, k.load(base.at(head_dim * 4 + 4), F32))
        for chunk in k.span(1, k.load(k.positions[row]) // CHUNK + 1):
            part = base.at(chunk * width)
            theirs = k.load(part.at(head_dim * 4), F32)
            new = k.maximum(peak.get(), theirs)
            a, b = k.exp(peak.get() - new), k.exp(theirs - new)
            peak.set(new)
            total.set(k.fma(total.get(), a, k.load(part.at(head_dim * 4 + 4), F32) * b))
            for i, o in enumerate(out):
                o.set(k.fma(o.get(), k.splat(a), k.load_float(part.at(i * LINE)) * k.splat(b)))
        inverse = k.splat(k.like(1.0, F32) / total.get())
        # Whether a block of 32 is the first or the second of its 64 inputs is known while staging if a head has whole
        # pairs; else it depends on the head, and both forms are written.
        for pair in range(0, head_dim // LANES, 2):
            block = head * (head_dim // BLOCK) + pair // 2
            low, high = out[pair].get() * inverse, out[pair + 1].get() * inverse
            odd = (pair // 2) % 2 == 1
            if head_dim % (2 * BLOCK) == 0:
                store_block(k, format, heads * head_dim, row, block, odd, low, high)
                continue
            with k.when((block % 2).equals(0)):
                store_block(k, format, heads * head_dim, row, block, False, low, high)
            with k.when((block % 2).equals(1)):
                store_block(k, format, heads * head_dim, row, block, True, low, high)
