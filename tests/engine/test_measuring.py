"""Measuring at a depth: a filled cache serves as a computed one, and the recorded passes are all there are."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini.engine.measuring import fill, record_passes
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.errors import NoSpace
from phi4mini.kernels.kv import PAGE
from tests import tiny


def test_a_filled_request_goes_on_as_if_it_had_been_computed() -> None:
    made = tiny.engine(tiny.weights(tiny.config(), "q4"), ctx=1088, pages=17)
    answers = []
    for seed in (1, 1, 2):
        request = made.add(Request(tiny.ids(1000), SamplingParams(max_new_tokens=8, ignore_eos=True)))
        made.step()
        fill(made, request, seed)
        assert request.cached == 999 and len(request.seat.table) == 1000 // PAGE + 1
        passes = made.load().passes
        answers.append(tiny.finish(made, [request])[0])
        assert request.error is None and made.load().passes == passes + 8, "one token a pass"
    assert answers[0] == answers[1] and len(answers[2]) == 8
    assert np.isfinite(made.logits(tiny.ids(9))).all()


def test_filling_needs_pages() -> None:
    made = tiny.engine(tiny.weights(tiny.config(), "q4"), ctx=1088, pages=8)
    request = made.add(Request(tiny.ids(1000), SamplingParams()))
    made.step()
    with pytest.raises(NoSpace):
        fill(made, request, 1)


def test_recorded_passes_are_all_that_a_request_takes() -> None:
    made = tiny.engine(tiny.weights(tiny.config(), "q4"))
    record_passes(made)
    recorded = set(made.network._programs)
    for count in (1, 5, 300):
        requests = [made.add(Request(tiny.ids(count, i), SamplingParams(max_new_tokens=3))) for i in range(3)]
        tiny.finish(made, requests)
    assert {(rows, tall) for rows, _, tall in made.network._programs} <= {(rows, tall) for rows, _, tall in recorded}
