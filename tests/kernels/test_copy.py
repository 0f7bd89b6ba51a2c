"""Rows picked by index before the head, and pairs of rows added after it."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini.kernels import copy
from phi4mini.kernels.pool import Call
from tests.kernels.harness import fitted, run, same, word


@pytest.mark.parametrize("threads", [1, 3])
def test_gather_is_fancy_indexing(threads: int) -> None:
    x = np.random.default_rng(0).standard_normal((40, 96)).astype(np.float32)
    index = np.array([39, 0, 7, 7, 20], np.int64)
    out = fitted(np.zeros((5, 96), np.float32))
    run(Call(copy.gather(cols=96), x=fitted(x), index=index, rows=word(5), out=out), threads=threads)
    assert same(out[:5], x[index]) and not out[5:].any()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_pairs_are_added_in_place(rows: int, threads: int) -> None:
    x = np.random.default_rng(1).standard_normal((16, 80)).astype(np.float32)
    y = fitted(x, 0)
    run(Call(copy.add_pairs(), x=y, rows=word(rows), stride=y.strides[0]), threads=threads)
    assert same(y[:rows], (x[::2] + x[1::2])[:rows]) and same(y[rows:], x[rows:])
