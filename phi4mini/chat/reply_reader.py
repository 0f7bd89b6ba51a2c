"""Reads a reply, as ids or as text, into text and tool calls: the only reader of control tokens.

Promises, for any ids: control tokens never come out as text, text is never cut inside a character, calls in the forms
listed in `reply_calls.py` are found, and nothing else of the reply is lost. Knows no engine and no server.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from phi4mini.chat.messages import ParsedReply, ToolCall
from phi4mini.chat.reply_calls import CallArguments, CallBroken, CallEnd, CallParser, CallStart, Event, TextDelta
from phi4mini.chat.templates import ChatFormat, format_named, format_of_tokenizer
from phi4mini.chat.tools import functions_of
from phi4mini.tokenizer import Tokenizer

__all__ = ["CallArguments", "CallBroken", "CallEnd", "CallStart", "Event", "TextDelta"]
__all__ += ["ReplyReader", "parse_reply", "reply_of"]

Tools = Sequence[Mapping[str, Any]]


def _random_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _parser(chat_format: ChatFormat, tools: Tools | None, new_id: Callable[[], str]) -> CallParser:
    names = frozenset(function["name"] for function in functions_of(tools))
    opens, closes = chat_format.call_open, chat_format.call_close
    tags = (opens, closes) if opens and closes and not chat_format.calls_are_tokens else None
    return CallParser(names, tags, new_id)


class ReplyReader:
    """Push the generated ids one by one; each `push` returns the events that are now certain."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        format: str | ChatFormat | None = None,
        tools: Tools | None = None,
        new_id: Callable[[], str] = _random_id,
    ) -> None:
        """`format` defaults to the one that the tokenizer's control tokens make certain; `new_id` makes call ids."""
        self._format = _resolved(format, tokenizer)
        self._stream = tokenizer.stream()
        self._parser = _parser(self._format, tools, new_id)
        # tokens that a user added without marking them special are content, not marks
        self._marks = {
            token.id: token.content
            for token in tokenizer.added_tokens
            if token.special or token.content in self._format.tokens
        }

    def push(self, id: int) -> list[Event]:
        """The events that this id made certain."""
        mark = self._marks.get(id)
        if mark is None:
            return self._parser.text(self._stream.push(id))
        before = self._parser.text(self._stream.flush())
        return before + (self._parser.open_mark() if mark == self._format.call_open else self._parser.close_mark())

    def finish(self) -> list[Event]:
        """End the reply; returns the events that were held back."""
        return self._parser.text(self._stream.flush()) + self._parser.end()


def _resolved(format: str | ChatFormat | None, tokenizer: Tokenizer) -> ChatFormat:
    if format is None:
        return format_of_tokenizer(tokenizer)
    return format_named(format) if isinstance(format, str) else format


def reply_of(events: Iterable[Event]) -> ParsedReply:
    """All events of a reply as one `ParsedReply`; whitespace alone before, between or after calls is dropped."""
    calls: list[ToolCall] = []
    texts = [""]  # before the first call, and after each
    for event in events:
        if isinstance(event, CallEnd):
            calls.append(event.call)
            texts.append("")
        elif isinstance(event, TextDelta):
            texts[-1] += event.text
    return ParsedReply("".join(text for text in texts if not (calls and text.isspace())), calls)


def parse_reply(text: str, tools: Tools | None = None, format: str | ChatFormat = "phi") -> ParsedReply:
    """Read a whole reply given as text with its control tokens spelled out, as HF's `decode` returns it.

    A token spelled inside a call's JSON is data. Raises BadInput for an invalid `tools` list.
    """
    chat_format = format_named(format) if isinstance(format, str) else format
    parser = _parser(chat_format, tools, _random_id)
    events: list[Event] = []
    for piece in re.split(f"({'|'.join(map(re.escape, chat_format.tokens))})", text):
        if piece not in chat_format.tokens or parser.inside_object:
            events += parser.text(piece)
        elif piece == chat_format.call_open:
            events += parser.open_mark()
        else:
            events += parser.close_mark()
    return reply_of([*events, *parser.end()])
