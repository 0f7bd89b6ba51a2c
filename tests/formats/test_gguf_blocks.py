"""Blocks carried over are the very numbers of the GGUF: compared with the `gguf` package, bit for bit, on any bytes."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.formats.gguf_blocks import EXACT, bits_more, decode
from phi4mini.formats.matrix import Matrix, pack_blocks
from phi4mini.weights.checkpoints.gguf import TYPES
from tests.weights.twins import HALVES, random_blocks


def unpacked(kind: str, raw: np.ndarray, cols: int) -> np.ndarray:
    form = EXACT[kind]
    blocks = decode(kind, raw)
    assert blocks.q.max() <= form.largest, "kernels count on it"
    return Matrix(form, len(raw), cols, pack_blocks(blocks, form)).dequantize()


def equal(kind: str, raw: np.ndarray, cols: int) -> None:
    theirs = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
    np.testing.assert_array_equal(unpacked(kind, raw, cols).view(np.uint32), theirs.view(np.uint32))


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("rows", [1, 16, 21])
def test_GG6_every_type_equals_the_gguf_package_bit_for_bit(kind, rows):
    equal(kind, random_blocks(kind, rows, 768, seed=rows), 768)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("kind", EXACT)
def test_GG6_any_bytes_of_every_type_equal_the_gguf_package(kind, data):
    """Whatever a block holds: subnormal, negative and zero scales too; only NaN and infinity are refused elsewhere."""
    weights, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    cols = data.draw(st.integers(1, 3)) * weights
    raw = np.frombuffer(
        data.draw(st.binary(min_size=2 * cols // weights * nbytes, max_size=2 * cols // weights * nbytes)), np.uint8
    )
    raw = raw.reshape(2, -1, nbytes).copy()
    for at in HALVES.get(kind, [0, 2]):
        high = raw[:, :, at + 1]
        high[high & 0x7C == 0x7C] &= 0xBF  # an exponent of all ones becomes a finite one
    equal(kind, raw.reshape(2, -1), cols)


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("byte", [0x00, 0x0F, 0x55, 0x7F, 0x80, 0xAA, 0xF0, 0xFF])
def test_extreme_integers_survive(kind, byte):
    weights, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    raw = np.full((2, 512 // weights, nbytes), byte, np.uint8)
    for at in HALVES.get(kind, [0, 2]):
        raw[:, :, at : at + 2] = np.array([0.25], np.float16).view(np.uint8)
    equal(kind, raw.reshape(2, -1), 512)


def test_what_a_type_costs_is_counted():
    for name, weights, nbytes in TYPES.values():
        held = EXACT[name].matrix_bytes(16, 1024) if name in EXACT else 16 * 1024 // weights * nbytes
        assert held - 16 * 1024 // weights * nbytes == 16 * 1024 * bits_more(name) / 8, name
