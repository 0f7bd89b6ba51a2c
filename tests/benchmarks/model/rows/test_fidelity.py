"""The tally of two sets of logits."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.model.rows.fidelity import Tally, divergence


def test_equal_logits_agree_and_do_not_diverge():
    logits = np.random.default_rng(0).standard_normal((70, 50)).astype(np.float32)
    tally = Tally()
    tally.add(logits, logits + 3)  # a constant changes no probability
    assert (tally.share, tally.kl) == (1.0, pytest.approx(0, abs=1e-9))


def test_divergence_is_the_formula():
    exact, rounded = np.log(np.array([[0.5, 0.5]])), np.log(np.array([[0.9, 0.1]]))
    assert divergence(exact, rounded) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))
