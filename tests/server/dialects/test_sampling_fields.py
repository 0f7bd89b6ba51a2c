"""Bounds are the table's in every dialect; seeds are any signed 64 bits, -1 for a random one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from phi4mini.engine.sample.params import SamplingParams
from phi4mini.engine.sample.sampling import _uniform
from phi4mini.llm.keywords import KNOBS, Knob
from phi4mini.server.dialects.anthropic.messages import MessagesBody
from phi4mini.server.dialects.ollama.bodies import OllamaChatBody, Options
from phi4mini.server.dialects.openai.chat import ChatBody
from phi4mini.server.dialects.openai.completions import CompletionBody
from phi4mini.server.dialects.openai.responses import InputBody
from phi4mini.server.dialects.sampling_fields import NAMES, seed_of
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


# ---- the table of knobs: every dialect has its names with its bounds

BODIES: list[tuple[type[msgspec.Struct], str]] = [
    (ChatBody, "openai"),
    (CompletionBody, "openai"),
    (InputBody, "openai"),
    (MessagesBody, "anthropic"),
    (Options, "ollama"),
]
ELSEWHERE = {  # a field that a body has under another name, or outside the struct that is looked at
    (ChatBody, "logprobs"): (ChatBody, "top_logprobs"),
    (InputBody, "max_tokens"): (InputBody, "max_output_tokens"),
    (InputBody, "logprobs"): (InputBody, "top_logprobs"),
    (Options, "top_logprobs"): (OllamaChatBody, "top_logprobs"),
}
MEANING_MORE = {  # a bound lower than the table's, for a value with a meaning of its own
    (CompletionBody, "max_tokens"): 0,  # with echo: the prompt's log-probabilities alone
    (Options, "num_predict"): -2,  # no limit
}


def bounds(kind: Any) -> tuple[float | None, float | None]:
    """Of a number, or of the numbers of a list or of a mapping's values; of a union, those of its bounded part."""
    if isinstance(kind, msgspec.inspect.UnionType):
        return next((found for found in map(bounds, kind.types) if found != (None, None)), (None, None))
    if isinstance(kind, msgspec.inspect.ListType):
        return bounds(kind.item_type)
    if isinstance(kind, msgspec.inspect.DictType):
        return bounds(kind.value_type)
    return getattr(kind, "ge", None), getattr(kind, "le", None)


def rows() -> list[Any]:
    named = [(body, dialect, knob) for body, dialect in BODIES for knob in KNOBS if getattr(knob, dialect)]
    return [pytest.param(*row, id=f"{row[0].__name__}-{row[2].name}") for row in named]


@pytest.mark.parametrize(("body", "dialect", "knob"), rows())
def test_every_dialect_has_the_tables_bounds(body: type[msgspec.Struct], dialect: str, knob: Knob):
    name = getattr(knob, dialect)
    owner, field = ELSEWHERE.get((body, name), (body, name))
    kinds = {f.encode_name: f.type for f in msgspec.inspect.type_info(owner).fields}
    assert field in kinds, f"{owner.__name__} has no field {field}"
    low, high = (None, None) if knob.low is None else bounds(kinds[field])
    assert low == MEANING_MORE.get((body, name), knob.low)
    assert high == (knob.high if knob.wire_high is None else knob.wire_high)


@pytest.mark.parametrize("body", [body for body, _ in BODIES], ids=lambda body: body.__name__)
def test_no_dialect_has_a_bounded_field_that_the_table_lacks(body: type[msgspec.Struct]):
    names = {getattr(knob, dialect) for knob in KNOBS for dialect in ("openai", "anthropic", "ollama")}
    names |= {field for _, field in ELSEWHERE.values()}
    others = {"max_completion_tokens", "n", "best_of", "timeout", "num_ctx"}  # bounded, and no knob of sampling
    fields = {f.encode_name: bounds(f.type) for f in msgspec.inspect.type_info(body).fields}
    assert {name for name, found in fields.items() if found != (None, None)} <= names | others


def test_a_field_of_the_errors_is_the_tables():
    assert NAMES == {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens", "stop_ids": "stop_token_ids"}


def test_a_body_becomes_keywords():
    given: dict[str, Any] = {"temperature": 0, "top_k": -1, "seed": 0, "stop": "a", "logit_bias": {"5": 1}}
    given |= {"min_tokens": 2, "stop_token_ids": [3], "repetition_penalty": 1.1, "rope": "long", "ignore_eos": False}
    body = msgspec.convert({"messages": [], **given}, ChatBody)
    assert body.sampling(7, None, 1) == {
        "max_new_tokens": 7,
        "temperature": 0,
        "top_k": -1,
        "seed": 1,
        "stop": ["a"],
        "logit_bias": {5: 1.0},
        "min_new_tokens": 2,
        "stop_ids": [3],
        "repetition_penalty": 1.1,
        "rope": "long",
        "ignore_eos": False,
    }
