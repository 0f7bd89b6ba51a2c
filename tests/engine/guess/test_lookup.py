"""Guesses from a request's own text: what is guessed, how the width follows success, and that no answer changes."""

from __future__ import annotations

import math

import pytest

from phi4mini.engine.engine import Engine
from phi4mini.engine.guess.guesser import MOST
from phi4mini.engine.guess.lookup import ROW, Lookup
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.weights.store.store import open_store


def test_what_followed_before_is_guessed():
    ids = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3]
    assert Lookup().guess(ids, 3) == [4, 5, 6]


def test_the_place_with_the_longest_common_past_wins():
    ids = [9, 1, 2, 3, 50, 51, 52, 8, 1, 2, 3, 60, 61, 62, 9, 1, 2, 3]
    assert Lookup().guess(ids, MOST)[0] == 50


def test_new_text_gives_no_guess():
    assert Lookup().guess(list(range(100)), MOST) == []
    assert Lookup().guess([1, 2], MOST) == [] and Lookup().guess([1], MOST) == []


def test_the_width_follows_success():
    long, short = [*range(40), *range(12)], [*range(40), 4, 5]
    trusted, failing = Lookup(), Lookup()
    assert len(trusted.guess(long, MOST)) == MOST and len(trusted.guess(long, 2)) == 2
    assert 1 <= len(failing.guess(short, MOST)) < MOST
    for _ in range(30):
        failing.guess(short, MOST)
        failing.learn(4, 0)
    assert failing.guess(short, MOST) == []
    assert len(failing.guess(long, MOST)) == MOST  # how two shared tokens fail says nothing of twelve
    lucky = Lookup()
    for _ in range(30):
        lucky.guess(short, MOST)
        lucky.learn(MOST, MOST)
    assert len(lucky.guess(short, MOST)) == MOST


def test_a_guess_is_as_long_as_it_pays():
    """Against the formula of the module's head, on all lengths."""
    guesser, ids = Lookup(), [*range(40), 4, 5, 6]
    made = guesser.guess(ids, MOST)
    chances = [0.45, 0.6, 0.7, 0.8, 0.85, 0.9, 0.9]  # after 3, 4, ... shared tokens
    gains = [(1 + sum(math.prod(chances[:i]) for i in range(1, n + 1))) / (1 + n * ROW) for n in range(MOST + 1)]
    assert made == ids[7 : 7 + gains.index(max(gains))] and len(made) > 2


def test_a_guess_that_was_not_made_teaches():
    """One shared token is no reason to guess, until what would have been guessed has come true."""
    guesser, ids = Lookup(), [*range(1, 9), 50, 1]
    assert guesser.guess(ids, MOST) == []
    ids.append(2)
    guesser.guess(ids, MOST)
    ids += [60, 5]
    assert guesser.guess(ids, MOST)[:1] == [6]
    assert Lookup().guess(ids, MOST) == [], "one that has seen nothing come true does not"


def test_the_index_grows_with_the_text():
    guesser, ids = Lookup(), [1, 2, 3, 4]
    assert guesser.guess(ids, MOST) == []
    ids += [9, 8, 1, 2, 3]
    assert guesser.guess(ids, MOST)[:1] == [4]


@pytest.fixture(scope="module")
def engines(demo_store):
    """The demo with and without speculation."""
    opened = open_store(demo_store("q4"))
    pair = Engine(opened.weights), Engine(opened.weights, speculate=False)
    yield *pair, opened.tokenizer
    for engine in pair:
        engine.close()


ROWS = [f'{{"id": {i}, "task": "water the plants in room {i}", "done": false}}' for i in range(12)]
TASK = 'Copy this JSON and set every "done" to true:\n[' + ",\n".join(ROWS) + "]"
PROMPTS = {
    "copy": f"<|im_start|>user\n{TASK}<|im_end|>\n<|im_start|>assistant\n",
    "prose": "<|im_start|>user\nTell me a story about a lighthouse keeper.<|im_end|>\n<|im_start|>assistant\n",
}


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("kind", PROMPTS)
def test_the_answer_is_the_same(engines, kind, temperature):
    with_guesses, without, tokenizer = engines
    ids = tokenizer.encode(PROMPTS[kind], parse_special=True)
    params = SamplingParams(max_new_tokens=120, temperature=temperature, seed=3, logprobs=2)
    told = [[(t.id, t.logprob, t.top) for t in engine.generate(ids, params)] for engine in (with_guesses, without)]
    assert told[0] == told[1]


def test_copying_takes_far_fewer_passes(engines):
    engine, _, tokenizer = engines
    ids = tokenizer.encode(PROMPTS["copy"], parse_special=True)
    request = engine.add(Request(ids, SamplingParams(max_new_tokens=200)))
    passes = 0
    while request.finish_reason is None:
        engine.step()
        passes += 1
    assert len(request.generated) > 2.5 * passes


def test_guesses_stop_at_what_may_still_come(engines):
    engine, _, tokenizer = engines
    ids = tokenizer.encode(PROMPTS["copy"], parse_special=True)
    for limit in (1, 2, 5, 33):
        assert len(list(engine.generate(ids, SamplingParams(max_new_tokens=limit, ignore_eos=True)))) == limit
    assert engine.pages.free == engine.pages.count
