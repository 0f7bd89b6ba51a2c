"""The sampling fields that the bodies of all dialects share, and their translation to keywords of a run.

Names and bounds come from the table of knobs (`llm/keywords.py`). Promise: a value out of range is refused before a
token is made, under the name that the body has for the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from phi4mini.engine.sample.params import RANDOM_SEED
from phi4mini.llm.keywords import BY_NAME, KNOBS, MAX_COUNT, Rope
from phi4mini.server.http.errors import ApiError


def within(name: str) -> Meta:
    """The bounds of a knob over HTTP."""
    knob = BY_NAME[name]
    return Meta(ge=knob.low, le=knob.high if knob.wire_high is None else knob.wire_high)


Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Some = Annotated[int, within("max_new_tokens")]
Seed = Annotated[int, within("seed")]  # -1 draws one
Id = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Temperature = Annotated[float, within("temperature")]
TopK = Annotated[int, within("top_k")]
TopP = Annotated[float, within("top_p")]
MinP = Annotated[float, within("min_p")]
FrequencyPenalty = Annotated[float, within("frequency_penalty")]
PresencePenalty = Annotated[float, within("presence_penalty")]
RepetitionPenalty = Annotated[float, within("repetition_penalty")]
Bias = Annotated[float, within("logit_bias")]
StopText = Annotated[str, Meta(min_length=1, max_length=256)]
Stops = Annotated[list[StopText], Meta(max_length=16)]
Alternatives = Annotated[int, within("logprobs")]
Deadline = Annotated[float, Meta(ge=0.001, le=86400)]  # seconds, as in the header X-Timeout
Text = Annotated[str, Meta(max_length=8 << 20)]


class SamplingFields(msgspec.Struct, kw_only=True):
    """How an answer is drawn. A field left out is off: greedy, no penalty, until the model ends or the context does."""

    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    seed: Seed | None = None
    stop: StopText | Stops | None = None
    logit_bias: dict[str, Bias] | None = None
    frequency_penalty: FrequencyPenalty | None = None
    presence_penalty: PresencePenalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    min_tokens: Annotated[int, within("min_new_tokens")] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[Annotated[int, within("stop_ids")]], Meta(max_length=64)] | None = None
    prompt_logprobs: Annotated[int, within("prompt_logprobs")] | None = None
    rope: Rope | None = None
    cache_salt: Annotated[str, Meta(max_length=256)] | None = None
    timeout: Deadline | None = None
    return_progress: bool | None = None
    user: str | None = None

    def sampling(self, max_tokens: int | None, logprobs: int | None, index: int = 0) -> dict[str, Any]:
        """Keywords of `Run`. Choice `index` of several has a seed of its own: the seeds after the one given."""
        given = {name: getattr(self, field) for name, field in _FIELD_OF.items()}
        given |= {"max_new_tokens": max_tokens, "logprobs": logprobs, "logit_bias": self._bias()}
        if self.seed is not None:
            given["seed"] = seed_of(self.seed, index)
        if isinstance(self.stop, str):
            given["stop"] = [self.stop]
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


_FIELD_OF = {knob.name: knob.openai for knob in KNOBS if knob.openai in SamplingFields.__struct_fields__}


def seed_of(first: int, index: int) -> int:
    """The seed of choice `index` when the request gives `first`: counted up from it, skipping -1, which means random.

    A signed 64-bit seed wraps around.
    """
    if first == RANDOM_SEED:
        return RANDOM_SEED
    seed = first + index + (first < RANDOM_SEED <= first + index)
    return seed if seed < 2**63 else seed - 2**63


# our keyword -> the field, where they differ, for the errors of the rooms below
NAMES = {knob.name: knob.openai for knob in KNOBS if knob.openai not in ("", knob.name)}


def merged(limits: Mapping[str, int | None]) -> int | None:
    """The value of several fields that mean the same. Raises 400 if two are given and differ."""
    given = {name: value for name, value in limits.items() if value is not None}
    if len(set(given.values())) > 1:
        names = " and ".join(given)
        raise ApiError(400, f"{names} mean the same and differ", param=next(iter(given)), code="invalid_value")
    return next(iter(given.values()), None)
