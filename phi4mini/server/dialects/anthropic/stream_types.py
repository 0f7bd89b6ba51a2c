"""What the events of Anthropic's streams hold, as types, for the OpenAPI document.

They describe what `messages.py` writes; nothing is made from these. The tests hold the two together.
"""

from __future__ import annotations

from typing import Any

import msgspec

from phi4mini.server.dialects.anthropic.types import Answered, MessageUsage, StopReason

_Maybe = msgspec.UnsetType

# ---- messages: named events


class _Named(msgspec.Struct, tag_field="type", kw_only=True):
    pass


class MessageStart(_Named, tag="message_start"):
    """The message before its content."""

    message: Answered


class Ping(_Named, tag="ping"):
    """No content: it keeps the connection alive."""


class TextBlock(_Named, tag="text"):
    """A text."""

    text: str


class ToolUseBlock(_Named, tag="tool_use"):
    """A tool call."""

    id: str
    name: str
    input: dict[str, Any]


class ContentBlockStart(_Named, tag="content_block_start"):
    """A block begins, empty."""

    index: int
    content_block: TextBlock | ToolUseBlock


class TextMore(_Named, tag="text_delta"):
    """More of a text."""

    text: str


class InputMore(_Named, tag="input_json_delta"):
    """More of a call's input, as JSON text."""

    partial_json: str


class ContentBlockDelta(_Named, tag="content_block_delta"):
    """A block grows."""

    index: int
    delta: TextMore | InputMore


class ContentBlockStop(_Named, tag="content_block_stop"):
    """A block is complete."""

    index: int


class Ended(msgspec.Struct):
    """Why a message is over."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(_Named, tag="message_delta"):
    """The message is over."""

    delta: Ended
    usage: MessageUsage


class MessageStop(_Named, tag="message_stop"):
    """The last event of a complete message."""


MessageEvent = (
    MessageStart | Ping | ContentBlockStart | ContentBlockDelta | ContentBlockStop | MessageDelta | MessageStop
)
