"""Blocks carried over are the very numbers of the GGUF: compared with the `gguf` package on random bytes."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from phi4mini.formats import Matrix, pack_blocks
from phi4mini.weights.gguf_blocks import EXACT, decode
from tests.weights.twins import random_blocks


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("rows", [1, 16, 21])
def test_every_type_equals_the_gguf_package_bit_for_bit(kind, rows):
    raw = random_blocks(kind, rows, 768, seed=rows)
    blocks = decode(kind, raw)
    ours = Matrix(EXACT[kind], rows, 768, pack_blocks(blocks, EXACT[kind])).dequantize()
    theirs = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_extreme_integers_survive(kind):
    raw = random_blocks(kind, 2, 64)
    raw[0].reshape(2, -1)[:, 2:] = 0x80
    raw[1].reshape(2, -1)[:, 2:] = 0x7F
    form = EXACT[kind]
    ours = Matrix(form, 2, 64, pack_blocks(decode(kind, raw), form)).dequantize()
    np.testing.assert_array_equal(ours, gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind]))
