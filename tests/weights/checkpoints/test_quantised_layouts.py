"""Layouts of quantised safetensors: the integers, scales and zero points that were written, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi4mini.errors import BadCheckpoint
from phi4mini.weights.checkpoints.quantised_layouts import (
    Awq,
    Gptq,
    Integers,
    IntQuantized,
    Kept,
    PackQuantized,
    Settings,
    unpack,
)
from phi4mini.weights.checkpoints.safetensors import SafetensorsFile, Stored
from tests.weights import quantised_twins
from tests.weights.quantised_twins import Twin, twin, write_safetensors

LAYOUTS: dict[str, tuple[Any, Any]] = {
    "pack-quantized": (quantised_twins.pack_quantized, lambda n, t, s: PackQuantized(n, t, s)),
    "int-quantized": (quantised_twins.int_quantized, lambda n, t, s: IntQuantized(n, t, s)),
    "awq": (quantised_twins.awq, lambda n, t, s: Awq(n, t, s, Kept())),
    "gptq": (quantised_twins.gptq, lambda n, t, s: Gptq(n, t, s, Kept())),
}


def opened(
    path: Path,
    layout: str,
    tensors: dict[str, np.ndarray],
    settings: Settings | None = None,
    bf16: tuple[str, ...] = (),
) -> Integers:
    write_safetensors(path / "t.safetensors", {f"m.{word}": array for word, array in tensors.items()}, bf16)
    file = SafetensorsFile(path / "t.safetensors")
    stored = {name.removeprefix("m."): Stored(file, name) for name in file.tensors}
    return LAYOUTS[layout][1]("x: m", stored, settings or Settings())


def check(source: Integers, matrix: Twin) -> None:
    """All parts, whole and by odd ranges of rows."""
    rows, cols = matrix.q.shape
    assert (source.rows, source.cols, source.bits) == (rows, cols, matrix.bits)
    np.testing.assert_array_equal(source.group_of, matrix.group_of)
    for start, stop in ((0, rows), (1, rows), (3, 4), (rows // 2 + 1, rows), (7, 17)):
        np.testing.assert_array_equal(source.ints(start, stop), matrix.q[start:stop])
        np.testing.assert_array_equal(source.scales(start, stop), matrix.scale[start:stop])
        np.testing.assert_array_equal(source.zeros(start, stop), matrix.zero[start:stop])


SHAPES = [(group, symmetric) for group in (32, 64, 128, 0) for symmetric in (True, False)]


@pytest.mark.parametrize(("group", "symmetric"), SHAPES)
@pytest.mark.parametrize("scale", ["F16", "BF16", "F32"])
def test_CK11_compressed_tensors_of_every_group_and_scale(tmp_path, group, symmetric, scale):
    matrix = twin(40, 256, group, symmetric, scale)
    bf16 = ("weight_scale",) if scale == "BF16" else ()
    check(opened(tmp_path, "pack-quantized", quantised_twins.pack_quantized(matrix), bf16=bf16), matrix)


@pytest.mark.parametrize(("rows", "bits"), [(40, 4), (41, 4), (37, 8), (40, 2)])
@pytest.mark.parametrize("packed_zero", [True, False])
def test_CK11_zero_points_packed_along_the_rows_or_plain(tmp_path, rows, bits, packed_zero):
    matrix = twin(rows, 64, 32, symmetric=False, bits=bits)
    check(opened(tmp_path, "pack-quantized", quantised_twins.pack_quantized(matrix, packed_zero)), matrix)


@pytest.mark.parametrize("cols", [33, 40, 100])
def test_CK11_inputs_that_fill_no_whole_word(tmp_path, cols):
    matrix = twin(24, cols, 0)
    check(opened(tmp_path, "pack-quantized", quantised_twins.pack_quantized(matrix)), matrix)


def test_CK11_one_scale_for_the_whole_matrix(tmp_path):
    matrix = twin(24, 64, 0)
    matrix.scale[:] = 0.25
    for shape in ((), (1,), (1, 1)):
        tensors = quantised_twins.pack_quantized(matrix) | {"weight_scale": np.full(shape, 0.25, np.float32)}
        check(opened(tmp_path, "pack-quantized", tensors), matrix)


@pytest.mark.parametrize("group", [0, 128])
@pytest.mark.parametrize("symmetric", [True, False])
def test_CK12_signed_bytes(tmp_path, group, symmetric):
    matrix = twin(40, 256, group, symmetric, bits=8)
    check(opened(tmp_path, "int-quantized", quantised_twins.int_quantized(matrix)), matrix)


@pytest.mark.parametrize(("group", "symmetric"), SHAPES)
def test_CK13_awq_of_every_group(tmp_path, group, symmetric):
    matrix = twin(40, 256, group, symmetric)
    tensors = quantised_twins.awq(matrix)
    assert tensors["qweight"].shape == (256, 5)
    check(opened(tmp_path, "awq", tensors), matrix)


def test_CK13_awq_by_hand(tmp_path):
    """The word 0x75316420 holds 0 to 7 in AWQ's order."""
    word = np.full((32, 1), 0x75316420, np.uint32).view(np.int32)
    tensors = {"qweight": word, "qzeros": word[:1].copy(), "scales": np.ones((1, 8), np.float32)}
    source = opened(tmp_path, "awq", tensors)
    assert source.ints(0, 8)[:, 0].tolist() == list(range(8)) == source.zeros(0, 8)[:, 0].tolist()


@pytest.mark.parametrize(("group", "symmetric"), SHAPES)
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("bits", [4, 8, 2])
def test_CK14_gptq_of_every_group_and_version(tmp_path, group, symmetric, version, bits):
    matrix = twin(48, 256, group, symmetric, bits=bits)
    if version == 1:
        matrix.zero[matrix.zero == 0] = 1  # cannot be told from 2**bits there
    said = Settings(less_one=version == 1)
    check(opened(tmp_path, "gptq", quantised_twins.gptq(matrix, version), said), matrix)
    check(opened(tmp_path, "gptq", quantised_twins.gptq(matrix, version, with_order=False), said), matrix)


def test_CK14_gptq_by_hand(tmp_path):
    """The word 0x76543210 holds inputs 0 to 7 in order; zero points are stored less one."""
    word = np.full((4, 8), 0x76543210, np.uint32).view(np.int32)
    zero = np.full((1, 1), 0x76543210, np.uint32).view(np.int32)
    tensors = {"qweight": word, "qzeros": zero, "scales": np.ones((1, 8), np.float32)}
    source = opened(tmp_path, "gptq", tensors)
    assert source.ints(2, 3)[0, :8].tolist() == list(range(8))
    assert source.zeros(0, 8)[:, 0].tolist() == list(range(1, 9))


def test_CK14_a_zero_point_of_zero_in_version_1(tmp_path):
    """GPTQModel takes 1 off whole words, so that 0 borrows; others write 15, of which it is not known what it means."""
    matrix = twin(40, 128, 32, symmetric=False)
    assert (matrix.zero == 0).any()
    source = opened(tmp_path, "gptq", quantised_twins.gptq(matrix, borrow=True), Settings(by_words=True))
    check(source, matrix)
    source = opened(tmp_path, "gptq", quantised_twins.gptq(matrix))
    with pytest.raises(BadCheckpoint, match="version 1 hold 15, which programs read as 16 or as 0"):
        source.zeros(0, 40)


def test_CK14_act_order_is_the_group_of_every_input(tmp_path):
    matrix = twin(40, 128, 32)
    matrix.group_of = np.random.default_rng(3).permutation(matrix.group_of)
    check(opened(tmp_path, "gptq", quantised_twins.gptq(matrix)), matrix)
    check(opened(tmp_path, "pack-quantized", quantised_twins.pack_quantized(matrix)), matrix)


def test_a_stated_group_size_is_taken_where_the_last_group_is_short(tmp_path):
    matrix = twin(24, 160, 64)
    source = opened(tmp_path, "pack-quantized", quantised_twins.pack_quantized(matrix), Settings(group_size=64))
    check(source, matrix)
    with pytest.raises(BadCheckpoint, match="3 groups do not divide 160 inputs"):
        opened(tmp_path, "pack-quantized", quantised_twins.pack_quantized(matrix))


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_CK11_and_CK12_and_CK13_and_CK14_any_integers_come_back(tmp_path, data):
    layout = data.draw(st.sampled_from(sorted(LAYOUTS)))
    bits = {"awq": 4, "int-quantized": 8}.get(layout) or data.draw(st.sampled_from([2, 4, 8]))
    rows, groups = 8 * data.draw(st.integers(3, 9)), data.draw(st.integers(1, 4))
    group = 32 * data.draw(st.integers(1, 4))
    matrix = twin(rows, group * groups, group, symmetric=False, bits=bits, seed=data.draw(st.integers(0, 1 << 30)))
    rows = rows // 16 * 16 if layout == "gptq" and bits == 2 else rows
    matrix.q, matrix.scale, matrix.zero = matrix.q[:rows], matrix.scale[:rows], np.maximum(matrix.zero[:rows], 1)
    source = opened(tmp_path, layout, LAYOUTS[layout][0](matrix))
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    np.testing.assert_array_equal(source.ints(start, stop), matrix.q[start:stop])
    np.testing.assert_array_equal(source.zeros(start, stop), matrix.zero[start:stop])
    np.testing.assert_array_equal(source.scales(start, stop), matrix.scale[start:stop])


def test_unpack_is_from_the_lowest_bits_up():
    word = np.array([[0x04030201, -1]], np.int32)
    assert unpack(word, 8)[0, 0].tolist() == [1, 2, 3, 4] and unpack(word, 4)[0, 1].tolist() == [15] * 8
    assert unpack(word, 2)[0, 0].tolist() == [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 1, 0, 0]


def changed(layout: str, word: str, array: np.ndarray) -> tuple[str, str, np.ndarray]:
    return layout, word, array


@pytest.mark.parametrize(
    ("layout", "word", "array"),
    [
        changed("pack-quantized", "weight_packed", np.zeros((40, 7), np.int32)),
        changed("pack-quantized", "weight_packed", np.zeros((40, 8), np.int64)),
        changed("pack-quantized", "weight_shape", np.zeros(3, np.int64)),
        changed("pack-quantized", "weight_shape", np.array([-40, 64], np.int64)),
        changed("pack-quantized", "weight_scale", np.zeros((39, 2), np.float32)),
        changed("pack-quantized", "weight_scale", np.zeros((40, 0), np.float32)),
        changed("pack-quantized", "weight_zero_point", np.zeros((40, 2), np.int32)),
        changed("pack-quantized", "weight_g_idx", np.full(64, 9, np.int32)),
        changed("int-quantized", "weight_scale", np.zeros((7, 1), np.float32)),
        changed("int-quantized", "weight_zero_point", np.zeros((3, 1), np.int8)),
        changed("awq", "qweight", np.zeros((64, 6), np.int32)),
        changed("awq", "qzeros", np.zeros((3, 5), np.int32)),
        changed("awq", "scales", np.zeros(40, np.float32)),
        changed("awq", "scales", np.zeros((0, 40), np.float32)),
        changed("gptq", "qweight", np.zeros((8, 48), np.int32)),
        changed("gptq", "qzeros", np.zeros((2, 7), np.int32)),
        changed("gptq", "scales", np.zeros((2, 40), np.int32)),
        changed("gptq", "g_idx", np.zeros(63, np.int32)),
        changed("gptq", "g_idx", np.full(64, -5, np.int32)),
    ],
)
def test_tensors_that_do_not_fit_each_other_are_named(tmp_path, layout, word, array):
    tensors = LAYOUTS[layout][0](twin(40, 64, 32, bits=8 if layout == "int-quantized" else 4)) | {word: array}
    with pytest.raises(BadCheckpoint, match=r"^x: m") as caught:
        opened(tmp_path, layout, tensors)
    assert "\n" not in str(caught.value)


def test_a_tensor_is_read_once_for_all_its_chunks(tmp_path, monkeypatch):
    matrix = twin(40, 64)
    source = opened(tmp_path, "awq", quantised_twins.awq(matrix))
    read: list[str] = []
    whole = Stored.array
    monkeypatch.setattr(Stored, "array", lambda self: read.append(self.name) or whole(self))
    for start in range(0, 40, 4):
        source.ints(start, start + 4)
        source.zeros(start, start + 4)
    assert read == ["m.qweight", "m.qzeros"]


def test_what_was_read_last_is_what_is_kept(tmp_path, monkeypatch):
    from phi4mini.weights.checkpoints import quantised_layouts

    monkeypatch.setattr(quantised_layouts, "_MOST_KEPT", 100)
    write_safetensors(tmp_path / "t.safetensors", {f"m.{i}": np.full(20, i, np.int32) for i in range(4)})
    file = SafetensorsFile(tmp_path / "t.safetensors")
    kept = Kept()
    for i in (0, 1, 2, 3, 0):
        assert (kept.array(Stored(file, f"m.{i}")) == i).all()
        assert len(kept._arrays) == 1
