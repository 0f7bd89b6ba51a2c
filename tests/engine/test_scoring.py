"""Logits and hidden states of whole sequences, in passes between which the engine may step."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from phi4mini.engine.compute.buffers import MAX_ROWS
from phi4mini.engine.engine import Engine
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.errors import BadInput, NoSpace, NumericalError, TooLong
from phi4mini.model import reference
from phi4mini.model.arrays import Weights
from phi4mini.model.longrope import RopeMode
from tests import tiny
from tests.engine.test_damage import SICK, sick_weights
from tests.kernels.harness import same


@cache
def weights(format: str = "q4") -> Weights:
    return tiny.weights(tiny.config(), format)


def engine(format: str = "q4", **changes: Any) -> Engine:
    return tiny.engine(weights(format), **{"ctx": 1088, **changes})


def whole(passes: Any) -> np.ndarray:
    return np.concatenate([part.copy() for _, part in passes])


@pytest.mark.parametrize("rope", ["auto", "short", "long"])
@pytest.mark.parametrize("length", [1, 60, 700])
def test_hidden_states_are_the_references(length: int, rope: RopeMode) -> None:
    ids = tiny.ids(length)
    passes = list(engine("f32", kv="f32").hidden(ids, rope))
    assert [(start, part.shape, part.dtype) for start, part in passes] == [
        (start, (min(MAX_ROWS, length - start), 128), np.float32) for start in range(0, length, MAX_ROWS)
    ]
    want = reference.hidden(tiny.dense_arrays(weights("f32")), ids, rope, np.float64)
    assert np.abs(whole(passes) - want).max() < 2e-4


def test_hidden_states_times_the_head_are_the_logits() -> None:
    made = engine("f32", kv="f32")
    ids = tiny.ids(150)
    head = tiny.dense_arrays(weights("f32")).head
    assert np.abs(whole(made.hidden(ids)) @ head.T - made.logits(ids)).max() < 2e-4


@pytest.mark.parametrize("format", ["q4", "f32"])
def test_invariance_of_scoring_between_the_passes_of_others(format: str) -> None:
    """Jobs in turns with each other and with requests: every bit as when each runs alone, and so the requests."""
    ids, params = tiny.ids(300, 5), SamplingParams(max_new_tokens=30, ignore_eos=True)
    prompts = [tiny.ids(n, n) for n in (10, 200)]
    alone = engine(format)
    want = [whole(alone.hidden(ids)), alone.logits(ids), alone.logprobs(ids)]
    answers = [tiny.finish(alone, [alone.add(Request(p, params))])[0] for p in prompts]
    made = engine(format, speculate=True, pages=40)
    requests = [made.add(Request(p, params)) for p in prompts]
    jobs: dict[int, Any] = dict(enumerate([made.hidden(ids), made.score(ids), made.score_logprobs(ids)]))
    got: list[list[np.ndarray]] = [[], [], []]
    while jobs or made.has_work:
        for n, job in list(jobs.items()):
            made.step()
            part = next(job, None)
            if part is None:
                del jobs[n]
            else:
                got[n].append((part[1] if isinstance(part, tuple) else part).copy())
        made.step()
    assert [r.generated for r in requests] == answers
    assert all(same(np.concatenate(a), b) for a, b in zip(got, want, strict=True))
    assert made.pages.free == made.pages.count


def test_scoring_takes_few_rows_beside_others_and_many_alone() -> None:
    made = engine()
    made.scheduler.pace.rows = lambda drawing: 9  # type: ignore[method-assign]
    request = made.add(Request(tiny.ids(5), SamplingParams(max_new_tokens=50, ignore_eos=True)))
    made.step()
    passes = made.hidden(tiny.ids(600))
    assert [len(next(passes)[1]) for _ in range(2)] == [9, 9]
    made.abort(request)
    assert [len(part) for _, part in passes] == [MAX_ROWS, MAX_ROWS, 582 - 2 * MAX_ROWS]


@pytest.mark.parametrize("use", ["score", "hidden", "score_logprobs"])
def test_what_cannot_be_scored_is_refused_at_once(use: str) -> None:
    made = engine(ctx=40)
    for ids, error in (([], BadInput), ([160], BadInput), (tiny.ids(41), TooLong)):
        with pytest.raises(error):
            getattr(made, use)(ids)
    with pytest.raises(BadInput, match="rope must be"):
        getattr(made, use)(tiny.ids(5), "medium")


def test_a_job_has_all_its_pages_from_the_start_and_gives_them_back() -> None:
    made = engine(ctx=256, pages=4)
    request = made.add(Request(tiny.ids(100), SamplingParams(max_new_tokens=8)))
    made.step()
    with pytest.raises(NoSpace, match="2 are free, 3 more"):
        next(made.hidden(tiny.ids(150)))
    made.abort(request)
    job = made.score(tiny.ids(256))
    next(job)
    assert made.pages.free == 0
    job.close()
    assert made.pages.free == 4


def test_a_request_waits_while_a_job_holds_the_pages() -> None:
    made = engine(ctx=256, pages=4)
    job = made.score(tiny.ids(250))
    next(job)
    request = made.add(Request(tiny.ids(70), SamplingParams(max_new_tokens=3, ignore_eos=True)))
    for _ in range(3):
        assert made.step() == []
    whole(job)
    assert len(tiny.finish(made, [request])[0]) == 3


@pytest.mark.parametrize("where", [0, 100, 149])
def test_nan_is_an_error_of_scoring_too(where: int) -> None:
    made = tiny.engine(sick_weights("q4"), ctx=256)
    ids = [i if i != SICK else i + 1 for i in tiny.ids(150)]
    clean = made.logits(ids)
    sick = [*ids[:where], SICK, *ids[where + 1 :]]
    for use, what in ((made.logits, "logits"), (made.logprobs, "logits"), (lambda i: list(made.hidden(i)), "hidden")):
        with pytest.raises(NumericalError, match=f"NaN or infinite {what}.* at position {where + 1}"):
            use(sick)
        assert made.pages.free == made.pages.count
        assert not made.network.cache.any(), "its pages are zeroed"
        assert same(made.logits(ids), clean)
        for page in range(made.pages.count):
            made.network.drop(page)
