"""Activations into the next matmul's place: int8 in groups of 32 or 16 to the last bit, and f32 as they are."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini.formats.format_table import FORMATS
from phi4mini.kernels import activations
from phi4mini.kernels.threads.pool import Call
from tests.kernels.harness import fitted, run, same, sink, starts, word

COLS = (64, 96, 320)  # whole pairs of blocks; an odd block last; a superblock of 256 that is not filled


def by_numpy(x: np.ndarray, format: str) -> dict[str, np.ndarray]:
    """The sink as NumPy fills it, operation by operation: x (rows, cols)."""
    f = FORMATS[format]
    width = f.padded(x.shape[1])
    blocks = np.pad(x, ((0, 0), (0, width - x.shape[1]))).reshape(len(x), -1, f.act_group)
    peak = np.abs(blocks).max(2)
    inverse = np.divide(np.float32(127), peak, out=np.zeros_like(peak), where=peak > 0)
    q = np.rint(blocks * inverse[:, :, None]).astype(np.int8)
    scale = peak * np.float32(1 / 127)
    sums = scale * q.astype(np.int32).sum(2).astype(np.float32)
    flat = q.reshape(len(x), width)
    return {"q": flat, "scale": scale, "start": starts(flat, format), "sums": sums}


def quantized(x: np.ndarray, format: str, threads: int = 1) -> dict[str, np.ndarray]:
    rows, cols = x.shape
    out = sink(format, rows, cols)
    run(Call(activations.quantize(format=format, cols=cols), x=fitted(x), rows=word(rows), **out), threads=threads)
    return {name: a[:rows] for name, a in out.items()}


def inputs(rows: int, cols: int) -> np.ndarray:
    """Outliers, tiny numbers, a block of zeros, a block of one number, ties between integers."""
    rng = np.random.default_rng(cols)
    x = (rng.standard_normal((rows, cols)) * np.exp(2 * rng.standard_normal((rows, cols)))).astype(np.float32)
    x[0, :32] = 0
    x[1, 32:64] = -3.5
    x[2, :32] = np.arange(32) + 0.5
    x[2, 0] = 127
    x[3, :32] *= 1e-30
    x[4, 32:64] *= 1e30
    return x


@pytest.mark.parametrize("cols", COLS)
@pytest.mark.parametrize("format", ["q8", "q4", "q4m", "q4k", "q6k"])
def test_blocks_are_the_bits_numpy_gives(format: str, cols: int) -> None:
    x = inputs(9, cols)
    got, want = quantized(x, format), by_numpy(x, format)
    f = FORMATS[format]
    for name in ["q", "scale", *(["start"] if f.zero else []), *(["sums"] if f.minimum else [])]:
        assert np.array_equal(got[name], want[name]), name
    assert (got["scale"][0, 0], got["sums"][0, 0]) == (0, 0) and not got["q"][0, :32].any(), "a block of zeros"
    assert np.abs(got["q"].astype(int)).max() == 127, "-128 is never used: dot4 could not take it"


@pytest.mark.parametrize("format", ["f32", "bf16"])
def test_dense_sinks_take_the_numbers_themselves(format: str) -> None:
    x = inputs(7, 96)
    assert same(quantized(x, format)["q"], x)


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize("format", ["q4", "f32"])
def test_rows_or_parts_of_rows_on_any_number_of_threads(format: str, rows: int) -> None:
    """Fewer rows than threads: a row is cut at pairs of blocks; the odd last block of 352 columns must not be lost."""
    x = inputs(7, 352)[:rows]
    alone = quantized(x, format)
    assert alone["q"][:, 320:].any()
    for threads in (2, 3):
        together = quantized(x, format, threads)
        assert all(same(together[name], alone[name]) for name in alone)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("format", ["q8", "q4k", "q6k"])
def test_a_number_that_is_none_makes_its_block_none(format: str, bad: float) -> None:
    """One NaN among 32 must reach the product: int8 has no NaN, the scale has."""
    x = inputs(5, 96)
    clean = quantized(x, format)
    for place in (0, 15, 16, 31):
        dirty = x.copy()
        dirty[1, 32 + place] = bad
        got = quantized(dirty, format)
        at = 1, (32 + place) // FORMATS[format].act_group
        assert not np.isfinite(got["scale"][at])
        got["scale"][at] = clean["scale"][at]
        assert same(got["scale"], clean["scale"]), "no other block is touched"


def test_what_lies_past_the_last_row_is_left_alone() -> None:
    x = inputs(5, 64)
    out = sink("q8", 5, 64)
    for a in out.values():
        a[5:] = 77
    run(Call(activations.quantize(format="q8", cols=64), x=fitted(x), rows=word(5), **out), threads=2)
    assert all((a[5:] == 77).all() for a in out.values())
