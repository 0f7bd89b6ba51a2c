"""Answers of OpenAI's APIs as types: chat completions, text completions, responses.

The OpenAPI document is made from them, so a class's name and first line are shown to its readers.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

FinishReason = Literal["stop", "length", "tool_calls", "function_call"]


class _Sent(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Unset fields are left out of the JSON, except where a type says null."""


class CachedTokens(msgspec.Struct):
    """Tokens of the prompt that were found in the prefix cache."""

    cached_tokens: int


class Usage(_Sent):
    """Tokens of a request, all its choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class Function(msgspec.Struct):
    """The called function; its arguments as JSON text."""

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
    function_call: Function | msgspec.UnsetType = msgspec.UNSET  # where `functions` were sent
    refusal: None = None


class TopLogprob(msgspec.Struct):
    """An alternative to a token."""

    token: str
    logprob: float
    bytes: list[int]


class Logprob(msgspec.Struct):
    """A token of the answer, with its likeliest alternatives."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class Logprobs(msgspec.Struct):
    """Log-probabilities of all tokens of a message."""

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
    """Log-probabilities in the form of the completions API."""

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


class InputDetails(msgspec.Struct):
    """Details of the input tokens."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct):
    """Details of the output tokens."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct):
    """Tokens of a request."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Incomplete(msgspec.Struct):
    """Why a response is not complete."""

    reason: Literal["max_output_tokens"]


class Response(msgspec.Struct, kw_only=True):
    """The response; `output` holds items of type message and function_call."""

    id: str
    created_at: int
    model: str
    status: Literal["in_progress", "completed", "incomplete"]
    output: list[dict[str, Any]]
    incomplete_details: Incomplete | None
    usage: ResponseUsage | None
    instructions: str | None
    tools: list[dict[str, Any]]
    tool_choice: Any
    parallel_tool_calls: bool
    text: dict[str, Any]
    temperature: float
    top_p: float
    max_output_tokens: int | None
    top_logprobs: int
    metadata: dict[str, str]
    user: str | None
    seed: int
    object: Literal["response"] = "response"
    error: None = None
    store: Literal[False] = False
    background: Literal[False] = False
    previous_response_id: None = None
    truncation: Literal["disabled"] = "disabled"
