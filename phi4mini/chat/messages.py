"""Messages, tool calls and replies, read from OpenAI's JSON.

Promises that a `Message` made by `from_openai` has valid Unicode text and a known role; anything else is a `BadInput`
that names the place ("messages[2].content ..."). The arguments of a call keep the text that the model wrote, even if
the call broke off and the text is no JSON. Knows no tokens and no template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from phi4mini.chat.verbatim_json import to_json
from phi4mini.errors import BadInput

ROLES = ("system", "user", "assistant", "tool", "tool_response")


@dataclass(frozen=True)
class ToolCall:
    """The assistant asks to run the function `name` with `arguments`; the result refers to the call by `id`.

    `text`: the arguments as they were written, if known. `broken`: `text` is no JSON object, and `arguments` is {}.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    text: str | None = field(default=None, compare=False)
    broken: bool = False

    @property
    def json(self) -> str:
        """The arguments as they were written, if known, else as JSON. Raises BadInput for values that are not JSON."""
        return to_json(self.arguments) if self.text is None else self.text

    def to_openai(self) -> dict[str, Any]:
        """The entry of `tool_calls` in OpenAI's API: arguments as a JSON string."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.json}}


@dataclass(frozen=True)
class Message:
    """One turn. `tools`: HF's way to give Phi tools, a JSON text on the system message.

    `said`: texts and calls in their order, if that is not `content` first and calls after it. `place`: the message's
    place in the request, for error messages.
    """

    role: str
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    tools: str | None = None
    said: tuple[str | ToolCall, ...] = ()
    place: str | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of_parts(cls, said: Sequence[str | ToolCall], place: str | None = None) -> Message:
        """The assistant's turn that consists of these texts and calls."""
        content = "".join(part for part in said if isinstance(part, str))
        calls = tuple(part for part in said if isinstance(part, ToolCall))
        return cls("assistant", content, tool_calls=calls, said=tuple(said), place=place)


@dataclass(frozen=True)
class ParsedReply:
    """A reply read into text and calls; the other fields are set if an engine made it."""

    content: str
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: str | None = None  # "stop", "length" or "tool_calls"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    ids: list[int] | None = None
    logprobs: list[Any] | None = None

    def to_message(self) -> Message:
        """The reply as a turn of the conversation."""
        return Message("assistant", self.content, tool_calls=tuple(self.tool_calls))


def messages_from(messages: Sequence[Message | Mapping[str, Any]]) -> list[Message]:
    """Check messages given as `Message` or OpenAI dicts; return `Message`s. Raises BadInput with the place."""
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise BadInput(f"messages must be a list of messages, got {type(messages).__name__}")
    return [_read(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _read(message: Message | Mapping[str, Any], where: str) -> Message:
    if not isinstance(message, Message):
        return from_openai(message, where)
    return _checked(message if message.place else replace(message, place=where), message.place or where)


def from_openai(message: Any, where: str = "message") -> Message:
    """Read one message of OpenAI's chat API. Role "developer" becomes "system"; text parts are joined by a line break.

    Raises BadInput that names the place.
    """
    if not isinstance(message, Mapping):
        raise BadInput(f"{where} must be an object, got {type(message).__name__}")
    role = message.get("role")
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, (list, tuple)):
        raise BadInput(f"{where}.tool_calls must be a list")
    made = Message(
        role="system" if role == "developer" else role,  # type: ignore[arg-type]  # checked below
        content=_content(message.get("content"), where, may_be_null=role in ("assistant", "tool")),
        name=message.get("name"),
        tool_calls=tuple(_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(calls or ())),
        tool_call_id=message.get("tool_call_id"),
        tools=message.get("tools"),
        place=where,
    )
    return _checked(made, where)


def _checked(message: Message, where: str) -> Message:
    if message.role not in ROLES:
        given = "missing" if message.role is None else repr(message.role)
        raise BadInput(f"{where}.role is {given}; known roles: {', '.join(ROLES)}, developer")
    for key in ("content", "name", "tool_call_id", "tools"):
        value = getattr(message, key)
        if value is None and key != "content":
            continue
        if not isinstance(value, str):
            raise BadInput(f"{where}.{key} must be a string, got {type(value).__name__}")
        _check_unicode(value, f"{where}.{key}")
    for i, call in enumerate(message.tool_calls):
        _check_unicode(call.text or "", f"{where}.tool_calls[{i}].function.arguments")
    if message.tool_calls and message.role != "assistant":
        raise BadInput(f"{where}.tool_calls: only the assistant calls tools, this is role {message.role!r}")
    if message.tools is not None and message.role != "system":
        raise BadInput(f"{where}.tools: only a system message carries tools, this is role {message.role!r}")
    return message


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise BadInput(f"{where} is not Unicode: lone surrogate U+{code:04X} at character {error.start}") from None


def _content(content: Any, where: str, may_be_null: bool) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        if may_be_null:
            return ""
        raise BadInput(f"{where}.content is missing or null; only an assistant or a tool may leave it out")
    if not isinstance(content, (list, tuple)):
        raise BadInput(f"{where}.content must be a string or a list of text parts, got {type(content).__name__}")
    return "\n".join(_part(part, f"{where}.content[{i}]") for i, part in enumerate(content))


def _part(part: Any, where: str) -> str:
    if not isinstance(part, Mapping):
        raise BadInput(f"{where} must be an object with type and text, got {type(part).__name__}")
    if part.get("type") != "text":
        raise BadInput(f"{where} is of type {part.get('type')!r}; this model reads text only")
    if not isinstance(part.get("text"), str):
        raise BadInput(f"{where}.text must be a string")
    return str(part["text"])


def _call(call: Any, where: str) -> ToolCall:
    if isinstance(call, ToolCall):
        return call
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise BadInput(f"{where} needs function.name and function.arguments")
    id = call.get("id")
    if id is not None and not isinstance(id, str):
        raise BadInput(f"{where}.id must be a string")
    return call_of(id or "", function["name"], function.get("arguments"), f"{where}.function.arguments")


def call_of(id: str, name: str, arguments: Any, where: str) -> ToolCall:
    """A call whose arguments are an object or a text, which may be no JSON. Raises BadInput for any other type."""
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return ToolCall(id, name, {})
    if isinstance(arguments, Mapping):
        return ToolCall(id, name, dict(arguments))
    if not isinstance(arguments, str):
        raise BadInput(f"{where} must be a JSON object, got {type(arguments).__name__}")
    try:
        read = json.loads(arguments)
    except (ValueError, RecursionError):
        read = None
    known = isinstance(read, dict)
    return ToolCall(id, name, read if known else {}, arguments, broken=not known)
