"""Seeds as clients have them: any signed 64 bits, -1 for one that is drawn."""

from __future__ import annotations

import pytest

from phi4mini.engine.sample.params import SamplingParams
from phi4mini.engine.sample.sampling import _uniform
from phi4mini.server.dialects.sampling_fields import seed_of
from tests.server.process import CHAT

HI = [{"role": "user", "content": "Tell me a story."}]
SEEDS = [0, 1, -2, -3, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63), 1234567890123456789, -1234567890123456789]


@pytest.mark.parametrize("seed", SEEDS)
def test_RQ36_any_signed_64_bit_seed_is_taken_and_reported(demo, seed):
    body = {"messages": HI, "max_tokens": 6, "temperature": 1.5, "seed": seed}
    first, again = demo.ask(CHAT, body), demo.ask(CHAT, body)
    assert first.status == 200 and first.json["seed"] == seed == again.json["seed"] and first.text == again.text


def test_RQ36_minus_one_is_random_and_the_seed_in_use_is_reported(demo):
    body = {"messages": HI, "max_tokens": 6, "temperature": 1.5, "seed": -1}
    seeds = [demo.ask(CHAT, body) for _ in range(3)]
    assert len({answer.json["seed"] for answer in seeds}) == 3 and all(answer.json["seed"] >= 0 for answer in seeds)
    assert demo.ask(CHAT, body | {"seed": seeds[0].json["seed"]}).text == seeds[0].text


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, 1.5, "1", True, [1]])
def test_RQ36_what_is_no_signed_64_bit_number_is_refused(demo, seed):
    answer = demo.ask(CHAT, {"messages": HI, "max_tokens": 1, "seed": seed})
    assert answer.status == 400 and answer.json["error"]["param"] == "seed"


def test_RQ36_several_choices_have_seeds_of_their_own():
    for first in SEEDS:
        made = [seed_of(first, index) for index in range(8)]
        assert made[0] == first and len(set(made)) == 8 and -1 not in made
        assert all(-(2**63) <= seed < 2**63 for seed in made)
    assert [seed_of(-3, index) for index in range(4)] == [-3, -2, 0, 1]
    assert {seed_of(-1, index) for index in range(4)} == {-1}
    assert seed_of(2**63 - 1, 1) == 0


def test_RQ36_a_negative_seed_draws_as_the_same_64_bits_do():
    for seed in SEEDS:
        assert _uniform(seed, 3) == _uniform(seed % 2**64, 3)
    assert SamplingParams(seed=2**64 - 1).with_seed().seed == 2**64 - 1
    assert SamplingParams(seed=-1).with_seed().seed not in (None, -1)
