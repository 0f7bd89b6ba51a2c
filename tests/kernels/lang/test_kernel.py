"""The staged language: exp, fma, sums in their order, loops, dot products, each asked by a kernel of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from phi4mini.kernels.lang.build import Library
from phi4mini.kernels.lang.kernel import I8, I32, I64, LANES, Kernel, Spec, kernel, vec
from phi4mini.kernels.threads.pool import Call, aligned
from tests.kernels import isa_sample
from tests.kernels.harness import runnable_isas, same, under_isa


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """A library with a folder of its own: kernels of tests are not part of what the user's cache is keyed by."""
    yield Library(folder=tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def call(library: Library) -> Callable[..., None]:
    def call(spec: Spec, tid: int = 0, threads: int = 1, **arguments: int | float | np.ndarray) -> None:
        block = Call(spec, **arguments).block
        library.function(spec)(block.ctypes.data, tid, threads)

    return call


# exp ---------------------------------------


@kernel("x:f32[] out:f32[] n:int")
def exps(k: Kernel) -> None:
    for at in k.span(0, k.n * 4, 64):
        k.store(k.out.at(at), k.exp(k.load_float(k.x.at(at))))


def test_exp_is_within_two_ulp_over_the_whole_range(call: Callable[..., None]) -> None:
    around = np.concatenate([np.arange(-125, 127) * np.log(2) + d for d in (-1e-6, 0, 1e-6, np.log(2) / 2)])
    x = np.concatenate(
        [np.linspace(-87, 88, 400_000), np.geomspace(1e-30, 80, 20_000), -np.geomspace(1e-30, 80, 20_000)]
    )
    x = np.concatenate([x, around[(around > -87) & (around < 88)], [0.0, -0.0]]).astype(np.float32)
    x = np.resize(x, -(-len(x) // LANES) * LANES)
    got = np.zeros_like(x)
    call(exps(), x=x, out=got, n=len(x))
    want = np.exp(x.astype(np.float64))
    ulps = np.abs(got - want) / np.spacing(want.astype(np.float32))
    worst = int(ulps.argmax())
    print(f"exp: worst {ulps[worst]:.3f} ulp at {x[worst]!r}; mean {ulps.mean():.3f}")
    assert ulps[worst] <= 2
    assert (got[x == 0] == 1).all()


def test_exp_at_the_edges(call: Callable[..., None]) -> None:
    x = np.array([-87.00001, -88, -200, -1e30, -np.inf, 88, 89, 1e30, np.inf, np.nan, -87] + [0] * 5, np.float32)
    got = np.zeros_like(x)
    call(exps(), x=x, out=got, n=len(x))
    assert (got[:5] == 0).all(), "below -87 it is 0"
    assert got[10] > 0
    assert (got[6:9] == got[5]).all() and np.isfinite(got[5]), "beyond 88 it stays where it is, finite"
    assert np.isnan(got[9]), "NaN is passed on, not hidden"


# arithmetic ---------------------------------------


@kernel("left:f32[] right:f32[] third:f32[] fused:f32[] apart:f32[]")
def products(k: Kernel) -> None:
    a, b, c = (k.load_float(p) for p in (k.left, k.right, k.third))
    k.store(k.fused, k.fma(a, b, c))
    k.store(k.apart, a * b + c)


def test_fma_rounds_once_and_nothing_else_is_fused(call: Callable[..., None]) -> None:
    """1 + 2^-12 squared is 1 + 2^-11 + 2^-24; minus its f32 rounding, the last term is what only a fused sum keeps."""
    a = np.full(16, 1 + 2.0**-12, np.float32)
    c = -(a * a)
    fused, apart = np.zeros_like(a), np.ones_like(a)
    call(products(), left=a, right=a, third=c, fused=fused, apart=apart)
    assert (fused == np.float32(2.0**-24)).all()
    assert (apart == 0).all()


@kernel("x:f32[] sums:f32[] peaks:f32[]")
def joins(k: Kernel) -> None:
    x = k.load_float(k.x)
    k.store(k.sums, k.sum(x))
    k.store(k.peaks, k.peak(x))


def halves(x: np.ndarray) -> np.float32:
    while len(x) > 1:
        x = x[: len(x) // 2] + x[len(x) // 2 :]
    return x[0]


def test_sums_are_trees_of_halves(call: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    differ = 0
    for _ in range(100):
        x = (rng.standard_normal(16) * 10.0 ** rng.uniform(-4, 4, 16)).astype(np.float32)
        total, top = np.zeros(1, np.float32), np.zeros(1, np.float32)
        call(joins(), x=x, sums=total, peaks=top)
        assert total[0] == halves(x) and top[0] == x.max()
        differ += total[0] != np.add.accumulate(x)[-1]
    assert differ > 30, "the data do not tell one order from another"


# control ---------------------------------------


@kernel("out:i64[] first:int stop:int")
def loops(k: Kernel) -> None:
    """out i64[8]: turns and sum of a loop by 3, turns of an empty, a nested and an endless one, branches."""
    turns, total, empty, nested, until, even = (k.var(I64, 0) for _ in range(6))
    for i in k.span(k.first, k.stop, 3):
        turns.set(turns.get() + 1)
        total.set(total.get() + i)
        for j in k.span(0, i):
            with k.when((j % 2).equals(0)):
                even.set(even.get() + 1)
            nested.set(nested.get() + 1)
    for _ in k.span(5, 5):
        empty.set(1)
    with k.until() as leave:
        until.set(until.get() + 1)
        leave(until.get() >= 5)
    for i, value in enumerate((turns, total, empty, nested, until, even)):
        k.store(k.out.at(8 * i), value.get())


@pytest.mark.parametrize(("first", "stop"), [(0, 10), (2, 11), (7, 8), (4, 4), (9, 3)])
def test_loops_run_as_ranges_do(call: Callable[..., None], first: int, stop: int) -> None:
    out = np.full(8, -1, np.int64)
    call(loops(), out=out, first=first, stop=stop)
    turns = range(first, stop, 3)
    evens = sum(len(range(0, i, 2)) for i in turns)
    assert out[:6].tolist() == [len(turns), sum(turns), 0, sum(turns), 5, evens]


@kernel("out:i64[] count:int")
def shares(k: Kernel) -> None:
    first, end = k.share(k.count)
    k.store(k.out, first)
    k.store(k.out.at(8), end)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 7, 1000])
def test_shares_cover_all_items_once_and_evenly(call: Callable[..., None], threads: int, count: int) -> None:
    parts = []
    for tid in range(threads):
        out = np.full(2, -1, np.int64)
        call(shares(), tid=tid, threads=threads, out=out, count=count)
        parts.append(out)
    assert [0, *(p[1] for p in parts)] == [*(p[0] for p in parts), count]
    sizes = [p[1] - p[0] for p in parts]
    assert max(sizes) - min(sizes) <= 1


@kernel("x:float n:int out:i32[]")
def conversions(k: Kernel) -> None:
    """Rounding to nearest even, widening with and without sign, float arguments by their bits."""
    k.store(k.out, k.to_int(k.x))
    byte = k.narrow(k.n, I8)
    k.store(k.out.at(4), k.widen(byte, I32))
    k.store(k.out.at(8), k.widen(byte, I32, signed=False))
    k.store(k.out.at(12), k.to_int(k.maximum(k.minimum(k.x, 3.0), -3.0)))


@pytest.mark.parametrize("x", [0.5, 1.5, 2.5, -0.5, -2.5, 2.4999999, 1e6 + 0.5])
@pytest.mark.parametrize("n", [0, 127, 128, 255, -1, -128])
def test_conversions(call: Callable[..., None], x: float, n: int) -> None:
    out = np.zeros(4, np.int32)
    call(conversions(), x=x, n=n, out=out)
    x = float(np.float32(x))
    assert out.tolist() == [round(x), (n + 128) % 256 - 128, n % 256, round(min(max(x, -3.0), 3.0))]


# int8 dot products ---------------------------------------


BITS = [(0, 8), (0, 4), (4, 4), (0, 2), (2, 2), (6, 2), (0, 1), (5, 1), (7, 1)]


@kernel("line:u8[] out:u8[]")
def parts_of_bytes(k: Kernel) -> None:
    """Bits of each byte, moved down and in place."""
    line = k.load(k.line, vec(I8, 64))
    for i, (low, count) in enumerate(BITS):
        k.store(k.out.at(128 * i), k.bits_of_bytes(line, low, count))
        k.store(k.out.at(128 * i + 64), k.bits_of_bytes(line, low, count, in_place=True))


@pytest.mark.parametrize("small", [True, False])
def test_dot4_is_exact_for_every_operand(library: Library, small: bool) -> None:
    got, want = isa_sample.dots(library, small)
    assert np.array_equal(got, want)


def test_bits_of_bytes(call: Callable[..., None]) -> None:
    for line in np.arange(256, dtype=np.uint8).reshape(4, 64):
        out = np.zeros((len(BITS), 2, 64), np.uint8)
        call(parts_of_bytes(), line=line, out=out)
        for (low, count), (moved, in_place) in zip(BITS, out, strict=True):
            want = (line.astype(int) >> low) % (1 << count)
            assert np.array_equal(moved, want) and np.array_equal(in_place, want << low)


# one text, many instruction sets ---------------------------------------


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    return isa_sample.sample()


@pytest.mark.parametrize("isa", ["avxvnni", "avx2"])
def test_every_instruction_set_gives_the_same_bits(isa: str, here: dict[str, str]) -> None:
    if isa not in runnable_isas():
        pytest.skip(f"this CPU has no {isa}")
    there = json.loads(under_isa(isa, "tests.kernels.isa_sample"))
    for small in (True, False):
        assert there[f"dot4 {small}"] == there[f"dot4 {small} by NumPy"]
    assert there == here | {"isa": isa}


def test_same_tells_bits_apart() -> None:
    zeros = aligned(4)
    assert same(zeros, zeros.copy()) and not same(zeros, -zeros)
