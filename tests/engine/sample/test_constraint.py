"""Answers under a constraint: masks are obeyed, forced ids cost no pass of their own, the ids are always the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.engine.engine import Engine
from phi4mini.engine.request import Request, Token
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.engine.sample.sampling import History, sample
from phi4mini.errors import BadInput
from phi4mini.model.arrays import Weights
from tests import tiny
from tests.engine import reuse
from tests.engine.constraints import Failing, OneOf, Rhythm, mask_of

CTX = 512


@cache
def weights(format: str = "q4") -> Weights:
    return tiny.weights(tiny.config(), format)


def engine(**changes: Any) -> Engine:
    return tiny.engine(weights(), ctx=CTX, **changes)


def told(made: Engine, request: Request) -> tuple[list[Token], int]:
    """A request's tokens as they are handed out, and in how many steps."""
    made.add(request)
    tokens, steps = [], 0
    while made.has_work:
        tokens += made.step()
        steps += 1
    return tokens, steps


# what is drawn ---------------------------------------


def test_only_what_the_mask_allows_is_drawn() -> None:
    sequences = [tiny.ids(6, seed) for seed in range(12)]
    seen = set()
    for seed in range(12):
        params = SamplingParams(temperature=2.0, seed=seed)
        tokens, _ = told(engine(), Request(tiny.ids(9), params, constraint=OneOf(sequences)))
        ids = [t.id for t in tokens]
        assert ids in sequences
        assert [(t.finish, t.complete) for t in tokens] == [(None, False)] * 5 + [("stop", True)]
        seen.add(tuple(ids))
    assert len(seen) > 3


def test_the_end_id_is_the_constraints_to_allow() -> None:
    """Held back by nothing else, not even min_new_tokens; where it is not allowed, no bias brings it."""
    ended = OneOf([tiny.ids(3, 1), tiny.ids(3, 2)], end=tiny.EOS)
    tokens, _ = told(engine(), Request(tiny.ids(9), SamplingParams(min_new_tokens=9), constraint=ended))
    assert len(tokens) == 4 and tokens[-1].id == tiny.EOS
    assert (tokens[-1].finish, tokens[-1].complete) == ("stop", False)
    wanting = SamplingParams(logit_bias={tiny.EOS: 100.0}, max_new_tokens=20)
    tokens, _ = told(engine(), Request(tiny.ids(9), wanting, constraint=Rhythm()))
    assert len(tokens) == 20 and all(t.id != tiny.EOS for t in tokens)


def test_a_finished_answer_stops_although_the_end_id_is_ignored() -> None:
    ended = OneOf([tiny.ids(3, 1), tiny.ids(3, 2)], end=tiny.EOS)
    tokens, _ = told(engine(), Request(tiny.ids(9), SamplingParams(ignore_eos=True), constraint=ended))
    assert len(tokens) == 4 and tokens[-1].finish == "stop" and not tokens[-1].complete


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    vocab=st.sampled_from([31, 160, 5000]),
    temperature=st.sampled_from([0.0, 1.0]),
    top_p=st.sampled_from([1.0, 0.9]),
    share=st.sampled_from([0.001, 0.3, 0.99]),
)
def test_a_mask_is_a_ban_on_all_others(seed: int, vocab: int, temperature: float, top_p: float, share: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal(vocab).astype(np.float32)
    allowed = rng.random(vocab) < share
    allowed[rng.integers(vocab)] = True
    given = {"temperature": temperature, "top_p": top_p, "logprobs": 2, "logit_bias": {3: 2.0}}
    banned = SamplingParams(banned_ids=tuple(np.flatnonzero(~allowed)), **given)
    before, mask = logits.copy(), mask_of(np.flatnonzero(allowed), vocab)
    got = sample(logits, SamplingParams(**given), History([1]), 5, seed, (), mask)
    assert got == sample(logits, banned, History([1]), 5, seed)
    assert allowed[got.id] and np.array_equal(logits, before)


# what is forced ---------------------------------------

HEAD, LEFT, RIGHT = tiny.ids(5, 1), tiny.ids(11, 2), tiny.ids(11, 3)


def test_forced_ids_take_no_pass_of_their_own() -> None:
    """One pass finds the prompt followed by what all answers begin with, one decides; the rest is known."""
    for logprobs, steps in ((None, 2), (0, 16)):
        constraint = OneOf([[*HEAD, *LEFT], [*HEAD, *RIGHT]])
        tokens, took = told(engine(), Request(tiny.ids(9), SamplingParams(logprobs=logprobs), constraint=constraint))
        assert [t.id for t in tokens] in ([*HEAD, *LEFT], [*HEAD, *RIGHT])
        assert took == steps and constraint.masks == 1
    whole, took = told(engine(), Request(tiny.ids(9), SamplingParams(), constraint=OneOf([HEAD])))
    assert [t.id for t in whole] == HEAD and took == 1


def test_forced_ids_have_their_own_logprobs() -> None:
    prompt = tiny.ids(9)
    request = Request(prompt, SamplingParams(logprobs=1), constraint=OneOf([HEAD]))
    made = engine()
    tokens, _ = told(made, request)
    scored = made.logprobs([*prompt, *HEAD])[-5:]
    assert [t.logprob for t in tokens] == pytest.approx(scored.tolist(), abs=1e-6)


@pytest.mark.parametrize("logprobs", [None, 0])
@pytest.mark.parametrize(("params", "count", "why"), [
    ({"max_new_tokens": 3}, 3, "length"),
    ({"stop_ids": (HEAD[3],)}, 4, "stop"),
    ({}, 4, "length"),
])  # fmt: skip
def test_a_forced_run_ends_where_an_answer_does(
    params: dict[str, Any], count: int, why: str, logprobs: int | None
) -> None:
    prompt = tiny.ids(9 if params else CTX - 4)
    constraint = OneOf([[*HEAD, *LEFT], [*HEAD, *RIGHT]])
    request = Request(prompt, SamplingParams(logprobs=logprobs, **params), constraint=constraint)
    tokens, _ = told(engine(), request)
    assert [t.id for t in tokens] == request.generated == HEAD[:count]
    assert [t.finish for t in tokens] == [None] * (count - 1) + [why] and not tokens[-1].complete


def test_an_end_id_in_a_forced_run_ends_it() -> None:
    constraint = OneOf([[*HEAD, tiny.EOS, *LEFT]])
    tokens, _ = told(engine(), Request(tiny.ids(9), SamplingParams(), constraint=constraint))
    assert [t.id for t in tokens] == [*HEAD, tiny.EOS] and tokens[-1].finish == "stop"


# always the same ---------------------------------------

ASKS: list[tuple[int, dict[str, Any]]] = [
    (5, {}),
    (50, {"temperature": 1.0, "top_p": 0.9}),
    (63, {"temperature": 0.7}),
    (180, {"temperature": 1.2, "repetition_penalty": 1.1}),
]


def requests(**changes: Any) -> list[Request]:
    """Prompts on both sides of LongRoPE's 64, that repeat themselves and what a constraint may force."""
    made = []
    for n, (length, params) in enumerate(ASKS):
        ids = (tiny.ids(11, 4) + tiny.ids(5, 100) + tiny.ids(9, 8)) * 8
        given = SamplingParams(**{"max_new_tokens": 45, "seed": n, **params, **changes})
        made.append(Request(ids[:length], given, constraint=Rhythm()))
    return made


def answers(made: Engine, asked: list[Request]) -> list[list[int]]:
    found = tiny.finish(made, [made.add(r) for r in asked])
    assert made.pages.free == made.pages.count
    assert all(r.finish_reason == "length" for r in asked)
    return found


@cache
def alone() -> list[list[int]]:
    """Each by itself, one token a pass."""
    return [answers(engine(), [r])[0] for r in requests(logprobs=0)]


def one_by_one(made: Engine) -> list[list[int]]:
    return [answers(made, [r])[0] for r in requests()]


WAYS: dict[str, Callable[[], list[list[int]]]] = {
    "forced runs": lambda: one_by_one(engine()),
    "guessing": lambda: one_by_one(engine(speculate=True)),
    "guessing with logprobs": lambda: answers(engine(speculate=True), requests(logprobs=2)),
    "together": lambda: answers(engine(), requests()),
    "together, guessing": lambda: answers(engine(speculate=True), requests()),
    "two threads": lambda: answers(engine(threads=2), requests()),
    "two at a time": lambda: answers(engine(running=2, speculate=True), requests()),
    "reused": lambda: [answers(reuse.engine(), requests()) for _ in range(2)][1],
}


@pytest.mark.parametrize("way", WAYS)
def test_the_ids_are_the_same(way: str) -> None:
    assert WAYS[way]() == alone()


@pytest.mark.parametrize("rows", [5, 30])
def test_the_ids_are_the_same_in_chunks(rows: int) -> None:
    assert answers(engine(speculate=True, rows=rows), requests()) == alone()


def test_the_ids_are_the_same_after_preemption() -> None:
    """Pages for one, so that some are preempted; and every request is preempted at some place of its answer."""
    made, asked, back = engine(pages=5, speculate=True), requests(), []
    for request in asked:
        made.add(request)
    for step in range(2000):
        if not made.has_work:
            break
        made.step()
        if step % 7 == 3 and made.scheduler.running:
            back.append(len(made.scheduler.running[-1].generated))
            made.scheduler.preempt(made.scheduler.running[-1])
    assert [r.generated for r in asked] == alone() and made.pages.free == 5
    assert len(set(back)) > 4 and made.load().preemptions > 4


def test_those_requests_are_about_what_they_say() -> None:
    """They have forced runs, also across LongRoPE's boundary, and guesses that are right and wrong beside them."""
    made, asked = engine(speculate=True), requests()
    steps = [told(made, r)[1] for r in asked]
    assert sum(steps) < 0.6 * 45 * len(asked)
    guessed, right = (sum(getattr(r.guesser, name) for r in asked) for name in ("guessed", "accepted"))
    assert 0 < right < guessed


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_E7_a_constraint_leaves_nothing_behind(temperature: float) -> None:
    """Before, after and beside a request with a constraint, one without answers as it does alone; and the reverse."""
    params = SamplingParams(max_new_tokens=30, temperature=temperature, seed=4, ignore_eos=True)

    def free() -> Request:
        return Request(tiny.ids(70), params)

    def bound() -> Request:
        return Request(tiny.ids(70), params, constraint=Rhythm())

    want = [answers(engine(), [make()])[0] for make in (free, bound)]
    assert want[0] != want[1]
    made = reuse.engine()
    for order in ((free, bound), (bound, free)):
        for make in order:
            assert answers(made, [make()])[0] == want[make is bound]
        assert answers(made, [make() for make in order]) == [want[make is bound] for make in order]


# what goes wrong ---------------------------------------


@pytest.mark.parametrize("speculate", [False, True])
@pytest.mark.parametrize("method", ["mask", "accept", "forced"])
def test_what_a_constraint_raises_ends_its_request_alone(method: str, speculate: bool) -> None:
    params = SamplingParams(max_new_tokens=45, seed=1)
    made = engine(speculate=speculate)
    others = requests()
    bad = Request(tiny.ids(40), params, constraint=Failing(method, 6))
    handed = []
    for request in (*others[:2], bad, *others[2:]):
        made.add(request)
    while made.has_work:
        handed += [t.id for t in made.step() if t.request is bad]
    assert bad.finish_reason == "error" and str(bad.error) == f"{method} went wrong" and not bad.seat.table
    whole = answers(engine(), [Request(tiny.ids(40), params, constraint=Rhythm())])[0]
    assert handed == bad.generated == whole[: len(handed)] and handed
    assert [r.generated for r in others] == alone()
    with pytest.raises(BadInput, match="went wrong"):
        list(made.tokens(Request(tiny.ids(40), params, constraint=Failing(method, 1))))


class Shown(Rhythm):
    """Always the same mask, whatever it is."""

    def __init__(self, shown: np.ndarray) -> None:
        super().__init__()
        self.shown = shown

    def mask(self) -> np.ndarray:
        return self.shown


@pytest.mark.parametrize(("shown", "banned", "message"), [
    (mask_of([]), (), "the constraint's mask is empty at position 9"),
    (mask_of([5]), (5,), "every id that the constraint allows at position 9 is banned"),
    (np.zeros(4, np.uint32), (), r"the constraint's mask is uint32 \(4,\); a vocabulary of 160 takes uint32 \(5,\)"),
    (np.zeros(5, np.int64), (), "the constraint's mask is int64"),
])  # fmt: skip
def test_a_mask_that_leaves_nothing_is_named(shown: np.ndarray, banned: tuple[int, ...], message: str) -> None:
    made = engine()
    with pytest.raises(BadInput, match=message):
        list(made.tokens(Request(tiny.ids(9), SamplingParams(banned_ids=banned), constraint=Shown(shown))))
    assert made.pages.free == made.pages.count and not made.has_work


# on the demo ---------------------------------------


@pytest.mark.parametrize("sampling", [{}, {"logprobs": 1}, {"temperature": 0.8, "seed": 3}])
def test_the_demos_text_is_whole_with_and_without_an_end_id(demo_gguf: Any, sampling: dict[str, Any]) -> None:
    """The last id is part of the text where the constraint ends the answer, and not where an end id does."""
    import phi4mini

    texts = [" the red house.", " the blue house."]
    with phi4mini.load("demo", ctx=256) as model:
        vocab, eos = model.config.vocab_size, model.config.eos_token_ids[0]
        for end in (None, eos):
            constraint = OneOf([model.tokenizer.encode(text) for text in texts], end, vocab)
            run = model.run(model.tokenizer.encode("He painted"), sampling, constraint=constraint)
            text = "".join(event.text for event in run.events(model.engine.tokens(run.request)))
            assert text in texts and run.request.finish_reason == "stop"
            assert model.tokenizer.encode(text) + [eos] * (end is not None) == run.request.generated
