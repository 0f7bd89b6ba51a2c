"""RMSNorm: the formula, and that each sink gets the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini.formats.format_table import FORMATS
from phi4mini.kernels import activations, norm
from phi4mini.kernels.threads.pool import Call
from tests.kernels.harness import U, apart, fitted, gamma, run, same, sink, starts, word

EPS = 1e-5


def normed(
    x: np.ndarray, weight: np.ndarray, format: str = "f32", threads: int = 1, fine: bool = False
) -> dict[str, np.ndarray]:
    rows, cols = x.shape
    written = 2 * rows if fine and format != "f32" else rows
    out, spec = sink(format, written, cols), norm.rmsnorm(format=format, cols=cols, fine=rows if fine else 0)
    wide = apart(x)
    call = Call(spec, x=wide, stride=wide.strides[0], weight=fitted(weight, 0), eps=EPS, rows=word(rows), **out)
    run(call, threads=threads)
    return {name: a[:written] for name, a in out.items()}


def inputs(rows: int, cols: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(cols)
    x = (rng.standard_normal((rows, cols)) * 10.0 ** rng.uniform(-4, 4, (rows, 1))).astype(np.float32)
    return x, (1 + 0.3 * rng.standard_normal(cols)).astype(np.float32)


@pytest.mark.parametrize("cols", [96, 128, 3072])
def test_rmsnorm_is_its_formula(cols: int) -> None:
    """Squares: one rounding each in 16 chains of cols / 16 fma, 4 levels of sums, a product; all terms are positive, so
    the mean's relative error is gamma(cols / 16 + 5); the root halves it; then root, reciprocal and two products: 4
    more, and eps is f32.
    """
    x, weight = inputs(9, cols)
    wide = x.astype(np.float64)
    want = wide / np.sqrt((wide**2).mean(1, keepdims=True) + EPS) * weight
    got = normed(x, weight)["q"]
    limit = gamma(cols // 16 + 5) / 2 + gamma(6)
    error = np.abs(got - want) / np.abs(want)
    print(f"{cols} columns: worst relative error {error.max() / U:.2f} u of {limit / U:.0f} u")
    assert error.max() <= limit


def test_a_row_of_zeros_is_zero() -> None:
    x, weight = inputs(2, 128)
    x[1] = 0
    assert not normed(x, weight)["q"][1].any()
    assert not normed(x, weight, "q8")["scale"][1].any()


@pytest.mark.parametrize("format", FORMATS)
def test_every_sink_gets_the_same_numbers(format: str) -> None:
    """Norm and quantise in one pass are the bits of norm, then quantise."""
    x, weight = inputs(5, 320)
    plain, rows = normed(x, weight)["q"], word(5)
    want = sink(format, 5, 320)
    run(Call(activations.quantize(format=format, cols=320), x=fitted(plain), rows=rows, **want))
    got = normed(x, weight, format)
    assert all(same(got[name], want[name][:5]) for name in got)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_threads_change_no_bit(rows: int) -> None:
    x, weight = inputs(5, 352)
    for format in ("f32", "q4"):
        alone = normed(x[:rows], weight, format)
        for threads in (2, 3):
            together = normed(x[:rows], weight, format, threads)
            assert all(same(together[name], alone[name]) for name in alone)


@pytest.mark.parametrize("format", ["f32", "q8"])
def test_nan_in_a_row_is_all_of_that_row(format: str) -> None:
    x, weight = inputs(3, 96)
    clean = normed(x, weight, format)
    x[1, 50] = np.nan
    dirty = normed(x, weight, format)
    name, blocks = ("q", 96) if format == "f32" else ("scale", 96 // FORMATS[format].act_group)
    assert np.isnan(dirty[name][1, :blocks]).all()
    assert all(same(dirty[n][::2], clean[n][::2]) for n in clean)


@pytest.mark.parametrize("format", ["q8", "q4"])
def test_fine_rows_are_the_plain_ones_and_what_they_left_over(format: str) -> None:
    """A second row holds the first one's rounding error in steps 254 times finer; together 16 bits."""
    x, weight = inputs(5, 352)
    value = normed(x, weight)["q"]
    plain = normed(x, weight, format)
    for threads in (1, 3):
        both = normed(x, weight, format, threads, fine=True)
        assert all(same(both[name][:5], plain[name]) for name in plain)
    coarse, rest = (decoded(both, part, format)[:, :352] for part in (slice(5), slice(5, 10)))
    step = np.repeat(both["scale"][:5], FORMATS[format].act_group, axis=1)[:, :352].astype(np.float64)
    error = np.abs(coarse + rest - value)
    assert (error <= step * (0.5 / 254 + 127 * 8 * U)).all(), "half a fine step, and the roundings of 127 / peak and x"
    assert np.abs(coarse - value).max() > 50 * error.max()
    assert np.array_equal(both["start"], starts(both["q"], format))


def decoded(out: dict[str, np.ndarray], rows: slice, format: str) -> np.ndarray:
    """Rows of an int8 sink as float64."""
    q, scale = out["q"][rows].astype(np.float64), out["scale"][rows].astype(np.float64)
    return q * np.repeat(scale, FORMATS[format].act_group, axis=1)


def test_a_dense_sink_has_no_fine_rows() -> None:
    x, weight = inputs(3, 96)
    assert same(normed(x, weight, fine=True)["q"], normed(x, weight)["q"])
