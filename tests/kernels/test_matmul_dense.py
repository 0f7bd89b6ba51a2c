"""Tiles of the dense product. Its values and bits are tested with those of the other formats, in test_matmul.py."""

from __future__ import annotations

import pytest

from phi4mini.kernels import matmul_dense
from tests.kernels.harness import PAD


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 64, 512])
def test_dense_tiles_fit_in_the_padding(rows: int) -> None:
    tall = matmul_dense.dense_tall(rows)
    assert rows <= -(-rows // tall) * tall < rows + PAD
