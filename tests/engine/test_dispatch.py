"""Tokens reach the reader of their request: readers in turns, from threads, that leave early, beside plain steps."""

from __future__ import annotations

import threading
from functools import cache
from itertools import islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi4mini.engine.engine import Engine
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.errors import BadInput, NumericalError
from tests import tiny

PROMPTS = [(tiny.ids(11, n) * 12)[:n] for n in (1, 5, 30, 64, 90)]  # they repeat themselves: guesses are made
MOST = 12


@cache
def engine(guesses: bool = True) -> Engine:
    return tiny.engine(tiny.weights(tiny.config(), "q4"), ctx=192, pages=12, speculate=guesses)


@cache
def alone(prompt: int) -> list[int]:
    return [t.id for t in engine().generate(PROMPTS[prompt], params())]


def params(new: int = MOST) -> SamplingParams:
    return SamplingParams(ignore_eos=True, max_new_tokens=new)


def test_two_generators_read_in_turns_get_all_their_tokens() -> None:
    first, second = (engine().generate(PROMPTS[i], params()) for i in (2, 4))
    got = [(a.id, b.id) for a, b in zip(first, second, strict=True)]
    assert [list(ids) for ids in zip(*got, strict=True)] == [alone(2), alone(4)]


TURNS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 5), st.integers(1, 5)),
        st.tuples(st.just("open"), st.integers(0, len(PROMPTS) - 1), st.just(0)),
        st.tuples(st.just("step"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("score"), st.integers(0, len(PROMPTS) - 1), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(turns=TURNS)
def test_any_order_of_reads_loses_and_doubles_no_token(turns: list[tuple[str, int, int]]) -> None:
    readers, got = [], []
    for kind, number, count in [("open", 2, 0), ("open", 3, 0), *turns]:
        if kind == "open":
            readers.append((engine().generate(PROMPTS[number], params()), number))
            got.append([])
        elif kind == "read" and number < len(readers):
            got[number] += [t.id for t in islice(readers[number][0], count)]
        elif kind == "leave" and number < len(readers):
            readers[number][0].close()
        elif kind == "score":
            engine().logprobs(PROMPTS[number])
        for _ in range(number if kind == "step" else 0):
            engine().step()
    for (tokens, number), ids in zip(readers, got, strict=True):
        left = tokens.gi_frame is None  # closed, or read to its end
        ids += [t.id for t in tokens]
        assert ids == alone(number)[: len(ids)] and (left or len(ids) == MOST)
    assert not engine().has_work and engine().pages.free == engine().pages.count


def test_readers_on_threads_get_what_they_get_alone() -> None:
    got: dict[int, list[int]] = {}

    def read(place: int) -> None:
        got[place] = [t.id for t in engine().generate(PROMPTS[place % len(PROMPTS)], params())]

    threads = [threading.Thread(target=read, args=(place,)) for place in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == {place: alone(place % len(PROMPTS)) for place in range(12)}


def test_a_step_returns_all_tokens_and_readers_get_theirs_as_well() -> None:
    reader = engine().generate(PROMPTS[2], params())
    ids = [next(reader).id]
    other = engine().add(Request(PROMPTS[3], params()))
    stepped = []
    while other.finish_reason is None:
        stepped += engine().step()
    assert [t.id for t in stepped if t.request is other] == alone(3)
    assert ids + [t.id for t in reader] == alone(2)


def test_what_is_never_read_never_runs() -> None:
    unread = engine().generate(PROMPTS[2], params())
    assert not engine().has_work
    del unread
    with pytest.raises(BadInput, match="prompt is empty"):
        engine().generate([])


def test_an_error_ends_its_own_reader_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    healthy, failing = (engine().generate(PROMPTS[i], params()) for i in (2, 3))
    ids, request = [next(healthy).id], next(failing).request
    engine()._fail(request, NumericalError("made up"))
    ids += [t.id for t in healthy]
    assert ids == alone(2)
    with pytest.raises(NumericalError, match="made up"):
        list(failing)
