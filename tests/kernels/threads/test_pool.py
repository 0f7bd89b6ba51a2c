"""Programs and threads: barriers that hold, arguments that may change between runs, ends that do not hang."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from phi4mini.kernels.lang import build
from phi4mini.kernels.lang.kernel import I64, Kernel, kernel
from phi4mini.kernels.matmul import rows_few
from phi4mini.kernels.norm import rmsnorm
from phi4mini.kernels.threads.pool import Call, Pool, Program, aligned
from tests.kernels.harness import ROOT


@kernel("source:i64[] target:i64[]")
def pass_on(k: Kernel) -> None:
    """Each thread takes its neighbour's number, plus one. Slots are a cache line each."""
    neighbour = (k.tid + 1) % k.threads
    k.store(k.target.at(k.tid * 64), k.load(k.source.at(neighbour * 64), I64) + 1)


@kernel("out:i64[] n:int x:float")
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


def wrong_arguments() -> list[tuple[str, dict[str, object], str]]:
    """What has been handed to a kernel by mistake, or may be: (name, arguments of a norm, what the error says)."""
    x, rows = aligned((4, 64)), aligned(8, np.int64)
    out = {"q": aligned((4, 64), np.int8), "start": aligned((4, 4), np.int32)}
    out |= {name: aligned((4, 4)) for name in ("scale", "sums")}
    right: dict[str, object] = {"x": x, "stride": 256, "weight": x[0], "eps": 1e-5, "rows": rows, **out}
    wide = aligned((4, 128))
    changed: list[tuple[str, dict[str, object], str]] = [
        (
            "float64 where f32 is meant",
            {"x": x.astype(np.float64)},
            "x is an array of float32, got an array of float64",
        ),
        ("half where f32 is meant", {"weight": x[0].astype(np.float16)}, "weight is an array of float32"),
        ("f32 where int8 is meant", {"q": x}, "q is an array of int8, got an array of float32"),
        (
            "unsigned where signed is meant",
            {"q": out["q"].view(np.uint8)},
            "q is an array of int8, got an array of uint8",
        ),
        ("int32 where int64 is meant", {"rows": rows.astype(np.int32)}, "rows is an array of int64"),
        ("another order of bytes", {"start": out["start"].astype(">i4")}, "start is an array of int32"),
        ("a list", {"x": [1.0] * 64}, "x is an array of float32, got list"),
        ("a number where an array is meant", {"rows": 4}, "rows is an array of int64, got int"),
        ("an address where an array is meant", {"x": x.ctypes.data}, "x is an array of float32, got int"),
        ("None", {"sums": None}, "sums is an array of float32, got NoneType"),
        ("an array where a number is meant", {"stride": rows}, "stride is int, got an array of int64"),
        ("a fraction of a byte", {"stride": 256.5}, "stride is int, got float"),
        ("text", {"eps": "1e-5"}, "eps is float, got str"),
        ("a transposed array", {"x": wide.T[:64]}, "x has 512 bytes from one float32 of a row to the next"),
        ("every second column", {"x": wide[:, ::2]}, "x has 8 bytes from one float32"),
        ("columns from right to left", {"x": x[:, ::-1]}, "x has -4 bytes from one float32"),
        (
            "an array off its alignment",
            {"x": aligned(260, np.uint8)[1:257].view(np.float32)},
            "begins inside a float32",
        ),
        ("rows that are too short", {"x": x[:, :32]}, "x is float32 [rows, 64], got shape (4, 32)"),
        ("one row where rows are meant", {"x": x[0]}, "x is float32 [rows, 64], got shape (64,)"),
        ("rows where one is meant", {"weight": x}, "weight is float32 [64], got shape (4, 64)"),
        ("a weight of another width", {"weight": x[0, :48]}, "weight is float32 [64], got shape (48,)"),
        ("a stride that is not the array's", {"stride": 512}, "x has 256 bytes from row to row, and stride says 512"),
        ("scales of other groups", {"scale": aligned((4, 2))}, "scale is float32 [rows, 4], got shape (4, 2)"),
        ("integers of wider rows", {"q": wide.view(np.int8)[:, :64]}, "and int8 [rows, 64] has 64"),
        ("a counter without a number", {"rows": rows[:0]}, "rows is int64 [1], got shape (0,)"),
    ]
    return [(name, {**right, **change}, error) for name, change, error in changed]


@pytest.mark.parametrize(
    ("arguments", "error"), [(a, e) for _, a, e in wrong_arguments()], ids=[n for n, _, _ in wrong_arguments()]
)
def test_what_a_kernel_would_misread_is_refused_when_the_call_is_recorded(
    arguments: dict[str, Any], error: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(error)) as caught:
        Call(rmsnorm(format="q8", cols=64), **arguments)
    assert str(caught.value).startswith("norm_rmsnorm")


def test_rows_may_lie_apart_and_be_more_than_needed() -> None:
    """Padding after the rows and after the last of them; further dimensions that lie together count as one."""
    out = {"q": aligned((9, 64), np.int8), "start": aligned((9, 4), np.int32)}
    out |= {name: aligned((9, 4)) for name in ("scale", "sums")}
    spec, rest = rmsnorm(format="q8", cols=64), {"weight": aligned(70), "eps": 1e-5, "rows": aligned(8, np.int64)}
    for x in (aligned((9, 80))[:, :64], aligned((9, 80)), aligned((9, 4, 16)), aligned((1, 64))):
        assert Call(spec, x=x, stride=x.strides[0], **rest, **out).block[1] == x.strides[0]


def test_sizes_that_are_arguments_are_checked_and_again_when_they_change() -> None:
    weights, out = aligned(4 * 64 * 36, np.uint8), aligned((1, 64))  # four strips of 64 inputs: 576 bytes each
    activations = {"q": aligned((1, 64), np.int8), "scale": aligned((1, 2)), "start": aligned((1, 2), np.int32)}
    spec = rows_few(format="q4", rows=1, cols=64, residual=False)
    given: dict[str, Any] = {"weights": weights[: 4 * 576], "out": out, "out_stride": 256, "sums": aligned((1, 2))}
    call = Call(spec, strips=4, **given, **activations)
    for change, error in (
        ({"strips": 5}, r"weights is uint8 \[2880\], got shape \(2304,\)"),
        ({"out": out[:, :48]}, r"out is float32 \[1, 64\], got shape \(1, 48\)"),
    ):
        before = call.block.copy(), dict(call.keep)
        with pytest.raises(ValueError, match=error):
            call.set(**change)  # type: ignore[arg-type]
        assert (call.block == before[0]).all() and call.keep.keys() == before[1].keys()
        assert all(call.keep[name] is array for name, array in before[1].items())


def test_a_change_of_arguments_is_checked_as_recording_is() -> None:
    out = np.zeros(2, np.int64)
    call = Call(note(), out=out, n=1, x=1.5)
    before = call.block.copy()
    for change in ({"out": out.astype(np.int32)}, {"n": 1.5}, {"x": out}, {"y": 1}):
        with pytest.raises(TypeError):
            call.set(**change)
    assert (call.block == before).all()


def test_an_array_lives_as_long_as_the_call_that_has_its_address() -> None:
    call = Call(note(), out=np.zeros(2, np.int64), n=1, x=1.5)
    alive = weakref.ref(call.keep["out"])
    assert alive() is not None
    call.set(out=np.zeros(2, np.int64))
    assert alive() is None


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
from phi4mini.kernels.matmul import rows_few
from phi4mini.kernels.norm import rmsnorm
from phi4mini.kernels.threads.pool import Call, Pool, Program, aligned

def interrupt(*_):
    raise KeyboardInterrupt

x, rows = aligned((2, 64)), aligned(8, np.int64)
rows[0] = 2
sink = dict(q=x, scale=x, start=x.view(np.int32), sums=x)
call = Call(rmsnorm(format="f32", cols=64), x=x, stride=256, weight=x[0], eps=1.0, rows=rows, **sink)
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
