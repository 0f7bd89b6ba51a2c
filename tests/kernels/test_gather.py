"""Rows picked by index before the head."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini.kernels import gather
from phi4mini.kernels.threads.pool import Call
from tests.kernels.harness import apart, fitted, run, same, word


@pytest.mark.parametrize("threads", [1, 3])
def test_gather_is_fancy_indexing(threads: int) -> None:
    x = np.random.default_rng(0).standard_normal((40, 96)).astype(np.float32)
    index = np.array([39, 0, 7, 7, 20], np.int64)
    out = fitted(np.zeros((5, 96), np.float32))
    wide = apart(x)
    call = Call(gather.gather(cols=96), x=wide, stride=wide.strides[0], index=index, rows=word(5), out=out)
    run(call, threads=threads)
    assert same(out[:5], x[index]) and not out[5:].any()
