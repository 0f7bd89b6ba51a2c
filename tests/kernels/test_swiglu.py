"""SwiGLU: the formula over the whole range of gates, and that each sink gets the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini.kernels import activations, swiglu
from phi4mini.kernels.threads.pool import Call
from tests.kernels.harness import U, fitted, gamma, run, same, sink, word


def activated(x: np.ndarray, format: str = "f32", threads: int = 1) -> dict[str, np.ndarray]:
    rows, cols = x.shape[0], x.shape[1] // 2
    out = sink(format, rows, cols)
    x = fitted(x)
    call = Call(swiglu.swiglu(format=format, cols=cols), x=x, stride=x.strides[0], rows=word(rows), **out)
    run(call, threads=threads)
    return {name: a[:rows] for name, a in out.items()}


def inputs(rows: int, cols: int) -> np.ndarray:
    rng = np.random.default_rng(cols)
    return (3 * rng.standard_normal((rows, 2 * cols))).astype(np.float32)


def test_swiglu_is_its_formula() -> None:
    """exp is within 2 ulp (4 u); adding 1 only shrinks that; then a sum, a quotient and a product: 7 u in all. Beyond
    -88 exp stops growing: the gate's sigmoid is below 1e-38 there and the difference is below 1e-36 absolute."""
    x = inputs(8, 160)
    x[0, :160] = np.linspace(-88, 88, 160)
    x[1, :160] = np.linspace(-500, 500, 160)
    x[2, :160] = 0
    gate, up = np.split(x.astype(np.float64), 2, axis=1)
    want = up * gate / (1 + np.exp(-np.maximum(gate, -600)))
    got = activated(x)["q"]
    error = np.abs(got - want)
    print(f"worst {(error / (np.abs(want) + 1e-36)).max() / U:.2f} u")
    assert (error <= gamma(7) * np.abs(want) + 1e-33).all()
    assert not got[2].any() and np.isfinite(got).all()


@pytest.mark.parametrize("format", ["f32", "q8", "q4", "q4m", "q6k"])
def test_every_sink_gets_the_same_numbers_on_any_number_of_threads(format: str) -> None:
    x = inputs(5, 352)
    want = sink(format, 5, 352)
    run(Call(activations.quantize(format=format, cols=352), x=fitted(activated(x)["q"]), rows=word(5), **want))
    for rows, threads in ((5, 1), (5, 2), (1, 3), (2, 3)):
        got = activated(x[:rows], format, threads)
        assert all(same(got[name], want[name][:rows]) for name in got)


@pytest.mark.parametrize("place", [3, 163])
def test_nan_in_gate_or_up_is_passed_on(place: int) -> None:
    x = inputs(2, 160)
    x[1, place] = np.nan
    assert np.isnan(activated(x)["q"][1]).tolist() == [i == 3 for i in range(160)]
    scale = activated(x, "q4")["scale"]
    assert np.isnan(scale[1, 0]) and np.isfinite(scale[1, 1:]).all() and np.isfinite(scale[0]).all()
