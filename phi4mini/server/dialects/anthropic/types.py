"""Answers of Anthropic's API as types: a message and its usage.

The OpenAPI document is made from them, so a class's name and first line are shown to its readers.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class MessageUsage(msgspec.Struct):
    """Token counts: prompt tokens that were computed, prompt tokens read from the cache, tokens of the answer."""

    input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int = 0


class Answered(msgspec.Struct, kw_only=True):
    """The answer; `content` holds blocks of type text and tool_use."""

    id: str
    model: str
    content: list[dict[str, Any]]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
