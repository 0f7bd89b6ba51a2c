"""Any guesser may be put in the place of prompt lookup: it changes the number of passes and no token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest

from phi4mini.engine.guess.guesser import MOST, Guesser
from phi4mini.engine.guess.lookup import Lookup
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.model.arrays import Weights
from tests import tiny

PARAMS = {"greedy": SamplingParams(max_new_tokens=24, ignore_eos=True)}
PARAMS["sampled"] = SamplingParams(max_new_tokens=24, ignore_eos=True, temperature=1.0, seed=5)
PROMPT = tuple(tiny.ids(20, 8))


@cache
def weights() -> Weights:
    return tiny.weights(tiny.config(), "q4")


class Scripted:
    """Guesses from a text given beforehand, each `wrong`-th token changed."""

    def __init__(self, text: Sequence[int], wrong: int) -> None:
        self.text, self.wrong = list(text), wrong
        self.guessed = self.accepted = 0

    def guess(self, ids: Sequence[int], limit: int) -> list[int]:
        ahead = self.text[len(ids) : len(ids) + limit]
        return [3 + (t - 2) % 150 if self.wrong and at % self.wrong == 0 else t for at, t in enumerate(ahead, len(ids))]

    def learn(self, guessed: int, accepted: int) -> None:
        self.guessed += guessed
        self.accepted += accepted


@cache
def plain(kind: str) -> list[int]:
    made = tiny.engine(weights())
    return tiny.finish(made, [made.add(Request(list(PROMPT), PARAMS[kind]))])[0]


@pytest.mark.parametrize("kind", PARAMS)
@pytest.mark.parametrize("wrong", [0, 1, 2, 3, 5])
def test_no_guesser_changes_an_answer(kind: str, wrong: int) -> None:
    guesser: Guesser = Scripted([*PROMPT, *plain(kind)], wrong)
    made = tiny.engine(weights(), speculate=True)
    request = made.add(Request(list(PROMPT), PARAMS[kind], guesser=guesser))
    assert tiny.finish(made, [request]) == [plain(kind)]
    assert made.load().passes == 24 - guesser.accepted
    if wrong == 0:  # the first pass computes the prompt, then 8 tokens a pass
        assert guesser.accepted == guessed_at_best() and made.load().passes == 4
    if wrong == 1:
        assert guesser.guessed and not guesser.accepted


def guessed_at_best() -> int:
    """Guessed tokens of 23 that follow the first, when all are right and a pass yields MOST + 1."""
    return 23 - -(-23 // (MOST + 1))


def test_lookup_is_a_guesser_and_what_a_request_gets() -> None:
    guesser: Guesser = Lookup()
    assert (guesser.guessed, guesser.accepted) == (0, 0)
    assert isinstance(Request([1], SamplingParams()).guesser, Lookup)
