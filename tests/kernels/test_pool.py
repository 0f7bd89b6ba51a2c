"""Programs and threads: barriers that hold, arguments that may change between runs, ends that do not hang."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from phi4mini.kernels import build
from phi4mini.kernels.lang import I64, Kernel, kernel
from phi4mini.kernels.pool import Call, Pool, Program, aligned
from tests.kernels.harness import ROOT


@kernel("source:ptr target:ptr")
def pass_on(k: Kernel) -> None:
    """Each thread takes its neighbour's number, plus one. Slots are a cache line each."""
    neighbour = (k.tid + 1) % k.threads
    k.store(k.target.at(k.tid * 64), k.load(k.source.at(neighbour * 64), I64) + 1)


@kernel("out:ptr n:int x:float")
def note(k: Kernel) -> None:
    with k.when(k.tid.equals(0)):
        k.store(k.out, k.n)
        k.store(k.out.at(8), k.x)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of tests stay out of the user's cache, which is keyed by the room's own sources."""
    library = build.Library(folder=tmp_path)
    monkeypatch.setattr(build, "library", lambda: library)


@pytest.fixture
def two() -> Iterator[Pool]:
    pool = Pool(2)
    yield pool
    pool.close()


@pytest.mark.parametrize(("threads", "runs"), [(1, 20), (2, 700), (3, 120), (4, 60)])
def test_barriers_hold(threads: int, runs: int) -> None:
    """Numbers go round a ring through two buffers; who ran ahead or fell behind would read a wrong one."""
    pool = Pool(threads)
    ring = [aligned((threads, 8), np.int64) for _ in range(2)]
    program = Program([Call(pass_on(), source=ring[i % 2], target=ring[1 - i % 2]) for i in range(110)])
    try:
        for _ in range(runs):
            pool.run(program)
        assert (ring[0][:, 0] == 110 * runs).all() and (ring[1][:, 0] == 110 * runs - 1).all()
    finally:
        pool.close()


def test_arguments_may_change_between_runs(two: Pool) -> None:
    out = np.zeros(2, np.int64)
    call = Call(note(), out=out, n=1, x=1.5)
    program = Program([call])
    for n, x in ((1, 1.5), (-(1 << 40), -2.25), (7, float("inf"))):
        call.set(n=n, x=x)
        two.run(program)
        assert out[0] == n and out[1:].view(np.float32)[0] == x
    other = np.zeros(2, np.int64)
    call.set(out=other)
    two.run(program)
    assert other[0] == 7


def test_a_profiled_run_brackets_every_call(two: Pool) -> None:
    ring = [aligned((2, 8), np.int64) for _ in range(2)]
    program = Program([Call(pass_on(), source=ring[0], target=ring[1]) for _ in range(5)])
    two.run(program)
    assert not program.cycles.any()
    two.run(program, profile=True)
    assert (np.diff(program.cycles) > 0).all() and len(program.cycles) == 6


def test_an_empty_program_runs(two: Pool) -> None:
    two.run(Program([]))


@pytest.mark.parametrize("arguments", [{"n": 1, "x": 2.0}, {"out": 0, "n": 1, "x": 2.0, "y": 3}])
def test_arguments_are_those_declared(arguments: dict[str, float]) -> None:
    with pytest.raises(TypeError, match=r"note takes \['out', 'n', 'x'\]"):
        Call(note(), **arguments)


def test_close_ends_the_threads_and_a_closed_pool_says_so() -> None:
    before = threading.active_count()
    pool = Pool(3)
    assert threading.active_count() == before + 2
    pool.close()
    pool.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="closed"):
        pool.run(Program([]))


def test_aligned_arrays_begin_on_a_line() -> None:
    for shape, dtype in (((3, 5), np.float32), (7, np.int8), (1, np.float64)):
        a = aligned(shape, dtype)
        assert a.ctypes.data % 64 == 0 and not a.any() and a.dtype == dtype
    assert aligned(10, np.uint8, 4096).ctypes.data % 4096 == 0


STORM = """
import signal, sys, numpy as np
from phi4mini.kernels.norm import rmsnorm
from phi4mini.kernels.pool import Call, Pool, Program, aligned

def interrupt(*_):
    raise KeyboardInterrupt

x, rows = aligned((2, 64)), aligned(8, np.int64)
rows[0] = 2
sink = dict(q=x, scale=x, start=x, sums=x)
call = Call(rmsnorm(format="f32", cols=64), x=x, stride=256, weight=x, eps=1.0, rows=rows, **sink)
program, pool = Program([call] * 20), Pool(2)
signal.signal(signal.SIGALRM, interrupt)
caught = done = 0
while caught < 1500 and done < 200000:
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-5 + 2e-4 * np.random.random())
        while True:
            pool.run(program)
            done += 1
    except KeyboardInterrupt:
        caught += 1
pool.run(program)
print(caught)
"""


def test_keyboard_interrupts_do_not_deadlock() -> None:
    """Interrupts at arbitrary moments: each is raised, and the pool runs on. A hang would end by the timeout."""
    done = subprocess.run([sys.executable, "-c", STORM], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == 1500
