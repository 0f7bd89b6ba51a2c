"""Quantised matrices as rows: the format that carries each, the very numbers, and why some are carried by none."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi4mini.errors import BadCheckpoint
from phi4mini.formats.format_table import FORMATS
from phi4mini.formats.matrix import Matrix, pack_blocks
from phi4mini.weights.checkpoints.quantised_layouts import Settings
from phi4mini.weights.checkpoints.quantised_rows import QuantisedRows
from phi4mini.weights.checkpoints.row_reader import Fused
from phi4mini.weights.store.recipes import pack, plan, recipe
from tests.weights import quantised_twins
from tests.weights.checkpoints.test_quantised_layouts import LAYOUTS, opened
from tests.weights.quantised_twins import Twin, twin

V2 = Settings(less_one=False)
VARIANTS: list[tuple[str, int, bool, str, int, str]] = [  # layout, group, symmetric, scale, bits, format
    (layout, group, symmetric, scale, 4, "q4" if symmetric else "q8")
    for layout in ("pack-quantized", "awq", "gptq")
    for group in (32, 64, 128, 0)
    for symmetric in (True, False)
    for scale in ("F16", "BF16")
]
VARIANTS += [
    (layout, group, True, scale, 8, "q8")
    for layout in ("pack-quantized", "int-quantized", "gptq")
    for group in (32, 128, 0)
    for scale in ("F16", "BF16")
]
VARIANTS += [(layout, 64, symmetric, "F16", 2, "q4") for layout in ("pack-quantized", "gptq") for symmetric in (0, 1)]


def rows_of(path: Any, layout: str, matrix: Twin) -> QuantisedRows:
    more = {"version": 2} if layout == "gptq" else {}
    return QuantisedRows(opened(path, layout, LAYOUTS[layout][0](matrix, **more), V2))


def stored(rows: QuantisedRows, name: str) -> np.ndarray:
    """What a store of that format stands for."""
    fused = Fused([rows])
    data = np.concatenate(list(pack("m", fused, FORMATS[name])))
    return Matrix(FORMATS[name], rows.rows, rows.cols, data).dequantize()


@pytest.mark.parametrize(("layout", "group", "symmetric", "scale", "bits", "format"), VARIANTS)
def test_CK11_and_CK12_and_CK13_and_CK14_every_variant_is_carried_exactly(
    tmp_path, layout, group, symmetric, scale, bits, format
):
    matrix = twin(48, 256, group, bool(symmetric), scale, bits)
    rows = rows_of(tmp_path, layout, matrix)
    assert rows.format == FORMATS[format] and rows.unfit == ""
    np.testing.assert_array_equal(rows.values(0, 48), matrix.values)
    np.testing.assert_array_equal(rows.values(5, 23), matrix.values[5:23])
    np.testing.assert_array_equal(stored(rows, format), matrix.values)
    np.testing.assert_array_equal(stored(rows, "q8"), matrix.values)  # -q q8 holds it as well
    blocks, fixed = rows.blocks(0, 48), FORMATS[format].zero
    of = matrix.group_of
    np.testing.assert_array_equal(blocks.q, matrix.q - matrix.zero[:, of] + fixed)  # the same integers
    np.testing.assert_array_equal(blocks.scale.astype(np.float32), matrix.scale[:, of[::32]])  # the same scales


def test_CK11_symmetric_int4_is_q4_bit_for_bit(tmp_path):
    matrix = twin(48, 256, 128)
    rows = rows_of(tmp_path, "pack-quantized", matrix)
    blocks = rows.blocks(0, 48)
    np.testing.assert_array_equal(blocks.q, matrix.q)
    ours = np.concatenate(list(pack("m", Fused([rows]), FORMATS["q4"])))
    np.testing.assert_array_equal(ours, pack_blocks(blocks, FORMATS["q4"]))


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_CK11_and_CK12_and_CK13_and_CK14_random_matrices_are_carried_exactly_or_said_not_to_be(tmp_path, data):
    layout = data.draw(st.sampled_from(sorted(LAYOUTS)))
    bits = {"awq": 4, "int-quantized": 8}.get(layout) or data.draw(st.sampled_from([2, 4, 8]))
    group = data.draw(st.sampled_from([16, 32, 48, 64, 128]))
    rows, cols = 16 * data.draw(st.integers(1, 4)), group * 2 * data.draw(st.integers(1, 3))
    scale = data.draw(st.sampled_from(["F16", "BF16", "F32"]))
    matrix = twin(rows, cols, group, data.draw(st.booleans()), scale, bits, data.draw(st.integers(0, 1 << 30)))
    matrix.scale *= np.float32(2.0 ** data.draw(st.integers(-22, 6)))  # down to where f16 runs out of bits
    opened_rows = rows_of(tmp_path, layout, matrix)
    np.testing.assert_array_equal(opened_rows.values(0, rows), matrix.values)
    if opened_rows.format is None:
        exact = (matrix.scale.astype(np.float16).astype(np.float32) == matrix.scale).all()
        assert opened_rows.unfit and (not exact or group % 32 or (bits == 8 and (matrix.zero != 128).any()))
        return
    np.testing.assert_array_equal(stored(opened_rows, opened_rows.format.name), matrix.values)


def act_order(matrix: Twin) -> Twin:
    matrix.group_of = np.random.default_rng(3).permutation(matrix.group_of)
    return matrix


UNFIT = {
    "act-order": ("gptq", act_order(twin(48, 256, 64)), r"another order \(act-order\)"),
    "act-order of compressed-tensors": ("pack-quantized", act_order(twin(48, 256, 64)), "another order"),
    "f32 scales": ("pack-quantized", twin(48, 256, 64, scale="F32"), "scales are finer than f16"),
    "f32 scales, no symmetry": ("awq", twin(48, 256, 64, False, "F32"), "scales are finer than f16"),
    "groups of 16": ("gptq", twin(48, 256, 16), "no multiple of 32"),
    "groups of 48": ("pack-quantized", twin(48, 192, 48), "no multiple of 32"),
    "int8 with zero points": ("int-quantized", twin(48, 256, 0, False, bits=8), "past 8 bits"),
    "8 bits with zero points": ("gptq", twin(48, 256, 64, False, bits=8), "past 8 bits"),
}


@pytest.mark.parametrize("what", sorted(UNFIT))
def test_CK15_what_no_format_carries_is_decoded_exactly_and_says_why(tmp_path, what):
    layout, matrix, why = UNFIT[what]
    rows = rows_of(tmp_path, layout, matrix)
    assert rows.format is None
    np.testing.assert_array_equal(rows.values(0, 48), matrix.values)
    np.testing.assert_array_equal(stored(rows, "f32"), matrix.values)
    assert plan("layers.0.o", Fused([rows]), recipe("q4"), True) == FORMATS["q8"]
    assert plan("layers.0.o", Fused([rows]), recipe("f32"), True) == FORMATS["f32"]
    assert re.search(why, rows.unfit)
    step = np.abs(matrix.values).reshape(48, -1, 32).max(axis=2) / 127
    error = np.abs(stored(rows, "q8") - matrix.values).reshape(48, -1, 32).max(axis=2)
    assert (error <= step * 0.6).all(), "half a step, and what the f16 of the scale adds"


def test_CK15_bf16_scales_below_what_f16_holds(tmp_path):
    matrix = twin(48, 256, 64, scale="BF16")
    matrix.scale[7, 2] = np.float32(2.0**-20 * 1.0078125)
    rows = rows_of(tmp_path, "pack-quantized", matrix)
    assert rows.unfit == "scales are finer than f16"
    matrix.scale[7, 2] = 2.0**-20
    assert rows_of(tmp_path, "pack-quantized", matrix).format == FORMATS["q4"]
    matrix.scale[7, 2] = 1e6
    assert rows_of(tmp_path, "pack-quantized", matrix).format is None


def test_act_order_that_keeps_blocks_together_is_carried(tmp_path):
    matrix = twin(48, 256, 64)
    matrix.group_of = np.repeat(np.array([3, 1, 0, 2, 2, 0, 1, 3]), 32)
    rows = rows_of(tmp_path, "gptq", matrix)
    assert rows.format == FORMATS["q4"]
    np.testing.assert_array_equal(stored(rows, "q4"), matrix.values)


def test_parts_of_several_kinds_meet_in_the_wider_format(tmp_path):
    (tmp_path / "a").mkdir()
    q, k = twin(48, 256, 64), twin(16, 256, 64, symmetric=False)
    fused = Fused([rows_of(tmp_path, "awq", q), rows_of(tmp_path / "a", "awq", k)])
    assert fused.format == FORMATS["q8"] and not fused.mixed and fused.unfit == ""
    data = np.concatenate(list(pack("m", fused, FORMATS["q8"])))
    joined = np.concatenate([q.values, k.values])
    np.testing.assert_array_equal(Matrix(FORMATS["q8"], 64, 256, data).dequantize(), joined)


def test_scales_that_are_no_numbers_are_refused(tmp_path):
    for bad in (np.nan, np.inf):
        matrix = twin(48, 256, 64)
        matrix.scale[3, 1] = bad
        (tmp_path / "t.safetensors").unlink(missing_ok=True)
        rows = QuantisedRows(opened(tmp_path, "awq", quantised_twins.awq(matrix)))
        with pytest.raises(BadCheckpoint, match="NaN or infinity"):
            list(pack("m", Fused([rows]), plan("layers.0.o", Fused([rows]), recipe("q4"), True)))
