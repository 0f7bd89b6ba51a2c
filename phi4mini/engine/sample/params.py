"""Sampling parameters of one request, checked when they are made.

Promise: a SamplingParams that exists is valid, except that it does not know the vocabulary: `check_vocabulary` refuses
ids beyond it. It knows neither the model's end ids nor any text: stop strings and defaults belong to llm/.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from phi4mini.errors import BadInput

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

MAX_TOP_LOGPROBS = 20
MIN_SEED, MAX_SEED = -(2**63), 2**64 - 1  # any 64 bits, signed or unsigned
RANDOM_SEED = -1  # as in llama.cpp and Ollama: draw a seed
_MAX_TOKENS = 2**31 - 1
_MAX_BIASED = 1024


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the answer is drawn. Raises BadInput naming the parameter and its range.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1 and `min_p` 0 are off. `repetition_penalty` is Hugging Face's (over
    prompt and answer: positive logits divided, negative multiplied); `frequency_penalty` and `presence_penalty` are
    OpenAI's (over the answer: subtracted per occurrence, and once). `seed` None or -1 draws one: see `with_seed`.
    `stop_ids` end the answer as the model's own end ids do; with `ignore_eos` the model's own do not. Both kinds are
    banned until `min_new_tokens`. `banned_ids` are never drawn. `logprobs` and `prompt_logprobs` ask for that many
    alternatives a token; 0 gives the token's own value alone, None nothing.
    """

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_new_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    banned_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _number("temperature", self.temperature, 0.0, 100.0)
        _number("top_p", self.top_p, 0.0, 1.0)
        _number("min_p", self.min_p, 0.0, 1.0)
        _number("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _integer("top_k", self.top_k, 0, _MAX_TOKENS)
        _integer("min_new_tokens", self.min_new_tokens, 0, _MAX_TOKENS)
        _integer("max_new_tokens", self.max_new_tokens, 1, _MAX_TOKENS, optional=True)
        _integer("seed", self.seed, MIN_SEED, MAX_SEED, optional=True)
        _integer("logprobs", self.logprobs, 0, MAX_TOP_LOGPROBS, optional=True)
        _integer("prompt_logprobs", self.prompt_logprobs, 0, MAX_TOP_LOGPROBS, optional=True)
        if not isinstance(self.ignore_eos, bool):
            raise BadInput(f"ignore_eos must be true or false, not {_shown(self.ignore_eos)}")
        object.__setattr__(self, "stop_ids", _id_tuple("stop_ids", self.stop_ids))
        object.__setattr__(self, "banned_ids", _id_tuple("banned_ids", self.banned_ids))
        object.__setattr__(self, "logit_bias", _bias("logit_bias", self.logit_bias))
        if self.max_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise BadInput(f"min_new_tokens {self.min_new_tokens} is above max_new_tokens {self.max_new_tokens}")

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise BadInput for ids that a vocabulary of this size does not have."""
        for name in ("logit_bias", "stop_ids", "banned_ids"):
            beyond = next((i for i in getattr(self, name) if i >= vocab_size), None)
            if beyond is not None:
                raise BadInput(f"{name}: id {beyond} is beyond the model's last id {vocab_size - 1}")

    def with_seed(self) -> SamplingParams:
        """The same parameters with a seed: drawn once per request, so that it can be reported and used again."""
        return self if self.seed not in (None, RANDOM_SEED) else replace(self, seed=random_seed())

    @cached_property
    def bias_arrays(self) -> tuple[Ids, Floats]:
        """`logit_bias` as ids and float32 values."""
        return np.array(list(self.logit_bias), np.int64), np.array(list(self.logit_bias.values()), np.float32)

    @cached_property
    def banned_array(self) -> Ids:
        """`banned_ids` as an array."""
        return np.array(self.banned_ids, np.int64)


def random_seed() -> int:
    """A seed for a request that names none: 53 bits, which every JSON reader keeps exactly."""
    return secrets.randbits(53)


def _shown(value: object) -> str:
    """The value as an error message shows it: at most 40 characters."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number beyond 20 digits"  # repr of an int beyond 4300 digits raises
    if isinstance(value, Sized) and len(value) > 40:
        return f"a {type(value).__name__} of length {len(value)}"
    return f"{value!r:.40}"


def _number(name: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]  # NaN fails the comparison
        raise BadInput(f"{name} must be a number from {low:g} to {high:g}, not {_shown(value)}")


def _integer(name: str, value: object, low: int, high: int, *, optional: bool = False) -> None:
    if optional and value is None:
        return
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not low <= value <= high:
        raise BadInput(f"{name} must be an integer from {low} to {high}, not {_shown(value)}")


def _id_tuple(name: str, ids: object) -> tuple[int, ...]:
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise BadInput(f"{name} must be a list of token ids, not {_shown(ids)}")
    ids = tuple(ids)
    for token in ids:
        _integer(f"each id of {name}", token, 0, _MAX_TOKENS)
    return tuple(map(int, ids))


def _bias(name: str, bias: object) -> dict[int, float]:
    if not isinstance(bias, Mapping) or len(bias) > _MAX_BIASED:
        raise BadInput(f"{name} must map at most {_MAX_BIASED} token ids to numbers, not {_shown(bias)}")
    for token, value in bias.items():
        _integer(f"each id of {name}", token, 0, _MAX_TOKENS)
        _number(f"{name}[{token}]", value, -100.0, 100.0)
    return {int(token): float(value) for token, value in bias.items()}
