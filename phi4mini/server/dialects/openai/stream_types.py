"""What the events of OpenAI's streams hold, as types, for the OpenAPI document: chunks, and responses' named events.

They describe what `chat.py`, `completions.py` and `responses_output.py` write; nothing is made from these. The tests
hold the two together.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from phi4mini.server.dialects.openai.types import FinishReason, Logprob, Logprobs, Response, TextLogprobs, Usage

_Maybe = msgspec.UnsetType

# ---- chat and text completions: chunks without a name, [DONE] at the end


class PromptProgress(msgspec.Struct):
    """How much of the prompt has been computed, in tokens."""

    total: int
    cache: int
    processed: int
    time_ms: int


class FunctionPart(msgspec.Struct):
    """More of a call's arguments; its name comes with the first part."""

    arguments: str
    name: str | _Maybe = msgspec.UNSET


class CalledPart(msgspec.Struct):
    """A piece of a tool call."""

    index: int
    function: FunctionPart
    id: str | _Maybe = msgspec.UNSET
    type: Literal["function"] | _Maybe = msgspec.UNSET


class Delta(msgspec.Struct):
    """What is added to the message."""

    role: Literal["assistant"] | _Maybe = msgspec.UNSET
    content: str | _Maybe = msgspec.UNSET
    tool_calls: list[CalledPart] | _Maybe = msgspec.UNSET
    function_call: FunctionPart | _Maybe = msgspec.UNSET


class ChunkChoice(msgspec.Struct):
    """One of n answers."""

    index: int
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: FinishReason | None


class TextChunkChoice(msgspec.Struct):
    """One continuation."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class _Chunk(msgspec.Struct, kw_only=True):
    id: str
    created: int
    model: str
    system_fingerprint: str
    usage: Usage | _Maybe = msgspec.UNSET
    timings: dict[str, Any] | _Maybe = msgspec.UNSET
    prompt_progress: PromptProgress | _Maybe = msgspec.UNSET


class ChatChunk(_Chunk, kw_only=True):
    """A piece of an answer to POST /v1/chat/completions; a piece with `usage` or `prompt_progress` has no choices."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]


class TextChunk(_Chunk, kw_only=True):
    """A piece of an answer to POST /v1/completions."""

    object: Literal["text_completion"]
    choices: list[TextChunkChoice]


# ---- responses: named and numbered events


class _Named(msgspec.Struct, tag_field="type", kw_only=True):
    pass


class _Numbered(_Named, kw_only=True):
    sequence_number: int


class _OfResponse(_Numbered, kw_only=True):
    response: Response


class ResponseCreated(_OfResponse, tag="response.created"):
    """The response before its output."""


class ResponseInProgress(_OfResponse, tag="response.in_progress"):
    """The response once more, still before its output."""


class ResponseCompleted(_OfResponse, tag="response.completed"):
    """The last event of a complete response."""


class ResponseIncomplete(_OfResponse, tag="response.incomplete"):
    """The last event of a response that was cut at max_output_tokens."""


class _OfItem(_Numbered, kw_only=True):
    output_index: int


class OutputItemAdded(_OfItem, tag="response.output_item.added"):
    """An item begins, empty."""

    item: dict[str, Any]


class OutputItemDone(_OfItem, tag="response.output_item.done"):
    """An item is complete."""

    item: dict[str, Any]


class _OfPart(_OfItem, kw_only=True):
    item_id: str
    content_index: int


class ContentPartAdded(_OfPart, tag="response.content_part.added"):
    """A text begins, empty."""

    part: dict[str, Any]


class ContentPartDone(_OfPart, tag="response.content_part.done"):
    """A text is complete."""

    part: dict[str, Any]


class OutputTextDelta(_OfPart, tag="response.output_text.delta"):
    """More of a text."""

    delta: str
    logprobs: list[Logprob]


class OutputTextDone(_OfPart, tag="response.output_text.done"):
    """All of a text."""

    text: str
    logprobs: list[Logprob]


class ArgumentsDelta(_OfItem, tag="response.function_call_arguments.delta"):
    """More of a call's arguments, as JSON text."""

    item_id: str
    delta: str


class ArgumentsDone(_OfItem, tag="response.function_call_arguments.done"):
    """All of a call's arguments."""

    item_id: str
    name: str
    arguments: str


ResponseEvent = (
    ResponseCreated
    | ResponseInProgress
    | ResponseCompleted
    | ResponseIncomplete
    | OutputItemAdded
    | OutputItemDone
    | ContentPartAdded
    | ContentPartDone
    | OutputTextDelta
    | OutputTextDone
    | ArgumentsDelta
    | ArgumentsDone
)
