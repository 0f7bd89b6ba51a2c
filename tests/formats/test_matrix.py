"""Matrices: what is packed comes back as the definition says, whole or row by row, and wrong bytes are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.errors import BadInput
from phi4mini.formats.format_table import FORMATS, LANES, Format
from phi4mini.formats.matrix import Blocks, Matrix, from_bf16, pack_blocks, pack_dense, to_bf16
from phi4mini.formats.rounding import quantize, quantize_blocks
from tests.formats.random_parts import BLOCK_FORMATS, MADE, SHAPES, random_blocks, random_values


def naive_value(form: Format, blocks: Blocks, row: int, col: int) -> float:
    """The definition of one weight, in double precision."""
    group, block = col // form.group, col // form.superblock
    q = float(blocks.q[row, col]) - form.zero
    if not form.two_level:
        minimum = 0.0 if blocks.minimum is None else float(blocks.minimum[row, group])
        return float(blocks.scale[row, group]) * q + minimum
    assert blocks.d is not None and blocks.dmin is not None
    value = float(blocks.d[row, block]) * float(blocks.scale[row, group]) * q
    return value - (
        0.0 if blocks.minimum is None else float(blocks.dmin[row, block]) * float(blocks.minimum[row, group])
    )


@pytest.mark.parametrize("form", BLOCK_FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize(("rows", "cols"), [(1, 32), (17, 256), (16, 320), (33, 544)])
def test_blocks_come_back_as_the_definition_says(form, rows, cols):
    blocks = random_blocks(form, rows, cols)
    matrix = Matrix(form, rows, cols, pack_blocks(blocks, form))
    got = matrix.dequantize()
    want = np.array([[naive_value(form, blocks, r, c) for c in range(cols)] for r in range(rows)])
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


@pytest.mark.parametrize("name", ["f32", "bf16"])
def test_dense_strips_hold_one_input_of_sixteen_rows(name):
    values = random_values(20, 7)
    matrix = quantize(values, FORMATS[name])
    wide = matrix.data.view(np.float32 if name == "f32" else np.uint16).reshape(2, 7, LANES)
    wide = wide if name == "f32" else from_bf16(wide)
    assert (wide[1, :, 4:] == 0).all(), "rows are padded with zeros"
    np.testing.assert_array_equal(wide[1, 3, :4], matrix.dequantize()[16:, 3])
    if name == "f32":
        np.testing.assert_array_equal(wide[0, 5], values[:16, 5])


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, name=st.sampled_from(MADE), seed=st.integers(0, 99))
def test_rows_at_are_the_rows_of_the_whole(shape, name, seed):
    matrix = quantize(random_values(*shape, seed=seed), FORMATS[name])
    ids = np.random.default_rng(seed).integers(0, shape[0], 9)
    np.testing.assert_array_equal(matrix.rows_at(ids), matrix.dequantize()[ids])


@pytest.mark.parametrize("name", ["q2k", "q4k", "q5k", "q6k", "q8k"])
def test_rows_at_of_carried_formats(name):
    form = FORMATS[name]
    matrix = Matrix(form, 20, 512, pack_blocks(random_blocks(form, 20, 512), form))
    np.testing.assert_array_equal(matrix.rows_at(np.array([19, 0, 16])), matrix.dequantize()[[19, 0, 16]])


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 70), name=st.sampled_from(MADE))
def test_strips_packed_one_by_one_are_the_matrix(rows, name):
    form, values = FORMATS[name], random_values(rows, 96)
    pieces = [values[at : at + LANES] for at in range(0, rows, LANES)]
    packed = [pack_blocks(quantize_blocks(p, form), form) if form.block else pack_dense(p, form) for p in pieces]
    np.testing.assert_array_equal(np.concatenate(packed), quantize(values, form).data)


def test_bf16_rounds_to_nearest_even():
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8 - 2**-20, 3.0e38], np.float32)
    want = np.array([1.0, 1.0, 1 + 2**-6, -1 - 2**-7, from_bf16(to_bf16(values[4:]))[0]], np.float32)
    np.testing.assert_array_equal(from_bf16(to_bf16(values)), want)
    bits = np.random.default_rng(0).integers(0, 0x7F80, 1000).astype(np.uint16)
    np.testing.assert_array_equal(to_bf16(from_bf16(bits)), bits)


def test_wrong_bytes_and_wrong_shapes_are_refused():
    with pytest.raises(BadInput, match="a q8 matrix of 16 x 64 takes 1088 bytes, got 10"):
        Matrix(FORMATS["q8"], 16, 64, np.zeros(10, np.uint8))
    with pytest.raises(BadInput, match=r"uint8|float32"):
        Matrix(FORMATS["q8"], 16, 64, np.zeros(1088, np.float32))
    with pytest.raises(BadInput, match="two dimensions"):
        quantize(np.zeros(16, np.float32), FORMATS["q8"])
    with pytest.raises(BadInput, match="needs a minimum"):
        pack_blocks(Blocks(np.zeros((1, 64), np.uint8), np.zeros((1, 2), np.float16)), FORMATS["q4m"])
    with pytest.raises(BadInput, match="needs a first-level scale"):
        pack_blocks(Blocks(np.zeros((1, 256), np.uint8), np.zeros((1, 16), np.int8)), FORMATS["q6k"])
