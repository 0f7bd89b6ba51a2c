"""Safetensors: what the library writes is read bit for bit; what lies is refused quickly and without memory."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from phi4mini.errors import BadCheckpoint, NotFound
from phi4mini.formats.matrix import from_bf16
from phi4mini.weights.checkpoints.safetensors import SafetensorsFile


def raw_file(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """A file with this header (an object, or bytes as they are) and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def info(dtype: str = "F32", shape: object = (2, 2), offsets: object = (0, 16)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_floats_are_read_exactly_by_rows(tmp_path, dtype):
    values = np.random.default_rng(0).standard_normal((7, 5)).astype(dtype)
    save_file({"a": np.zeros(3, np.float32), "b": values}, tmp_path / "m.safetensors", metadata={"format": "pt"})
    file = SafetensorsFile(tmp_path / "m.safetensors")
    assert file.tensors["b"].shape == (7, 5)
    np.testing.assert_array_equal(file.rows("b").values(2, 5), values[2:5].astype(np.float32))
    assert file.rows("a").rows == 1 and file.rows("a").cols == 3


def test_bf16_is_read_exactly(tmp_path):
    bits = np.random.default_rng(0).integers(0, 0x7F80, (4, 6)).astype(np.uint16)
    path = raw_file(tmp_path / "m", {"w": info("BF16", (4, 6), (0, 48))}, bits.tobytes())
    np.testing.assert_array_equal(SafetensorsFile(path).rows("w").values(0, 4), from_bf16(bits))


LIES = {
    "header longer than the file": dict(header={}, length=1000),
    "huge header": dict(header={}, length=1 << 62),
    "header not JSON": dict(header=b"{nonsense"),
    "header not UTF-8": dict(header=b'{"\xff": 1}'),
    "header nested too deep": dict(header=b"[" * 100_000 + b"]" * 100_000),
    "header not an object": dict(header=[1]),
    "duplicate name": dict(
        header=b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        data=bytes(8),
    ),
    "overlap": dict(header={"a": info(), "b": info(offsets=(8, 24))}, data=bytes(24)),
    "hole": dict(header={"a": info(), "b": info(offsets=(20, 36))}, data=bytes(36)),
    "trailing bytes": dict(header={"a": info()}, data=bytes(17)),
    "truncated": dict(header={"a": info()}, data=bytes(15)),
    "shape is not the bytes": dict(header={"a": info(shape=(2, 3))}, data=bytes(16)),
    "overflow": dict(header={"a": info(shape=(1 << 62, 1 << 62))}, data=bytes(16)),
    "negative shape": dict(header={"a": info(shape=(-2, -2))}, data=bytes(16)),
    "negative offsets": dict(header={"a": info(offsets=(-16, 0))}, data=bytes(16)),
    "offsets reversed": dict(header={"a": info(offsets=(16, 0))}, data=bytes(16)),
    "fractional shape": dict(header={"a": info(shape=(2.0, 2))}, data=bytes(16)),
    "true as a size": dict(header={"a": info(shape=(True, 4))}, data=bytes(16)),
    "bad dtype": dict(header={"a": info("I65", (1, 2))}, data=bytes(16)),
    "dtype not a name": dict(header={"a": info(["F32"])}, data=bytes(16)),  # type: ignore[arg-type]
    "no offsets": dict(header={"a": {"dtype": "F32", "shape": [4]}}, data=bytes(16)),
    "three offsets": dict(header={"a": info(offsets=(0, 8, 16))}, data=bytes(16)),
    "tensor is a list": dict(header={"a": [1, 2]}, data=bytes(16)),
}


@pytest.mark.parametrize("lie", LIES)
def test_A3_a_lying_header_is_refused_at_once(tmp_path, lie):
    path = raw_file(tmp_path / "bad.safetensors", **LIES[lie])
    began = time.perf_counter()
    with pytest.raises(BadCheckpoint, match=r"bad\.safetensors") as caught:
        SafetensorsFile(path)
    assert time.perf_counter() - began < 0.5
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_A1_a_file_cut_anywhere_is_refused_with_both_sizes(tmp_path):
    save_file({"a": np.ones((20, 20), np.float32), "b": np.ones(8, np.float32)}, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    path = tmp_path / "cut.safetensors"
    for size in sorted({*range(0, len(whole), len(whole) // 20), len(whole) - 1}):
        path.write_bytes(whole[:size])
        with pytest.raises(BadCheckpoint, match=f"cut.safetensors: truncated: .*{size}"):
            SafetensorsFile(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"none\.safetensors"):
        SafetensorsFile(tmp_path / "none.safetensors")


def test_a_file_that_shrinks_while_it_is_read_is_an_error_not_a_signal(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"a": np.ones((1000, 64), np.float32)}, path)
    rows = SafetensorsFile(path).rows("a")
    with open(path, "r+b") as file:
        file.truncate(5000)
    with pytest.raises(BadCheckpoint, match=r"m\.safetensors: truncated"):
        rows.values(500, 600)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> tuple[bytes, Path]:
    path = tmp_path_factory.mktemp("mutations") / "m.safetensors"
    save_file({"a": np.ones((4, 8), np.float32), "b.c": np.ones(6, np.float16)}, path)
    return path.read_bytes(), path


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_damage_to_the_header_is_refused_or_harmless(sound, data):
    """Flipped bytes either give BadCheckpoint or a file whose tensors can all be read inside the file."""
    whole, path = sound
    header = 8 + int.from_bytes(whole[:8], "little")
    broken = bytearray(whole)
    for at in data.draw(st.lists(st.integers(0, header - 1), min_size=1, max_size=4)):
        broken[at] = data.draw(st.integers(0, 255))
    path.write_bytes(broken)
    try:
        file = SafetensorsFile(path)
    except BadCheckpoint:
        return
    for name in file.tensors:
        rows = file.rows(name)
        assert rows.values(0, rows.rows).shape == (rows.rows, rows.cols)
