"""The machine's two ceilings, measured: bytes read per second, and int8 multiply-adds per second. Benchmarks and the
profile state a speed as a share of them.
"""

from __future__ import annotations

import time

import numpy as np

from phi4mini.kernels.lang.kernel import I8, I32, Kernel, kernel, vec
from phi4mini.kernels.threads.pool import Call, Pool, Program, aligned

_READ_BYTES = 512 << 20  # far beyond any cache
_STEPS = 200_000
_CHAINS = 12  # independent sums: latency times ports is 4 on Zen 4, and 10 with two ports and 5 cycles


@kernel("data:u8[bytes] bytes:int out:i32[_, 16]")
def read(k: Kernel) -> None:
    """Each thread reads its part once, front to back, 4 lines a turn."""
    first, end = k.share(k.bytes // 4096)
    sums = [k.var(vec(I32), 0) for _ in range(4)]
    for at in k.span(first * 4096, end * 4096, 256):
        for i, s in enumerate(sums):
            s.set(s.get() ^ k.load(k.data.at(at + 64 * i), vec(I32)))
    k.store(k.out[k.tid], sums[0].get() ^ sums[1].get() ^ sums[2].get() ^ sums[3].get())


@kernel("data:u8[128] steps:int out:i32[_, 16]")
def dots(k: Kernel) -> None:
    """Nothing but dot4 on registers."""
    sums = [k.var(vec(I32), i) for i in range(_CHAINS)]
    u, s = k.load(k.data, vec(I8, 64)), k.load(k.data.at(64), vec(I8, 64))
    for _ in k.span(0, k.steps):
        for v in sums:
            v.set(k.dot4(v.get(), u, s, small=True))
    total = sums[0].get()
    for v in sums[1:]:
        total = total ^ v.get()
    k.store(k.out[k.tid], total)


def read_bandwidth(threads: int, seconds: float = 0.5) -> float:
    """GB/s that `threads` threads read from memory together: the median of passes over 512 MB."""
    data, out = aligned(_READ_BYTES, np.uint8), aligned((threads, 16), np.int32)
    data[::4096] = 1  # touched, so that it is memory and not the one zero page
    return _READ_BYTES / _median(Program([Call(read(), data=data, bytes=_READ_BYTES, out=out)]), threads, seconds) / 1e9


def dot_peak(threads: int, seconds: float = 0.3) -> float:
    """GOPS (two operations a multiply-add) of int8 dot products in registers: the best of many runs."""
    data, out = aligned(128, np.uint8), aligned((threads, 16), np.int32)
    program = Program([Call(dots(), data=data, steps=_STEPS, out=out)])
    return threads * _STEPS * _CHAINS * 128 / min(_times(program, threads, seconds)) / 1e9


def _median(program: Program, threads: int, seconds: float) -> float:
    return float(np.median(_times(program, threads, seconds)))


def _times(program: Program, threads: int, seconds: float) -> list[float]:
    pool = Pool(threads)
    try:
        pool.run(program)  # caches and clocks warm
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 3:
            start = time.perf_counter()
            pool.run(program)
            times.append(time.perf_counter() - start)
        return times
    finally:
        pool.close()
