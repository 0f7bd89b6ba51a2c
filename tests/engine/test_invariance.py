"""Promise 2, invariance: tokens and logits depend, to the last bit, on the request and the weights alone."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import cycle

import numpy as np
import pytest

from phi4mini.engine.engine import Engine
from phi4mini.engine.request import Request
from phi4mini.kernels.threads.crew import Crew
from phi4mini.model.arrays import Weights
from tests import tiny
from tests.engine import isa_sample
from tests.engine.traces import ASKS, Ask, Trace, ask, run
from tests.kernels.harness import runnable_isas, same, under_isa

FORMATS = ("q4", "q4m", "q8", "f32")
CASES = [(format, kv) for format in FORMATS for kv in ("int8", "f32")]
every_case = pytest.mark.parametrize(("format", "kv"), CASES)
CTX = 1088
REPEATED: list[tuple[int, dict[str, float]]] = [
    (30, {}),
    (56, {}),
    (100, {"temperature": 0.4}),
    (40, {"temperature": 0.2}),
]


@cache
def weights(format: str) -> Weights:
    return tiny.weights(tiny.config(), format)


def engine(
    format: str,
    kv: str,
    threads: int = 1,
    pages: int = 40,
    running: int = 64,
    speculate: bool = True,
    rows: int | None = None,
) -> Engine:
    """By default with room for all of ASKS at once, and guessing ahead."""
    return tiny.engine(weights(format), kv, threads, CTX, pages, running, speculate, rows=rows)


@cache
def alone(format: str, kv: str) -> list[Trace]:
    """Each request by itself in an engine of its own, on one thread, token by token: what all others must equal."""
    return [run(engine(format, kv, speculate=False), [replace(a, after=0)])[0] for a in ASKS]


def assert_same(got: list[Trace], want: list[Trace]) -> None:
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.tokens == b.tokens, f"request {i}: other tokens"
        differ = [j for j, (x, y) in enumerate(zip(a.logits, b.logits, strict=True)) if not same(x, y)]
        assert not differ, f"request {i}: other logits at its tokens {differ}"


@every_case
def test_invariance_of_guesses(format: str, kv: str) -> None:
    """Texts that repeat themselves, so that guesses are made, across LongRoPE's boundary and a page's too."""
    words = tiny.ids(9, 3)
    repeated = [Ask(tuple((words * 20)[:n]), ask(1, 40, n, **kind).params) for n, kind in REPEATED]
    plain = [run(engine(format, kv, speculate=False), [a])[0] for a in repeated]
    for threads, together in ((1, False), (2, True)):
        made = engine(format, kv, threads)
        drawn = run(made, repeated) if together else [run(made, [a])[0] for a in repeated]
        assert_same(drawn, plain)
        made.close()


def test_invariance_of_guesses_is_about_guesses() -> None:
    """Those texts do have guesses that are right and guesses that are wrong."""
    words = tiny.ids(9, 3)
    made = engine("q4", "int8")
    requests = [Request((words * 20)[:n], ask(1, 40, n, **kind).params) for n, kind in REPEATED]
    steps = 0
    for request in requests:
        made.add(request)
        while made.has_work:
            made.step()
            steps += 1
    guessed, accepted = (sum(getattr(r.guesser, name) for r in requests) for name in ("guessed", "accepted"))
    assert 0 < accepted < guessed
    assert steps == 40 * len(requests) - accepted


@every_case
def test_invariance_alone_or_batched(format: str, kv: str) -> None:
    assert_same(run(engine(format, kv)), alone(format, kv))


@every_case
def test_invariance_whenever_others_join(format: str, kv: str) -> None:
    """Each arrives while others are anywhere in their prompts and answers, twice in different orders."""
    for order in ((3, 0, 9, 1, 30, 2), (0, 25, 4, 12, 13, 5)):
        joined = [replace(a, after=step) for a, step in zip(ASKS, order, strict=True)]
        assert_same(run(engine(format, kv), joined), alone(format, kv))


@every_case
@pytest.mark.parametrize("rows", [7, 100])
def test_invariance_of_prompt_chunks(format: str, kv: str, rows: int) -> None:
    """Passes of few rows: prompts are cut at other places, one request's beside another's."""
    asks = ASKS if rows > 50 else ASKS[:5]
    assert_same(run(engine(format, kv, rows=rows), asks), alone(format, kv)[: len(asks)])


def test_invariance_of_single_token_chunks() -> None:
    """A prompt fed one token a pass is decode all the way."""
    for format, kv in (("q4", "int8"), ("f32", "f32")):
        assert_same(run(engine(format, kv, rows=1), [ASKS[3]]), alone(format, kv)[3:4])


@every_case
@pytest.mark.parametrize("threads", [2, 3])
def test_invariance_of_threads(format: str, kv: str, threads: int) -> None:
    made = engine(format, kv, threads)
    assert_same(run(made), alone(format, kv))
    made.close()


@pytest.mark.parametrize(("format", "kv"), [("q4", "int8"), ("f32", "f32")])
def test_invariance_of_threads_that_change_between_passes(
    format: str, kv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock may take threads away and give them back at any pass."""
    sizes = cycle([1, 3, 2, 2, 1, 3])
    monkeypatch.setattr(Crew, "size", lambda self: next(sizes))
    made = engine(format, kv, 3)
    assert_same(run(made), alone(format, kv))
    made.close()


@every_case
def test_invariance_after_preemption(format: str, kv: str) -> None:
    """Pages for the longest request alone: others are preempted and computed again."""
    made = engine(format, kv, pages=17)
    assert_same(run(made), alone(format, kv))
    assert made.load().preemptions >= 2


def test_invariance_of_how_many_run() -> None:
    for running in (1, 2, 3):
        assert_same(run(engine("q4", "int8", running=running)), alone("q4", "int8"))


@pytest.mark.parametrize(("format", "kv"), [("q4", "int8"), ("q8", "f32")])
def test_invariance_beside_many(format: str, kv: str) -> None:
    """Twenty more requests in the same passes: more than 8 rows of decode, through the kernels for many rows."""
    others = [ask(3 + i, 20, 100 + i, temperature=1.0) for i in range(20)]
    got = run(tiny.engine(weights(format), kv, 2, CTX, 80, speculate=True), [*ASKS, *others])
    assert_same(got[: len(ASKS)], alone(format, kv))


@every_case
def test_invariance_decode_equals_prefill(format: str, kv: str) -> None:
    """The logits each token was drawn from are those of a fresh pass over prompt and answer."""
    asks = [replace(ASKS[1], rope="long"), ask(20, 12, 8), replace(ASKS[5], rope="short")]
    made = engine(format, kv)
    for a, trace in zip(asks, run(made, asks), strict=True):
        ids = [*a.ids, *trace.tokens]
        whole = made.logits(ids[:-1], rope="short" if a.rope == "auto" else a.rope)
        assert same(np.array(trace.logits), whole[len(a.ids) - 1 :])


@pytest.mark.parametrize("isa", ["avxvnni", "avx2"])
def test_invariance_of_instruction_sets(isa: str) -> None:
    if isa not in runnable_isas():
        pytest.skip(f"this CPU has no {isa}")
    assert json.loads(under_isa(isa, "tests.engine.isa_sample")) == here() | {"isa": isa}


@cache
def here() -> dict[str, str]:
    return isa_sample.sample()


def test_the_traces_tell_requests_apart() -> None:
    """The comparison sees a seed, a prompt or a format that is another."""
    base = alone("q4", "int8")
    digests = {t.digest() for t in [*base, *alone("q8", "int8"), *alone("q4", "f32")]}
    assert len(digests) == 3 * len(ASKS)
    other: list[Ask] = [replace(ASKS[1], params=replace(ASKS[1].params, seed=99))]
    assert run(engine("q4", "int8"), other)[0].tokens != base[1].tokens
