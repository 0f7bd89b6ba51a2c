"""Programs and the threads that run them: one native call a thread and pass, a barrier of about 100 ns between
operations.

A `Program` is a list of calls, each a kernel and its block of 64-bit arguments. `Pool.run` wakes the workers, and
every thread walks the whole list, doing its share of each operation. The caller is thread 0. Arguments are read when
an operation starts, so they may be patched between runs.

One call a pass, because calls are what costs: to wake two threads from Python and join them takes 60 us, and a pass of
Phi-4-mini has 290 operations, some of them 3 us long. A program of 250 empty operations takes about 25 us with its
barriers, 0.05 % of a token.

Workers wait in native code, on a condition variable of the C library, and never come back to Python while the pool is
open. A worker that needed the interpreter's lock to begin would be late by up to 5 ms whenever Python is busy elsewhere
(a server that writes to its clients), and all others would wait for it at the first barrier.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Sequence

import numpy as np

from phi4mini.kernels.lang import build
from phi4mini.kernels.lang.arguments import as_word, check_shape
from phi4mini.kernels.lang.kernel import I64, PTR, Kernel, Spec, V, kernel
from phi4mini.kernels.threads.crew import Crew

_log = logging.getLogger(__name__)
# At a barrier: about 50 us of pauses, longer than any wait on an undisturbed machine; then others may have the core.
_SPINS_BEFORE_YIELD = 2000
# Between passes: up to 0.4 ms. Waking a thread that sleeps takes 160 us on a virtual machine, one that spins 8 to 10.
_SPINS_BEFORE_SLEEP = 10_000
# The mailbox: number of the pass << 16 | its threads; the function they run (0: the end) and its argument; mutex;
# condition. Mutex and condition have cache lines of their own, so that spinning on the number does not slow them down.
_FUNCTION, _BLOCK, _MUTEX, _CONDITION, _MAILBOX = 8, 16, 128, 256, 384  # bytes
_MOST_THREADS = 0xFFFF


class Call:
    """One operation of a program: a kernel and its arguments by name, as 64-bit words (a float by its bits).

    Every argument is checked against its declaration (lang/arguments.py) when the call is recorded, because a kernel
    takes what lies at an address for what it declared. Raises TypeError or ValueError that names kernel, argument, what
    was declared and what was given.
    """

    def __init__(self, spec: Spec, **arguments: int | float | np.ndarray) -> None:
        names = [name for name, _ in spec.fields]
        if set(names) != set(arguments):
            raise TypeError(f"{spec.name} takes {names}, got {sorted(arguments)}")
        self.spec = spec
        self.block = np.zeros(len(names), np.int64)
        self.keep: dict[str, np.ndarray] = {}  # an array lives as long as the call that holds its address
        self.set(**arguments)

    def set(self, **arguments: int | float | np.ndarray) -> None:
        """Change arguments; the next run of a program takes them. After an error none has changed."""
        words = dict(zip((name for name, _ in self.spec.fields), self.block.tolist(), strict=True))
        for name in arguments:
            if name not in words:
                raise TypeError(f"{self.spec.name} has no argument {name!r}; it takes {list(words)}")
        keep = self.keep | {name: value for name, value in arguments.items() if isinstance(value, np.ndarray)}
        types, name = dict(self.spec.fields), ""
        try:
            for name, value in arguments.items():
                words[name] = as_word(value, types[name])
            for name, array in keep.items():
                check_shape(array, types[name], words.__getitem__)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self.spec.name}: {name} {error}") from None
        self.block[:] = list(words.values())
        self.keep = keep


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
        library = build.library()
        walks = [run_program(profile=p) for p in (False, True)]
        self._lead, self._await = library.function(lead()), library.function(await_passes())
        library.need(walks)
        self._walks = [library.address(walk) for walk in walks]
        self._barrier, self._mailbox = aligned(256, np.uint8), aligned(_MAILBOX, np.uint8)
        self._block = np.zeros(4, np.int64)
        self._call = np.zeros(4, np.int64)
        self._passes = 0
        self._closed = False
        _make_condition(self._mailbox.ctypes.data)
        self._workers = [threading.Thread(target=self._work, args=(i,), daemon=True) for i in range(1, threads)]
        for worker in self._workers:
            worker.start()
        _log.debug("a pool of %d threads", threads)

    def run(self, program: Program, profile: bool = False) -> None:
        """Run all calls of a program; with `profile`, call i takes program.cycles[i] to program.cycles[i + 1], in
        time-stamp cycles.

        Waking the workers and taking part is one native call: a KeyboardInterrupt comes before or after, never between,
        where it would leave the workers at a barrier without thread 0.
        """
        if self._closed:
            raise RuntimeError("the pool is closed")
        if not program.calls:
            return
        self._block[:] = (
            program.table.ctypes.data,
            len(program.calls),
            self._barrier.ctypes.data,
            program.cycles.ctypes.data,
        )
        size = program.crew.size() if program.crew else self.threads
        start = time.perf_counter()
        self._post(self._walks[profile], size)
        if program.crew:
            program.crew.note(time.perf_counter() - start)

    def close(self) -> None:
        """End the workers; a closed pool cannot run."""
        if not self._closed:
            self._closed = True
            self._post(0, 1)
        for worker in self._workers:
            worker.join()
        self._workers = []

    def _post(self, function: int, size: int) -> None:
        self._passes += 1
        word = self._passes << 16 | size
        self._call[:] = self._mailbox.ctypes.data, word, function, self._block.ctypes.data
        self._lead(self._call.ctypes.data, 0, size)

    def _work(self, index: int) -> None:
        block = np.array([self._mailbox.ctypes.data], np.int64)
        self._await(block.ctypes.data, index, 0)


def _make_condition(mailbox: int) -> None:
    library = ctypes.CDLL(None)
    for init, at in ((library.pthread_mutex_init, _MUTEX), (library.pthread_cond_init, _CONDITION)):
        if error := init(ctypes.c_void_p(mailbox + at), None):
            raise OSError(error, "cannot make a condition variable")


@kernel("mailbox:u8[] word:int program:int block:i64[]")
def lead(k: Kernel) -> None:
    """Thread 0 of a pass: have the others begin it, and take part.

    Function and block are stored before the number is published, so a worker that sees the new number sees them too.
    Without the mutex a worker that has looked at the number and is about to sleep would miss the broadcast.
    """
    mutex = k.mailbox.at(_MUTEX)
    k.library("pthread_mutex_lock", mutex)
    k.store(k.mailbox.at(_FUNCTION), k.program)
    k.store(k.mailbox.at(_BLOCK), k.block)
    k.publish(k.mailbox, k.word)
    k.library("pthread_cond_broadcast", k.mailbox.at(_CONDITION))
    k.library("pthread_mutex_unlock", mutex)
    with k.when(k.program > 0):
        k.call(k.program, k.block, k.tid, k.threads)


@kernel("mailbox:u8[]")
def await_passes(k: Kernel) -> None:
    """The loop of a worker: wait for a pass, take part if it is one of that pass's threads, until the pool closes."""
    seen = k.var(I64, 0)
    mutex = k.mailbox.at(_MUTEX)
    with k.until() as leave:
        _spin(k, k.mailbox, seen.get(), _SPINS_BEFORE_SLEEP)
        k.library("pthread_mutex_lock", mutex)
        with k.until() as awake:
            awake(k.observe(k.mailbox) > seen.get())
            k.library("pthread_cond_wait", k.mailbox.at(_CONDITION), mutex)
        seen.set(k.observe(k.mailbox))
        function = k.load(k.mailbox.at(_FUNCTION), I64)
        block = k.load(k.mailbox.at(_BLOCK), PTR)
        k.library("pthread_mutex_unlock", mutex)
        leave(function.equals(0))
        threads = seen.get() & _MOST_THREADS
        with k.when(k.tid < threads):
            k.call(function, block, k.tid, threads)


def _spin(k: Kernel, word: V, seen: V, most: int | None = None) -> None:
    """Wait for a number to grow, or for `most` looks at it. After a while another thread that needs the core gets it:
    where a neighbour has taken a core, the thread waited for may be the one that is not running.
    """
    spins = k.var(I64, 0)
    with k.until() as leave:
        leave(k.observe(word) > seen)
        if most:
            leave(spins.get() > most)
        k.pause()
        spins.set(spins.get() + 1)
        with k.when(spins.get() > _SPINS_BEFORE_YIELD):
            k.yield_cpu()


@kernel("table:i64[] count:int barrier:u8[] cycles:i64[]")
def run_program(k: Kernel, profile: bool) -> None:
    """Walk a program: call, meet, next. With `profile` thread 0 notes the time; it is a kernel of its own, so that a
    pass without it pays nothing.
    """
    for i in k.span(0, k.count):
        if profile:
            with k.when(k.tid.equals(0)):
                k.store(k.cycles.at(i * 8), k.cycles_now())
        entry = k.table.at(i * 16)
        k.call(k.load(entry, I64), k.load(entry.at(8), PTR), k.tid, k.threads)
        _meet(k, k.barrier)
    if profile:
        with k.when(k.tid.equals(0)):
            k.store(k.cycles.at(k.count * 8), k.cycles_now())


def _meet(k: Kernel, barrier: V) -> None:
    """Wait until all threads are here. The last one resets the count and opens the next generation; the others spin,
    then yield. Count and generation lie on different cache lines (128 bytes apart): arriving threads write one, waiting
    threads read the other.
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
            _spin(k, generation, before)


def aligned(shape: int | tuple[int, ...], dtype: type | np.dtype = np.float32, alignment: int = 64) -> np.ndarray:
    """A zeroed array whose first byte lies on a cache line: a vector of 64 bytes then never touches two lines."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    raw = np.zeros(count * dtype.itemsize + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + count * dtype.itemsize].view(dtype).reshape(shape)
