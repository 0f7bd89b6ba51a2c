"""What is sent back, as types: OpenAI's chat and text completions. The OpenAPI document is made from them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

FinishReason = Literal["stop", "length", "tool_calls"]


class _Sent(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Fields that are not there are left out, except where a type says null."""


class CachedTokens(msgspec.Struct):
    """Of the prompt, what an earlier request had left in the cache."""

    cached_tokens: int


class Usage(_Sent):
    """Tokens of a request, all its choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class Function(msgspec.Struct):
    """What is called, its arguments as JSON text."""

    name: str
    arguments: str


class Called(msgspec.Struct):
    """One tool call."""

    id: str
    function: Function
    type: Literal["function"] = "function"


class Said(_Sent):
    """The assistant's message."""

    role: Literal["assistant"]
    content: str | None
    tool_calls: list[Called] | msgspec.UnsetType = msgspec.UNSET
    refusal: None = None


class TopLogprob(msgspec.Struct):
    """A token that might have been."""

    token: str
    logprob: float
    bytes: list[int]


class Logprob(msgspec.Struct):
    """A token of the answer, with the likeliest ones at its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class Logprobs(msgspec.Struct):
    """Of all tokens of a message."""

    content: list[Logprob]


class Choice(msgspec.Struct):
    """One of n answers."""

    index: int
    message: Said
    finish_reason: FinishReason
    logprobs: Logprobs | None = None


class ChatCompletion(_Sent):
    """An answer to POST /v1/chat/completions."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    object: Literal["chat.completion"]
    system_fingerprint: str
    timings: dict[str, Any]
    seed: int
    prompt_logprobs: list[Any] | msgspec.UnsetType = msgspec.UNSET


class TextLogprobs(msgspec.Struct):
    """As the completions API spells them."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(_Sent):
    """One continuation."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: TextLogprobs | None
    prompt_logprobs: list[Any] | msgspec.UnsetType = msgspec.UNSET


class TextCompletion(_Sent):
    """An answer to POST /v1/completions."""

    id: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    object: Literal["text_completion"]
    system_fingerprint: str
    timings: dict[str, Any]
    seed: int
