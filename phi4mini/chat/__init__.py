"""Conversations to ids and ids to replies.

`render` is the only writer of control tokens; `ReplyReader` and `parse_reply` are their only readers.
"""

from __future__ import annotations

from phi4mini.chat.messages import Message, ParsedReply, ToolCall, from_openai, messages_from
from phi4mini.chat.rendering import Rendered, encode_segments, render
from phi4mini.chat.reply_reader import (
    CallArguments,
    CallBroken,
    CallEnd,
    CallStart,
    Event,
    ReplyReader,
    TextDelta,
    parse_reply,
    reply_of,
)
from phi4mini.chat.stops import StopMatcher
from phi4mini.chat.templates import (
    ChatFormat,
    Segment,
    format_named,
    format_names,
    format_of_template,
    format_of_tokenizer,
)
from phi4mini.chat.tools import check_call, functions_of

__all__ = [
    "CallArguments",
    "CallBroken",
    "CallEnd",
    "CallStart",
    "ChatFormat",
    "Event",
    "Message",
    "ParsedReply",
    "Rendered",
    "ReplyReader",
    "Segment",
    "StopMatcher",
    "TextDelta",
    "ToolCall",
    "check_call",
    "encode_segments",
    "format_named",
    "format_names",
    "format_of_template",
    "format_of_tokenizer",
    "from_openai",
    "functions_of",
    "messages_from",
    "parse_reply",
    "render",
    "reply_of",
]
