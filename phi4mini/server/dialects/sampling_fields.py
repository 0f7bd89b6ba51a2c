"""Fields that every dialect's body has under one name or another, and what they mean to a run.

Promise: what is out of range is refused here, before a token is made, by the name that the body uses for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from phi4mini.engine.sample.params import RANDOM_SEED
from phi4mini.server.http.errors import ApiError

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Some = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]  # -1 draws one
Id = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
StopText = Annotated[str, Meta(min_length=1, max_length=256)]
Stops = Annotated[list[StopText], Meta(max_length=16)]
Alternatives = Annotated[int, Meta(ge=0, le=20)]
Deadline = Annotated[float, Meta(ge=0.001, le=86400)]  # seconds, as in the header X-Timeout
Text = Annotated[str, Meta(max_length=8 << 20)]


class SamplingFields(msgspec.Struct, kw_only=True):
    """How an answer is drawn. What is left out is off: greedy, no penalty, until the model ends or the context does."""

    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Share | None = None
    seed: Seed | None = None
    stop: StopText | Stops | None = None
    logit_bias: dict[str, Bias] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[Id], Meta(max_length=64)] | None = None
    prompt_logprobs: Alternatives | None = None
    rope: Literal["auto", "short", "long"] | None = None
    cache_salt: Annotated[str, Meta(max_length=256)] | None = None
    timeout: Deadline | None = None
    return_progress: bool | None = None
    user: str | None = None

    def sampling(self, max_tokens: int | None, logprobs: int | None, index: int = 0) -> dict[str, Any]:
        """Keywords of `Run`. Choice `index` of several has a seed of its own, the next ones after the one given."""
        given = {
            "max_new_tokens": max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": max(self.top_k, 0) if self.top_k is not None else None,
            "min_p": self.min_p,
            "seed": None if self.seed is None else seed_of(self.seed, index),
            "stop": [self.stop] if isinstance(self.stop, str) else self.stop,
            "logit_bias": self._bias(),
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "repetition_penalty": self.repetition_penalty,
            "min_new_tokens": self.min_tokens,
            "ignore_eos": self.ignore_eos,
            "stop_ids": self.stop_token_ids,
            "logprobs": logprobs,
            "prompt_logprobs": self.prompt_logprobs,
            "rope": self.rope,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _bias(self) -> dict[int, float] | None:
        if self.logit_bias is None:
            return None
        if len(self.logit_bias) > 1024:
            count = len(self.logit_bias)
            raise ApiError(400, f"logit_bias has {count} entries; at most 1024 are allowed", param="logit_bias")
        for key in self.logit_bias:
            if not (key.isascii() and key.isdigit() and len(key) < 8):
                raise ApiError(400, f"logit_bias: {key[:40]!r} is not a token id", param="logit_bias")
        return {int(key): value for key, value in self.logit_bias.items()}


def seed_of(first: int, index: int) -> int:
    """The seed of choice `index` where `first` was given: the ones after it, without -1, which asks for a random one.

    After the last of 63 bits comes 0.
    """
    if first == RANDOM_SEED:
        return RANDOM_SEED
    seed = first + index + (first < RANDOM_SEED <= first + index)
    return seed if seed < 2**63 else seed - 2**63


NAMES = {  # our parameter -> the field, for errors found further down
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "stop_ids": "stop_token_ids",
}


def merged(limits: Mapping[str, int | None]) -> int | None:
    """The one value of fields that mean the same; 400 if two are given and differ."""
    given = {name: value for name, value in limits.items() if value is not None}
    if len(set(given.values())) > 1:
        names = " and ".join(given)
        raise ApiError(400, f"{names} mean the same and differ", param=next(iter(given)), code="invalid_value")
    return next(iter(given.values()), None)
