"""The prefix cache: a request begins with what others have computed of its tokens, and no bit of any answer changes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi4mini.engine.engine import Engine
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.errors import BadInput, NoSpace, NumericalError
from phi4mini.kernels.kv import PAGE
from tests import tiny
from tests.engine.reuse import (
    CTX,
    FREE,
    alone,
    begin,
    both_kinds,
    check_pages,
    engine,
    every_case,
    reused,
    weights,
)
from tests.engine.test_damage import SICK, sick_weights, without
from tests.engine.test_invariance import assert_same
from tests.engine.traces import ASKS, Ask, ask, run

# the same bits ---------------------------------------


@every_case
@pytest.mark.parametrize("threads", [1, 2])
def test_reuse_changes_no_bit(format: str, kv: str, threads: int) -> None:
    """All requests of test_invariance.py three times through one engine, together and one by one."""
    made, want = engine(format, kv, 60, threads=threads), [alone(a, format, kv) for a in ASKS]
    for _ in range(2):
        assert_same(run(made, ASKS), want)
    assert_same([run(made, [a])[0] for a in ASKS], want)
    assert reused(made, list(ASKS)) == [0, 0, 0, 128, 0, 15 * PAGE]
    made.close()


@every_case
def test_a_common_beginning_is_computed_once(format: str, kv: str) -> None:
    asks = [begin(150, 40, 1), begin(150, 9, 2), begin(150, 200, 3, temperature=1.0), begin(100, 90, 4)]
    made = engine(format, kv)
    assert_same([run(made, [a])[0] for a in asks], [alone(a, format, kv) for a in asks])
    assert reused(engine(format, kv), asks) == [0, 128, 128, 64]


@both_kinds
def test_an_answer_is_reused_as_part_of_the_next_prompt(kv: str) -> None:
    """As in a conversation: prompt, answer, next question; accepted guesses are part of it."""
    words = tiny.ids(9, 3) * 10
    first = Ask(tuple(words[:70]), ask(1, 80, 1).params, rope="long")
    made = engine(kv=kv)
    answer = run(made, [first])[0].tokens
    second = Ask((*first.ids, *answer, *tiny.ids(20, 7)), ask(1, 9, 2).params, rope="long")
    assert_same(run(made, [second]), [alone(second, "q4", kv)])
    assert reused(made, [second]) == [128]


def test_the_last_token_is_always_computed() -> None:
    for length, want in ((63, 0), (64, 0), (65, 64), (128, 64), (129, 128)):
        assert reused(engine(), [begin(length, 0, 1)] * 2) == [0, want]


def test_requests_side_by_side_share() -> None:
    """Four at once: the pages that each computed for itself become one, and those who come later begin with them."""
    asks = [begin(200, 5 + i, i, new=30) for i in range(4)]
    made = engine()
    requests = [made.add(Request(list(a.ids), a.params, a.rope)) for a in asks]
    for _ in range(3):
        made.step()
        check_pages(made, requests)
    late = made.add(Request(list(asks[0].ids), asks[0].params, asks[0].rope))
    made.step()
    assert all(r.seat.table[:3] == requests[0].seat.table[:3] for r in [*requests, late]) and late.cached_tokens == 192
    assert made.pages.count - made.pages.free == 3 + 5
    assert tiny.finish(made, requests) == [alone(a).tokens for a in asks]
    check_pages(made, [])


def test_a_prompt_may_begin_while_its_beginning_is_computed() -> None:
    a = begin(400, 3, 1)
    made = engine(rows=80)
    first = made.add(Request(list(a.ids), a.params, a.rope))
    made.step()
    second = made.add(Request(list(a.ids), a.params, a.rope))
    assert tiny.finish(made, [first, second]) == [alone(a).tokens] * 2
    assert second.cached_tokens >= 64


@both_kinds
def test_prompt_logprobs_are_computed_not_remembered(kv: str) -> None:
    a = begin(150, 0, 1)
    made = engine(kv=kv)
    run(made, [a])
    request = made.add(Request(list(a.ids), SamplingParams(prompt_logprobs=1, **FREE), a.rope))
    tiny.finish(made, [request])
    assert request.cached_tokens == 0 and request.prompt_logprobs is not None
    values = np.array([note.logprob for note in request.prompt_logprobs[1:] if note], np.float32)
    assert np.array_equal(values, made.logprobs(a.ids, a.rope))
    check_pages(made, [])
    assert reused(made, [a]) == [128]


# who may share ---------------------------------------


def test_different_salts_never_share() -> None:
    a = begin(150, 5, 1)
    salts = [None, "ann", "bob", "", "ann", None, "('long', None)"]
    assert reused(engine(), [a] * 7, salts) == [0, 0, 0, 0, 128, 128, 0]


def test_different_adapters_never_share() -> None:
    """Two adapters and the model itself; a salt or a set that reads like an adapter's key is none."""
    a, made = begin(150, 5, 1), engine()
    kinds: list[dict[str, str]] = [{}, {"adapter": "x"}, {"adapter": "y"}, {"adapter": ""}, {"salt": "x"}]
    kinds += [{"salt": "x', 'y"}, {"salt": "x", "adapter": "y"}, {"adapter": "None"}]
    assert adapted(made, a, kinds) == [0] * len(kinds), "none finds the pages of another"
    assert adapted(made, a, kinds) == [128] * len(kinds), "each finds its own"
    check_pages(made, [])


def adapted(made: Engine, a: Ask, kinds: list[dict[str, str]]) -> list[int]:
    """`cached_tokens` of the same prompt asked for with each salt and adapter. The engine computes no adapters yet and
    refuses such a request; the scheduler takes it.
    """
    requests = [Request(list(a.ids), a.params, a.rope, **kind) for kind in kinds]
    for request in requests:
        made.scheduler.add(request)
        tiny.finish(made, [request])
    return [request.cached_tokens for request in requests]


def test_an_adapter_is_refused_while_none_can_be_computed() -> None:
    with pytest.raises(BadInput, match="adapter 'x': this engine computes no adapters"):
        engine().add(Request([5, 6], SamplingParams(), adapter="x"))
    with pytest.raises(BadInput, match="adapter 'x'"):
        engine().tokens(Request([5, 6], SamplingParams(), adapter="x"))


def test_longrope_sets_never_share() -> None:
    """Nor does it matter whether a set was asked for or follows from the length."""
    short, long = begin(150, 5, 1, rope="short"), begin(150, 5, 1, rope="long")
    made = engine()
    assert reused(made, [short, long, short, replace(long, rope="auto")]) == [0, 0, 128, 128]
    assert_same(run(made, [short, long]), [alone(short), alone(long)])


@every_case
def test_longrope_crossing_leaves_shared_pages_as_they_are(format: str, kv: str) -> None:
    """Prompts of 64 end with short factors in a full page, then everything is computed again with long ones."""
    crossing, staying = begin(64, 0, 1, 30, "auto"), begin(64, 30, 2, 20, "short")
    made = engine(format, kv)
    assert_same(run(made, [crossing, staying, crossing]), [alone(a, format, kv) for a in (crossing, staying, crossing)])
    shared = made.scheduler.prefix.content
    pages = [node.page for node in made.scheduler.prefix._root.children.values()]
    before = [shared.view(page).copy() for page in pages]
    assert len(pages) == 2, "the same tokens with short and with long factors"
    assert_same(run(made, [staying, crossing]), [alone(staying, format, kv), alone(crossing, format, kv)])
    assert all(np.array_equal(shared.view(p), x) for p, x in zip(pages, before, strict=True))
    check_pages(made, [])


def test_longrope_crossing_needs_no_page_that_others_hold() -> None:
    """Two hold the first page with short factors when both cross, in a pool that is just large enough for one."""
    asks = [begin(64, 0, seed, 90, "auto", temperature=1.0) for seed in (1, 2)]
    made = engine(pages=4)
    assert_same(run(made, asks), [alone(a) for a in asks])
    check_pages(made, [])


# damage ---------------------------------------


@both_kinds
def test_damaged_pages_are_not_kept(kv: str) -> None:
    """A prompt that turns bad in its third page: none of its pages stay, and those who share the first two go on."""
    good = [Ask(tuple(without(list(a.ids), SICK)), a.params, 0, a.rope) for a in (begin(140, 9, 1), begin(140, 30, 2))]
    good = [replace(a, params=replace(a.params, banned_ids=(SICK,), max_new_tokens=20)) for a in good]
    made = engine(sick_weights("q4"), kv)
    want = [run(tiny.engine(sick_weights("q4"), kv, ctx=CTX, pages=9), [a])[0].tokens for a in good]
    requests = [made.add(Request(list(a.ids), a.params, a.rope)) for a in good]
    made.step()
    bad = made.add(Request([*good[0].ids[:145], SICK, 5, 6], SamplingParams(**FREE), "long"))
    made.step()
    assert isinstance(bad.error, NumericalError) and bad.cached_tokens == 128
    assert not made.pages._known and not made.scheduler.prefix._root.children
    check_pages(made, requests)
    assert tiny.finish(made, requests) == want
    check_pages(made, [])
    assert made.pages.idle == 0, "what was built on forgotten pages is not kept"
    assert reused(made, [good[0]] * 2) == [0, 128]


@both_kinds
def test_a_page_with_nan_is_never_known(kv: str) -> None:
    """An aborted prompt has drawn nothing that could tell."""
    made = engine(sick_weights("q4"), kv, rows=200)
    prompt = without(tiny.ids(300, 1), SICK)
    prompt[100] = SICK
    request = made.add(Request(prompt, SamplingParams(**FREE), "long"))
    made.step()
    assert request.cached == 200 and list(made.pages._known) == request.seat.table[:1]
    made.abort(request)
    assert made.pages.idle == 1 and made.pages.free == made.pages.count


# pages ---------------------------------------


def test_an_aborted_prompt_is_kept_as_far_as_it_came() -> None:
    made, a = engine(rows=200), begin(400, 1, 1)
    request = made.add(Request(list(a.ids), a.params, a.rope))
    made.step()
    made.abort(request)
    assert not request.seat.table and reused(made, [a]) == [192]


def test_a_preempted_request_computes_little_again() -> None:
    made, a = engine(), begin(250, 1, 1, 20)
    made.scheduler.speculate = False  # a token a pass
    request = made.add(Request(list(a.ids), a.params, a.rope))
    for _ in range(3):
        made.step()
    made.scheduler.preempt(request)
    assert not request.seat.table and made.pages.free == made.pages.count
    made.step()
    assert len(request.generated) == 4, "one pass, though it has to take up 250 tokens"
    assert tiny.finish(made, [request]) == [alone(a).tokens] and request.cached_tokens == 0


def test_the_least_recently_used_goes_first_and_what_leads_to_it_last() -> None:
    made = engine(pages=8)
    asks = [replace(ask(190, 1, seed), rope="long") for seed in (1, 2, 3)]
    assert reused(made, asks[:2]) == [0, 0] and made.pages.idle == 4
    assert reused(made, [asks[0]]) == [128]
    assert reused(made, [asks[2]]) == [0] and made.pages.idle == 6, "the free pages were enough"
    long = replace(ask(300, 1, 4), rope="long")
    assert reused(made, [long]) == [0]
    assert reused(made, [asks[2], asks[0], asks[1]]) == [128, 64, 0]
    check_pages(made, [])


def test_kept_pages_refuse_nobody() -> None:
    made = engine(pages=4)
    for seed in range(5):
        a = replace(ask(250, 3, seed), rope="long")
        assert_same(run(made, [a]), [alone(a)])
    assert made.logits(tiny.ids(256)).shape == (256, 160) and made.pages.idle == 0
    with pytest.raises(NoSpace, match="4 are free, 5 more are needed"):
        made.logits(tiny.ids(257))


PROMPTS = [tiny.ids(60, 1), tiny.ids(64, 2), tiny.ids(130, 3), tiny.ids(130, 3)[:70] + tiny.ids(30, 4)]
PROMPTS += [(tiny.ids(11, 5) * 16)[:170], (tiny.ids(11, 5) * 16)[:100]]
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 5), st.integers(1, 20)),
        st.tuples(st.just("abort"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("back"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("fail"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("step"), st.integers(1, 6), st.just(0)),
    ),
    min_size=5,
    max_size=30,
)


@cache
def longest_answer(prompt: int) -> list[int]:
    return alone(Ask(tuple(PROMPTS[prompt]), SamplingParams(ignore_eos=True, max_new_tokens=20, seed=0))).tokens


@cache
def shared_engine(pages: int, running: int) -> Engine:
    return engine(pages=pages, running=running)


@settings(max_examples=80, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(events=EVENTS, pages=st.sampled_from([4, 6, 12]), running=st.sampled_from([1, 3, 64]))
def test_any_order_of_adds_aborts_preemptions_and_errors(
    events: list[tuple[str, int, int]], pages: int, running: int
) -> None:
    """Every answer is the request's own, and after each step every page is in one place and counted right."""
    made, requests = shared_engine(pages, running), []
    for kind, number, new in events:
        if kind == "add":
            params = SamplingParams(ignore_eos=True, max_new_tokens=new)
            requests.append((made.add(Request(PROMPTS[number], params)), number, new))
        elif kind != "step" and number < len(requests):
            disturb(made, kind, requests[number][0])
        for _ in range(number if kind == "step" else 0):
            made.step()
            check_pages(made, [r for r, _, _ in requests])
    tiny.finish(made, [])
    check_pages(made, [])
    for request, number, new in requests:
        whole = longest_answer(number)[:new]
        if request.finish_reason in ("abort", "error"):
            assert request.generated == whole[: len(request.generated)]
        else:
            assert request.finish_reason == "length" and request.generated == whole


def disturb(engine: Engine, kind: str, request: Request) -> None:
    if kind == "abort":
        engine.abort(request)
    elif request in engine.scheduler.running:
        if kind == "back":
            engine.scheduler.preempt(request)
        else:
            engine._fail(request, NumericalError("as if"))


def test_the_engine_without_reuse_keeps_nothing() -> None:
    plain = Engine(weights(), ctx=256, threads=1)
    a = begin(150, 5, 1)
    assert reused(plain, [a, a]) == [0, 0] and plain.pages.idle == 0
    plain.close()
