"""The two roundings that fidelity compares."""

from __future__ import annotations

import gguf
import numpy as np

from benchmarks.model import outliers


def test_the_peer_s_rounding_is_what_the_gguf_package_does():
    weights, x = outliers.case("qkv", rows=8)
    for values, rounded, kind in (
        (weights[:256], outliers.q4_0, gguf.GGMLQuantizationType.Q4_0),
        (x, outliers.q8_0, gguf.GGMLQuantizationType.Q8_0),
    ):
        expected = gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind)
        assert np.array_equal(rounded(values), expected)


def test_our_activations_are_within_half_a_step():
    _, x = outliers.case("qkv", rows=4)
    step = np.abs(x.reshape(-1, 32)).max(axis=1, keepdims=True) / 127
    assert (np.abs(outliers.our_activations(x) - x).reshape(-1, 32) <= step * 0.5001).all()


def test_a_group_of_zeros_stays_zero():
    zeros = np.zeros((2, 64), np.float32)
    for rounded in (outliers.our_activations, outliers.our_weights, outliers.q4_0, outliers.q8_0):
        assert not rounded(zeros).any()
