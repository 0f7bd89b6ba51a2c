"""Programs and the threads that run them: one native call a thread and step, a barrier of about 100 ns between
operations.

A `Program` is a list of calls, each a kernel and its block of 64-bit arguments. `Pool.run` wakes the workers, and
every thread walks the whole list, doing its share of each operation. The caller is thread 0. Arguments are read when
an operation starts, so they may be patched between runs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from operator import call

import numpy as np

from phi4mini.kernels import build
from phi4mini.kernels.crew import Crew
from phi4mini.kernels.lang import I64, PTR, SIGNATURE, Kernel, Spec, V, kernel

_SPINS_BEFORE_YIELD = 2000  # about 50 us of pauses: longer than any wait on an undisturbed machine


class Call:
    """One operation of a program: a kernel and its arguments by name (addresses and integers; floats by their bits)."""

    def __init__(self, spec: Spec, **arguments: int | float | np.ndarray) -> None:
        names = [name for name, _ in spec.fields]
        if set(names) != set(arguments):
            raise TypeError(f"{spec.name} takes {names}, got {sorted(arguments)}")
        self.spec = spec
        self.block = np.array([_as_word(arguments[n], kind) for n, kind in spec.fields], np.int64)
        self.keep = [a for a in arguments.values() if isinstance(a, np.ndarray)]

    def set(self, **arguments: int | float | np.ndarray) -> None:
        for i, (name, kind) in enumerate(self.spec.fields):
            if name in arguments:
                self.block[i] = _as_word(arguments[name], kind)


class Program:
    """Calls in their order, as the table that the interpreter walks. With a crew, the clock chooses the threads."""

    def __init__(self, calls: Sequence[Call], crew: Crew | None = None) -> None:
        self.calls, self.crew = list(calls), crew
        library = build.library()
        library.need([c.spec for c in calls])
        self.table = np.array([w for c in calls for w in (library.address(c.spec), c.block.ctypes.data)], np.int64)
        self.cycles = np.zeros(len(calls) + 1, np.int64)


class Pool:
    """N threads that run programs together."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._run, self._profile = (build.library().function(run_program(profile=p)) for p in (False, True))
        self._barrier = aligned(256, np.uint8)
        self._block = np.zeros(4, np.int64)
        self._native, self._size = self._run, threads
        self._closed = False
        self._go = [threading.Lock() for _ in range(threads - 1)]
        for go in self._go:
            go.acquire()  # held but for the moment between a run's start and its worker's
        self._workers = [threading.Thread(target=self._work, args=(i,), daemon=True) for i in range(threads - 1)]
        for worker in self._workers:
            worker.start()

    def run(self, program: Program, profile: bool = False) -> None:
        """Run all calls of a program; with `profile`, program.cycles[i] .. [i + 1] brackets call i in time-stamp
        cycles.

        Waking the workers and joining them is one call for the interpreter: a KeyboardInterrupt comes before or
        after, never between, where it would leave the workers at a barrier without thread 0.
        """
        if self._closed:
            raise RuntimeError("the pool is closed")
        if not program.calls:
            return
        self._native = self._profile if profile else self._run
        self._block[:] = (
            program.table.ctypes.data,
            len(program.calls),
            self._barrier.ctypes.data,
            program.cycles.ctypes.data,
        )
        self._size = program.crew.size() if program.crew else self.threads
        mine = partial(self._native, self._block.ctypes.data, 0, self._size)
        start = time.perf_counter()
        deque(map(call, [*(go.release for go in self._go[: self._size - 1]), mine]), maxlen=0)  # type: ignore[arg-type]
        if program.crew:
            program.crew.note(time.perf_counter() - start)

    def close(self) -> None:
        """End the workers; a closed pool cannot run."""
        self._closed = True
        for go in self._go:
            go.release()
        for worker in self._workers:
            worker.join()
        self._go, self._workers = [], []

    def _work(self, index: int) -> None:
        while True:
            self._go[index].acquire()
            if self._closed:
                return
            self._native(self._block.ctypes.data, index + 1, self._size)


@kernel("table:ptr count:int barrier:ptr cycles:ptr")
def run_program(k: Kernel, profile: bool) -> None:
    """Walk a program: call, meet, next. Thread 0 notes the time when profiling."""
    for i in k.span(0, k.count):
        if profile:
            with k.when(k.tid.equals(0)):
                k.store(k.cycles.at(i * 8), k.cycles_now())
        entry = k.table.at(i * 16)
        function = k.b.inttoptr(k.load(entry, I64).v, SIGNATURE.as_pointer())
        block = k.load(entry.at(8), PTR)
        k.b.call(function, [block.v, k.tid.v, k.threads.v])
        _meet(k, k.barrier)
    if profile:
        with k.when(k.tid.equals(0)):
            k.store(k.cycles.at(k.count * 8), k.cycles_now())


def _meet(k: Kernel, barrier: V) -> None:
    """Wait until all threads are here. The last one resets the count and opens the next generation; the others spin,
    then yield.
    """
    generation = barrier.at(128)
    before = k.observe(generation)
    arrived = k.fetch_add(barrier, 1) + 1
    last = arrived.equals(k.threads)
    with k.b.if_else(last.v) as (then, otherwise):
        with then:
            k.publish(barrier, k.const(I64, 0))
            k.publish(generation, before + 1)
        with otherwise:
            spins = k.var(I64, 0)
            with k.until() as leave:
                leave(k.observe(generation) > before)
                k.pause()
                spins.set(spins.get() + 1)
                with k.when(spins.get() > _SPINS_BEFORE_YIELD):
                    k.yield_cpu()


def aligned(shape: int | tuple[int, ...], dtype: type | np.dtype = np.float32, alignment: int = 64) -> np.ndarray:
    """A zeroed array whose first byte lies on a cache line."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    raw = np.zeros(count * dtype.itemsize + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + count * dtype.itemsize].view(dtype).reshape(shape)


def _as_word(value: int | float | np.ndarray, kind: str) -> int:
    if isinstance(value, np.ndarray):
        return value.ctypes.data
    if kind == "float":
        return int(np.array([value, 0], np.float32).view(np.int64)[0])
    return int(value)
