"""Rounding to every format against its bound, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.errors import BadInput
from phi4mini.formats.format_table import FORMATS
from phi4mini.formats.rounding import quantize, quantize_blocks
from tests.formats.random_parts import MADE, SHAPES, random_values


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, name=st.sampled_from(MADE), seed=st.integers(0, 99))
def test_any_shape_survives_within_half_a_step(shape, name, seed):
    values = random_values(*shape, seed=seed)
    form = FORMATS[name]
    matrix = quantize(values, form)
    assert matrix.nbytes == form.matrix_bytes(*shape)
    got = matrix.dequantize()
    assert got.shape == values.shape and got.dtype == np.float32
    width = form.padded(shape[1]) if form.block else shape[1]
    wide = np.zeros((shape[0], width), np.float32)
    wide[:, : shape[1]] = values
    groups = np.abs(wide.reshape(shape[0], -1, form.group)).max(axis=2)
    # q4 may choose a scale down to 0.85 of the peak's, or refit it: then the peak itself is clipped
    step = {"f32": 0, "bf16": 2**-8, "q8": 0.51 / 127, "q4": 0.22, "q4m": 1.02 / 15, "q5m": 1.02 / 31}[name]
    bound = np.repeat(groups, form.group, axis=1)[:, : shape[1]] * step + 1e-6
    assert (np.abs(got - values) <= bound).all()


def test_q8_rounds_to_the_nearest_of_255_steps():
    values = random_values(16, 64)
    blocks = quantize_blocks(values, FORMATS["q8"])
    scale = np.repeat(blocks.scale.astype(np.float32), 32, axis=1)
    want = np.rint(values / scale) + 128
    assert np.abs(blocks.q.astype(np.float32) - want).max() <= 1  # a tie may fall either way
    assert blocks.q.min() >= 1, "-128 is not used: the range is symmetric"


def test_q4_is_no_worse_than_the_plain_scale_of_q4_0():
    values = random_values(64, 256)
    groups = values.reshape(64, -1, 32)
    peak = np.take_along_axis(groups, np.abs(groups).argmax(axis=2, keepdims=True), axis=2)
    scale = (peak / -8).astype(np.float16).astype(np.float32)
    plain = scale * (np.clip(np.rint(groups / scale) + 8, 0, 15) - 8)
    ours = quantize(values, FORMATS["q4"]).dequantize().reshape(groups.shape)
    assert (((ours - groups) ** 2).sum(axis=2) <= ((plain - groups) ** 2).sum(axis=2) * 1.0001).all()


@pytest.mark.parametrize("name", ["q8", "q4", "q4m"])
def test_zeros_and_constants_are_exact(name):
    np.testing.assert_array_equal(quantize(np.zeros((16, 64), np.float32), FORMATS[name]).dequantize(), 0)
    np.testing.assert_allclose(
        quantize(np.full((16, 64), -0.5, np.float32), FORMATS[name]).dequantize(), -0.5, rtol=1e-3
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(bad):
    with pytest.raises(BadInput, match="NaN or infinity"):
        quantize(np.array([[1.0, bad]], np.float32), FORMATS["q8"])


@pytest.mark.parametrize("name", ["q8", "q4", "q4m"])
@pytest.mark.parametrize("peak", [1e30, -1e30])
def test_a_scale_beyond_a_half_is_refused(name, peak):
    values = np.zeros((16, 64), np.float32)
    values[3, 40] = peak
    with pytest.raises(BadInput, match="beyond what a half can hold"):
        quantize(values, FORMATS[name])


@pytest.mark.parametrize("name", ["q2k", "q4k", "q5k", "q6k", "q8k"])
def test_carried_formats_are_never_made(name):
    with pytest.raises(BadInput, match=f"{name} is a format to carry GGUF blocks in"):
        quantize(np.zeros((16, 256), np.float32), FORMATS[name])
