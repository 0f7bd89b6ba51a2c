"""Float weights to q4: for each group of 32, the scale that leaves the least squared error, found by trying.

    scale = x_peak / -8 * s           x_peak the largest by size, sign kept; s of 12 steps from 0.75 to 1.08
    scale = sum(x n) / sum(n n)       of the best one's own integers n = q - 8, kept if it is better

Every candidate is rounded to f16 first, as it will be stored. The readable twin, `quantize_blocks` in formats/, tries
three. This one has 1 to 2 % less squared error and is five times as fast, which matters for 3.8 billion weights. (A
search for q8 was dropped: 44 % less squared error, and a worse perplexity on the demo model.)
"""

from __future__ import annotations

import numpy as np

from phi4mini.errors import BadInput
from phi4mini.formats.format_table import FORMATS
from phi4mini.formats.matrix import Blocks
from phi4mini.kernels.lang import build
from phi4mini.kernels.lang.kernel import F16, F32, I8, Kernel, V, kernel

GROUP = FORMATS["q4"].group
_STEPS, _LEAST, _MOST = 12, 0.75, 1.08
_ZERO, _TOP = FORMATS["q4"].zero, FORMATS["q4"].largest


def encode_blocks(values: np.ndarray) -> Blocks:
    """float32 (rows, cols), cols a multiple of 32, to the parts of q4. Runs on the caller's thread, without the GIL.

    Raises BadInput where no f16 holds a scale.
    """
    from phi4mini.kernels.threads.pool import Call

    values = np.ascontiguousarray(values, np.float32)
    rows, cols = values.shape
    q, scale = np.empty((rows, cols), np.uint8), np.empty((rows, cols // GROUP), np.float32)
    spec = encode()
    call = Call(spec, x=values, q=q, scale=scale, groups=scale.size)  # kept: the kernel reads its block
    build.library().function(spec)(call.block.ctypes.data, 0, 1)
    if not np.isfinite(scale).all():
        raise BadInput("a group's largest weight is beyond what an f16 scale can hold")
    return Blocks(q, scale.astype(np.float16))


@kernel("x:f32[] q:u8[] scale:f32[] groups:int")
def encode(k: Kernel) -> None:
    """x f32 (groups, 32) to q u8 (groups, 32) and scale f32 (groups,), exactly what an f16 holds."""
    first, end = k.share(k.groups)
    for group in k.span(first, end):
        x = [k.load_float(k.x.at(group * (GROUP * 4) + 64 * i)) for i in range(2)]
        scale = _search(k, x)
        for i, n in enumerate(_integers(k, x, scale)):
            k.store(k.q.at(group * GROUP + 16 * i), k.narrow(k.to_int(n) + _ZERO, I8))
        k.store(k.scale.at(group * 4), scale)


def _search(k: Kernel, x: list[V]) -> V:
    """The best scale of the candidates, an f32 that f16 holds."""
    base = _peak(k, x) * (-1.0 / _ZERO)
    best = k.var(F32, _as_half(k, base))
    least = k.var(F32, _error(k, x, best.get()))

    def consider(scale: V) -> None:
        error = _error(k, x, scale)
        better = error < least.get()
        best.set(k.select(better, scale, best.get()))
        least.set(k.select(better, error, least.get()))

    for step in k.span(0, _STEPS):
        consider(_as_half(k, base * (k.to_float(step) * ((_MOST - _LEAST) / (_STEPS - 1)) + _LEAST)))
    n = _integers(k, x, best.get())
    squares = k.sum(k.fma(n[0], n[0], n[1] * n[1]))
    consider(_as_half(k, k.sum(k.fma(n[0], x[0], n[1] * x[1])) / k.maximum(squares, 1.0)))
    return best.get()


def _peak(k: Kernel, x: list[V]) -> V:
    """The largest by size, with its sign."""
    size = k.peak(k.maximum(k.absolute(x[0]), k.absolute(x[1])))
    return k.select(k.peak(k.maximum(x[0], x[1])) >= size, size, size * -1.0)


def _integers(k: Kernel, x: list[V], scale: V) -> list[V]:
    """q - zero as floats; all zero for a scale of zero."""
    inverse = k.select(scale.equals(0.0), k.like(0.0, scale), k.like(1.0, scale) / scale)
    return [k.minimum(k.maximum(k.intrinsic("rint", v * inverse), -_ZERO), _TOP - _ZERO) for v in x]


def _error(k: Kernel, x: list[V], scale: V) -> V:
    rest = [k.fma(n, k.splat(scale * -1.0), v) for n, v in zip(_integers(k, x, scale), x, strict=True)]
    return k.sum(k.fma(rest[0], rest[0], rest[1] * rest[1]))


def _as_half(k: Kernel, x: V) -> V:
    return V(k, k.b.fpext(k.b.fptrunc(x.v, F16), F32))
