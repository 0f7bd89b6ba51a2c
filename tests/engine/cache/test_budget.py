"""How much the KV cache holds, and what an engine tells about itself."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import cache

import pytest

from phi4mini.engine.compute.buffers import Buffers
from phi4mini.engine.engine import Engine
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.errors import BadInput, NoSpace
from phi4mini.kernels.cpu import cpu
from phi4mini.model.arrays import Weights
from tests import tiny
from tests.engine import reuse


@cache
def weights() -> Weights:
    return tiny.weights(tiny.config(), "q4")


@pytest.mark.parametrize(("ctx", "kv_tokens", "want"), [
    (None, None, (2048, 32)),
    (256, None, (256, 4)),
    (256, 1000, (256, 16)),
    (256, 256, (256, 4)),
    (None, 600, (600, 10)),
    (None, 6000, (2048, 94)),
])  # fmt: skip
def test_pages_are_for_what_was_asked(ctx: int | None, kv_tokens: int | None, want: tuple[int, int]) -> None:
    made = Engine(weights(), ctx=ctx, kv_tokens=kv_tokens, threads=1)
    assert (made.ctx, made.pages.count) == want
    made.close()


def test_more_tokens_hold_more_requests_at_once() -> None:
    for kv_tokens, held in ((128, 1), (512, 4)):
        made = Engine(weights(), ctx=128, kv_tokens=kv_tokens, threads=1)
        params = SamplingParams(max_new_tokens=20, ignore_eos=True)
        requests = [made.add(Request(tiny.ids(70, i), params)) for i in range(6)]
        made.step()
        assert sum(bool(r.seat.table) for r in requests) == held
        made.close()


def test_less_than_one_request_may_have_is_refused() -> None:
    with pytest.raises(BadInput, match="kv_tokens must be at least 256, the context of one request, got 255"):
        Engine(weights(), ctx=256, kv_tokens=255)


def test_what_memory_does_not_hold_is_refused_before_anything_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    def allocated(*_: object) -> None:
        raise AssertionError("buffers were made")

    monkeypatch.setattr(Buffers, "__init__", allocated)
    with pytest.raises(BadInput, match=r"a KV cache of 10\d+ tokens takes \d+\.\d\d GB .* \d+\.\d\d GB are available"):
        Engine(weights(), ctx=256, kv_tokens=10**12)
    monkeypatch.setattr(type(cpu()), "memory_available", 1000)
    with pytest.raises(BadInput, match="a context of 256 tokens takes"):
        Engine(weights(), ctx=256)
    with pytest.raises(NoSpace, match="not enough for"):
        Engine(weights())


def test_the_load_is_what_happened() -> None:
    made = reuse.engine(running=2, pages=40)
    params = SamplingParams(max_new_tokens=5, ignore_eos=True)
    first = made.add(Request(tiny.ids(200), params))
    tiny.finish(made, [first])
    assert asdict(made.load()) == {
        "running": 0, "waiting": 0, "pages": 40, "free": 40, "idle": 3, "preemptions": 0, "passes": 5, "drawn": 5,
        "prompt_tokens": 200, "cached_tokens": 0,
    }  # fmt: skip
    for _ in range(3):
        made.add(Request(tiny.ids(200), params))
    made.step()
    now = made.load()
    assert (now.running, now.waiting, now.passes, now.drawn) == (2, 1, 6, 7)
    assert (now.prompt_tokens, now.cached_tokens, now.idle) == (216, 384, 0)
    assert now.free == 40 - 3 - 2
    made.scheduler.preempt(made.scheduler.running[-1])
    assert made.load().preemptions == 1


def test_the_load_costs_under_50_microseconds() -> None:
    made = tiny.engine(weights(), pages=8)
    for owner in range(40):
        made.add(Request(tiny.ids(5), SamplingParams(), owner=owner))
    times = []
    for _ in range(200):
        start = time.perf_counter()
        made.load()
        times.append(time.perf_counter() - start)
    assert sorted(times)[100] < 50e-6
