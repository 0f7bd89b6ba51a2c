"""The engine's life with requests: how they end, what is refused, what is scored, who holds which pages."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi4mini.engine.engine import Engine
from phi4mini.engine.request import Request, Token
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.errors import BadInput, NoSpace, TooLong
from phi4mini.kernels.threads.pool import Pool, Program
from phi4mini.model.arrays import Weights
from tests import tiny
from tests.kernels.harness import same

FREE = {"ignore_eos": True, "max_new_tokens": 8}


@cache
def weights(format: str = "q4") -> Weights:
    return tiny.weights(tiny.config(), format)


@pytest.fixture
def engine() -> Engine:
    return tiny.engine(weights(), ctx=256)


def answer(engine: Engine, prompt: list[int], rope: Any = "auto", **params: Any) -> list[Token]:
    return list(engine.generate(prompt, SamplingParams(**params), rope))


# ends ---------------------------------------


def test_the_models_end_id_ends_an_answer_and_is_handed_out(engine: Engine) -> None:
    tokens = answer(engine, tiny.ids(5), logit_bias={tiny.EOS: 100.0})
    assert [(t.id, t.finish) for t in tokens] == [(tiny.EOS, "stop")]
    held = answer(engine, tiny.ids(5), logit_bias={tiny.EOS: 100.0}, min_new_tokens=3)
    assert [t.finish for t in held] == [None] * 3 + ["stop"] and held[-1].id == tiny.EOS
    assert all(t.id != tiny.EOS for t in held[:-1])


def test_ignore_eos_goes_on(engine: Engine) -> None:
    tokens = answer(engine, tiny.ids(5), logit_bias={tiny.EOS: 100.0}, ignore_eos=True, max_new_tokens=4)
    assert [(t.id, t.finish) for t in tokens] == [(tiny.EOS, None)] * 3 + [(tiny.EOS, "length")]


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_stop_ids_end_an_answer(engine: Engine, ignore_eos: bool) -> None:
    free = [t.id for t in answer(engine, tiny.ids(9), **FREE)]
    stop = free[4]
    tokens = answer(engine, tiny.ids(9), stop_ids=(stop, 150), ignore_eos=ignore_eos, max_new_tokens=8)
    assert [t.id for t in tokens] == free[: free.index(stop) + 1]
    assert tokens[-1].finish == "stop"


def test_max_new_tokens(engine: Engine) -> None:
    for count in (1, 3):
        tokens = answer(engine, tiny.ids(9), ignore_eos=True, max_new_tokens=count)
        assert [t.finish for t in tokens] == [None] * (count - 1) + ["length"]


def test_a_full_context_ends_an_answer() -> None:
    engine = tiny.engine(weights(), ctx=40)
    assert engine.ctx == 40
    for prompt in (35, 39):
        tokens = answer(engine, tiny.ids(prompt), ignore_eos=True)
        assert len(tokens) == 40 - prompt and tokens[-1].finish == "length"
        assert len(tokens[-1].request.ids) == 40


def test_a_request_tells_what_became_of_it(engine: Engine) -> None:
    request = engine.add(Request(tiny.ids(70), SamplingParams(**FREE)))
    assert request.finish_reason is None and request.timings.decode_seconds == 0
    out = [token for _ in range(8) for token in engine.step()]
    assert request.generated == [t.id for t in out] and request.finish_reason == "length" and request.num_prompt == 70
    assert request.timings.prefill_seconds > 0 and request.timings.decode_seconds > 0
    assert not engine.has_work and engine.step() == []


# what is refused ---------------------------------------


@pytest.mark.parametrize("length", [40, 41, 500])
def test_a_prompt_too_long_names_both_numbers(length: int) -> None:
    engine = tiny.engine(weights(), ctx=40)
    with pytest.raises(TooLong, match=f"{length} tokens but the context holds 40") as caught:
        engine.generate(tiny.ids(length))
    assert (caught.value.prompt_tokens, caught.value.limit) == (length, 40)
    assert not engine.has_work


def test_scoring_takes_a_whole_context_and_no_more() -> None:
    engine = tiny.engine(weights(), ctx=40)
    assert engine.logits(tiny.ids(40)).shape == (40, 160)
    for score in (engine.logits, engine.logprobs):
        with pytest.raises(TooLong, match="41 tokens but the context holds 40"):
            score(tiny.ids(41))
    assert engine.pages.free == engine.pages.count


@pytest.mark.parametrize(
    ("prompt", "message"),
    [([], "the prompt is empty"), ([3, 160], "token id 160 .* 160"), ([-1], "token id -1"), ([3, 1 << 40], "token id")],
)
def test_prompts_that_are_none_are_refused(engine: Engine, prompt: list[int], message: str) -> None:
    for use in (engine.generate, engine.logits, engine.logprobs):
        with pytest.raises(BadInput, match=message):
            use(prompt)
    assert not engine.has_work


@pytest.mark.parametrize("params", [{"stop_ids": (160,)}, {"logit_bias": {999: 1.0}}, {"banned_ids": (160,)}])
def test_ids_the_model_lacks_are_refused_at_once(engine: Engine, params: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"beyond the model's last id 159"):
        engine.generate(tiny.ids(5), SamplingParams(**params))
    assert not engine.has_work


def test_a_rope_that_is_none_is_refused_at_once(engine: Engine) -> None:
    """Refused when added: an error out of step() would be everybody's."""
    with pytest.raises(BadInput, match="rope must be auto, short or long, got 'medium'"):
        engine.add(Request(tiny.ids(5), SamplingParams(), rope="medium"))  # type: ignore[arg-type]
    assert not engine.has_work
    with pytest.raises(BadInput, match="rope must be"):
        engine.logits(tiny.ids(5), rope="medium")  # type: ignore[arg-type]


def test_a_request_with_nothing_to_choose_fails_alone(engine: Engine) -> None:
    good = engine.add(Request(tiny.ids(6), SamplingParams(**FREE)))
    bad = engine.add(Request(tiny.ids(6), SamplingParams(banned_ids=tuple(range(160)))))
    assert all(token.request is good for token in engine.step())
    assert bad.finish_reason == "error" and isinstance(bad.error, BadInput) and "banned" in str(bad.error)
    tiny.finish(engine, [good])
    with pytest.raises(BadInput, match="banned"):
        answer(engine, tiny.ids(6), banned_ids=tuple(range(160)))


# aborts ---------------------------------------


def test_abort_ends_a_request_wherever_it_is() -> None:
    engine = tiny.engine(weights(), ctx=256, running=2, rows=32)
    decoding, prefilling, waiting, other = (Request(tiny.ids(n), SamplingParams(**FREE)) for n in (5, 200, 5, 9))
    for request in (decoding, prefilling, waiting, other):
        engine.add(request)
    engine.step()
    engine.step()
    assert decoding.generated and 0 < prefilling.cached < 200 and not waiting.seat.table
    for request in (decoding, prefilling, waiting):
        engine.abort(request)
        engine.abort(request)
        assert request.finish_reason == "abort" and not request.seat.table
    assert engine.pages.free == engine.pages.count
    tiny.finish(engine, [other])
    assert other.finish_reason == "length" and len(decoding.generated) == 2
    engine.abort(other)
    assert other.finish_reason == "length"


def test_leaving_a_generate_loop_ends_the_request(engine: Engine) -> None:
    tokens = engine.generate(tiny.ids(70), SamplingParams(ignore_eos=True))
    request = next(tokens).request
    next(tokens), next(tokens)
    assert request.finish_reason is None and engine.has_work
    tokens.close()  # what leaving a loop does
    assert request.finish_reason == "abort" and len(request.generated) == 3
    assert engine.pages.free == engine.pages.count and not engine.has_work


# scoring ---------------------------------------


def log_softmax(logits: np.ndarray) -> np.ndarray:
    z = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def test_logprobs_are_those_of_the_logits(engine: Engine) -> None:
    ids = tiny.ids(150)
    got, want = engine.logprobs(ids), log_softmax(engine.logits(ids))[np.arange(149), ids[1:]]
    assert got.shape == (149,) and np.abs(got - want).max() < 1e-5
    assert engine.logprobs(ids[:1]).shape == (0,)


@pytest.mark.parametrize("rows", [258, 40, 1])
def test_prompt_logprobs_are_logprobs(rows: int) -> None:
    """For prompts of several passes (64 rows of logits each, or fewer), beside a request that decodes, and of one
    token; the prompt repeats itself, so that the engine would like to guess.
    """
    engine = tiny.engine(weights(), ctx=256, pages=8, speculate=True, rows=rows)
    ids = tiny.ids(50) * 3
    plain = [t.id for t in answer(engine, ids, **FREE)]
    other = engine.add(Request(tiny.ids(9), SamplingParams(ignore_eos=True, max_new_tokens=5)))
    request = engine.add(Request(ids, SamplingParams(prompt_logprobs=3, logprobs=2, **FREE)))
    single = engine.add(Request(ids[:1], SamplingParams(prompt_logprobs=0, **FREE)))
    tiny.finish(engine, [request, other])
    assert request.generated == plain and single.prompt_logprobs == [None]
    notes, logits = request.prompt_logprobs, engine.logits(ids)
    assert notes is not None and notes[0] is None and len(notes) == 150
    assert [n.id for n in notes[1:]] == ids[1:]
    values = np.array([n.logprob for n in notes[1:]], np.float32)
    assert np.array_equal(values, engine.logprobs(ids))
    for note, row in zip(notes[1:], logits, strict=False):
        assert [i for i, _ in note.top] == np.argsort(-row, kind="stable")[:3].tolist()


def test_prompt_logprobs_survive_preemption() -> None:
    """A request that is preempted in its prompt computes the prompt again and notes each token once."""
    engine, ids = tiny.engine(weights(), ctx=256, rows=40), tiny.ids(150)
    want = engine.logprobs(ids)
    request = engine.add(Request(ids, SamplingParams(prompt_logprobs=0, **FREE)))
    engine.step()
    engine.step()
    assert 1 < len(request.prompt_logprobs) < 150
    engine.scheduler.preempt(request)
    tiny.finish(engine, [request])
    notes = request.prompt_logprobs
    assert [n.id for n in notes[1:]] == ids[1:]
    assert np.array_equal(np.array([n.logprob for n in notes[1:]], np.float32), want)


def test_logprobs_of_drawn_tokens(engine: Engine) -> None:
    prompt = tiny.ids(20)
    tokens = answer(engine, prompt, logprobs=4, temperature=1.0, seed=3, **FREE)
    ids = [*prompt, *(t.id for t in tokens)]
    want = log_softmax(engine.logits(ids[:-1])[19:])
    for token, row in zip(tokens, want, strict=True):
        assert token.logprob == pytest.approx(row[token.id], abs=1e-5)
        assert [i for i, _ in token.top] == np.argsort(-row, kind="stable")[:4].tolist()
    assert all(t.logprob is None and t.top is None for t in answer(engine, prompt, **FREE))


def test_the_seed_in_use_reproduces_an_answer(engine: Engine) -> None:
    first = answer(engine, tiny.ids(9), temperature=1.5, **FREE)
    seed = first[0].request.seed
    again = answer(engine, tiny.ids(9), temperature=1.5, seed=seed, **FREE)
    other = answer(engine, tiny.ids(9), temperature=1.5, **FREE)
    assert [t.id for t in again] == [t.id for t in first] != [t.id for t in other]


def test_scoring_without_free_pages_says_so() -> None:
    engine = tiny.engine(weights(), ctx=128)
    request = engine.add(Request(tiny.ids(100), SamplingParams(**FREE)))
    engine.step()
    with pytest.raises(NoSpace, match=r"2 pages of 64 tokens and 0 are free, 1 more"):
        engine.logits(tiny.ids(5))
    tiny.finish(engine, [request])
    assert engine.logits(tiny.ids(128)).shape == (128, 160)


# many ---------------------------------------


def test_a_tiny_pool_finishes_all_with_the_same_text() -> None:
    """Twelve requests, pages for two of them: stepping back changes no text, and all end."""
    prompts = [tiny.ids(20 + 11 * i, i) for i in range(12)]
    params = SamplingParams(ignore_eos=True, max_new_tokens=30)
    alone = [[t.id for t in tiny.engine(weights()).generate(p, params)] for p in prompts]
    engine = tiny.engine(weights(), pages=4)
    assert tiny.finish(engine, [engine.add(Request(p, params)) for p in prompts]) == alone
    assert engine.pages.free == 4


PROMPTS = [(tiny.ids(11, n) * 12)[:n] for n in (1, 5, 30, 62, 64, 90, 130)]  # they repeat themselves: guesses are made
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, len(PROMPTS) - 1), st.integers(1, 12)),
        st.tuples(st.just("abort"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("step"), st.integers(1, 6), st.just(0)),
    ),
    min_size=5,
    max_size=30,
)


@cache
def longest_answer(prompt: int) -> list[int]:
    return [t.id for t in answer(tiny.engine(weights()), PROMPTS[prompt], ignore_eos=True, max_new_tokens=12)]


@cache
def shared_engine(pages: int, running: int) -> Engine:
    return tiny.engine(weights(), ctx=192, pages=pages, running=running, speculate=True)


def check_pages(engine: Engine, requests: list[Request]) -> None:
    held = [page for r in requests for page in r.seat.table]
    assert len(held) == len(set(held)), "a page is held twice"
    assert sorted(held + engine.pages._free) == list(range(engine.pages.count)), "a page is lost"


@settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(events=EVENTS, pages=st.sampled_from([3, 4, 9]), running=st.sampled_from([1, 3, 64]))
def test_any_order_of_adds_aborts_and_steps(events: list[tuple[str, int, int]], pages: int, running: int) -> None:
    """Who is not aborted gives its own text, guesses or not; no page is lost or held twice; in the end all are free."""
    engine, requests = shared_engine(pages, running), []
    for kind, number, new in events:
        if kind == "add":
            request = Request(PROMPTS[number], SamplingParams(ignore_eos=True, max_new_tokens=new))
            requests.append((engine.add(request), number, new))
        elif kind == "abort" and number < len(requests):
            engine.abort(requests[number][0])
        for _ in range(number if kind == "step" else 0):
            engine.step()
            check_pages(engine, [r for r, _, _ in requests])
            assert len(engine.scheduler.running) <= running
    tiny.finish(engine, [])
    assert engine.pages.free == engine.pages.count
    for request, number, new in requests:
        whole = longest_answer(number)[:new]
        if request.finish_reason == "abort":
            assert request.generated == whole[: len(request.generated)]
        else:
            assert request.finish_reason == "length" and request.generated == whole


class Interrupted(Pool):
    """A KeyboardInterrupt comes just before, or just after, every other pass."""

    def __init__(self, before: bool) -> None:
        super().__init__(1)
        self.before, self.passes = before, 0

    def run(self, program: Program, profile: bool = False) -> None:
        self.passes += 1
        if self.passes % 2 and self.before:
            raise KeyboardInterrupt
        super().run(program, profile)
        if self.passes % 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("before", [True, False])
def test_an_interrupted_step_is_taken_again(before: bool) -> None:
    """A KeyboardInterrupt just before or after the pass itself: the next step begins where this one did."""
    prompts = [PROMPTS[4], PROMPTS[2], tiny.ids(100)]
    params = SamplingParams(ignore_eos=True, max_new_tokens=12)
    alone = [[t.id for t in tiny.engine(weights()).generate(p, params)] for p in prompts]
    engine = tiny.engine(weights(), speculate=True, pool=Interrupted(before))
    requests = [engine.add(Request(p, params)) for p in prompts]
    while engine.has_work:
        with suppress(KeyboardInterrupt):
            engine.step()
    assert [r.generated for r in requests] == alone


def test_close_ends_the_threads(engine: Engine) -> None:
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        answer(engine, tiny.ids(3))


def test_rows_of_logits_are_copies_when_returned(engine: Engine) -> None:
    first = engine.logits(tiny.ids(9))
    kept = first.copy()
    engine.logits(tiny.ids(9, 5))
    assert same(first, kept)
