"""Formats: the byte layout against naive loops, rounding against its bound, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.errors import BadInput
from phi4mini.formats.matrix import (
    FORMATS,
    LANES,
    Blocks,
    Format,
    Matrix,
    from_bf16,
    pack_blocks,
    pack_dense,
    quantize,
    quantize_blocks,
    to_bf16,
)

MADE = ("f32", "bf16", "q8", "q4", "q4m", "q5m")
SHAPES = st.tuples(st.integers(1, 50), st.integers(1, 300))


def random_values(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, cols)) * rng.lognormal(0, 2, (rows, 1))).astype(np.float32)


def random_blocks(form: Format, rows: int, cols: int, seed: int = 0) -> Blocks:
    """Any integers and any scales, as a GGUF may hold them."""
    rng = np.random.default_rng(seed)
    groups, supers = -(-cols // form.group), -(-cols // form.superblock)

    def half(width: int) -> np.ndarray:
        return (rng.standard_normal((rows, width)) * 0.01).astype(np.float16)

    q = rng.integers(0, form.largest + 1, (rows, cols)).astype(np.uint8)
    if not form.two_level:
        return Blocks(q, half(groups), half(groups) if form.minimum else None)
    scale = rng.integers(0, 256, (rows, groups)).astype(np.uint8)
    scale = scale.view(np.int8) if form.signed_scale else scale
    minimum = rng.integers(0, 64, (rows, groups)).astype(np.uint8) if form.minimum else None
    return Blocks(q, scale, minimum, half(supers), half(supers))


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


def naive_integer(form: Format, matrix: Matrix, row: int, col: int) -> int:
    """One stored integer, found byte by byte from the layout in the words of the module."""
    strip = matrix.strips()[row // LANES, col // form.superblock]
    lane, inside = row % LANES, col % form.superblock
    lines = strip[form.header_bytes :].reshape(-1, LANES, 4)
    if form.bits == 8:
        return int(lines[inside // 4, lane, inside % 4])
    group, place = inside // form.group, inside % form.group
    byte = int(lines[group // 2 * (form.group // 4) + place // 4, lane, place % 4])
    return byte >> 4 if group % 2 else byte & 15


BLOCK_FORMATS = [form for form in FORMATS.values() if form.block]


@pytest.mark.parametrize("form", BLOCK_FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize(("rows", "cols"), [(1, 32), (17, 256), (16, 320), (33, 544)])
def test_blocks_come_back_as_the_definition_says(form, rows, cols):
    blocks = random_blocks(form, rows, cols)
    matrix = Matrix(form, rows, cols, pack_blocks(blocks, form))
    got = matrix.dequantize()
    want = np.array([[naive_value(form, blocks, r, c) for c in range(cols)] for r in range(rows)])
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


@pytest.mark.parametrize("form", BLOCK_FORMATS, ids=lambda form: form.name)
def test_integers_lie_where_the_module_says(form):
    blocks = random_blocks(form, 20, 512)
    matrix = Matrix(form, 20, 512, pack_blocks(blocks, form))
    rng = np.random.default_rng(1)
    for row, col in zip(rng.integers(0, 20, 300), rng.integers(0, 512, 300), strict=True):
        assert naive_integer(form, matrix, int(row), int(col)) == blocks.q[row, col]


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


def test_bits_a_weight_are_those_of_the_table():
    bits = {"f32": 32, "bf16": 16, "q4": 4.5, "q4m": 5, "q8": 8.5, "q4k": 4.625, "q5k": 8.625, "q6k": 8.625}
    bits |= {"q5m": 9, "q2k": 9.125, "q8k": 8.375}
    assert {name: form.bits_a_weight for name, form in FORMATS.items()} == bits
    assert {name: form.matrix_bytes(16, 512) * 8 / (16 * 512) for name, form in FORMATS.items()} == bits


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


def test_bf16_rounds_to_nearest_even():
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8 - 2**-20, 3.0e38], np.float32)
    want = np.array([1.0, 1.0, 1 + 2**-6, -1 - 2**-7, from_bf16(to_bf16(values[4:]))[0]], np.float32)
    np.testing.assert_array_equal(from_bf16(to_bf16(values)), want)
    bits = np.random.default_rng(0).integers(0, 0x7F80, 1000).astype(np.uint16)
    np.testing.assert_array_equal(to_bf16(from_bf16(bits)), bits)


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
