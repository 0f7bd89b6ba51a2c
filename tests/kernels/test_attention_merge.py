"""The joined chunks of attention go into every kind of activations alike. That joining is right, for one chunk or
several, is tested with the whole of attention in test_attention.py.
"""

from __future__ import annotations

import pytest

from phi4mini.kernels.activations import quantize
from phi4mini.kernels.threads.pool import Call
from tests.kernels.attentions import SHAPES, attend, setting
from tests.kernels.harness import fitted, run, same, sink, word


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("format", ["q4", "q8", "q6k"])
def test_merge_fills_every_sink_with_the_same_numbers(shape: tuple[int, int, int], format: str) -> None:
    heads, _, dim = shape
    pool, s = setting("int8", shape)
    runs = [(s, 1021, 5)]
    plain = attend(pool, heads, runs, 1)["q"]
    want = sink(format, 5, heads * dim)
    run(Call(quantize(format=format, cols=heads * dim), x=fitted(plain), rows=word(5), **want))
    got = attend(pool, heads, runs, 1, format=format, threads=3)
    assert all(same(got[name], want[name][:5]) for name in got)
