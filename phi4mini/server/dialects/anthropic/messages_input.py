"""Anthropic's conversations as ours: content blocks to turns, tools and tool_choice to OpenAI's form.

Promises: the order of the blocks is kept, and each turn knows the place at which it was sent; a block that cannot be
read is refused with its place and type; whatever is left out is reported to the caller by name. It knows no HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from phi4mini.chat import Message, ToolCall
from phi4mini.chat.messages import call_of
from phi4mini.errors import BadInput
from phi4mini.server.dialects.hosted_tools import Tools

Ignore = Callable[[list[str]], None]
_THOUGHTS = ("thinking", "redacted_thinking")
_BILLING = re.compile(r"x-anthropic-billing-header:[^\n]*\n?")


def turns_from(
    messages: Sequence[Mapping[str, Any]], system: str | Sequence[Mapping[str, Any]] | None, ignore: Ignore
) -> list[Message]:
    """The conversation as turns. `ignore` gets the names of what is left out. Raises BadInput naming the place."""
    turns: list[Message] = []
    if system and (text := _system(system, ignore)):
        turns.append(Message("system", text, place="system"))
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant", "system"):
            given = "missing" if role is None else f"{role!r:.40}"
            raise BadInput(f"{where}.role is {given}; known roles: user, assistant, system")
        if isinstance(content, str):
            turns.append(Message(role, content, place=where))
        elif not isinstance(content, list):
            raise BadInput(f"{where}.content must be a string or a list of blocks")
        elif role == "assistant":
            turns.append(Message.of_parts(_assistant(content, where, ignore), where))
        else:
            turns += _others(str(role), content, where)
    return turns


def _system(given: str | Sequence[Mapping[str, Any]], ignore: Ignore) -> str:
    """The system text without Anthropic's billing line, which differs in each request and so would defeat the cache."""
    text = _text(given, "system")
    if header := _BILLING.match(text):
        ignore(["system.x-anthropic-billing-header"])
        return text[header.end() :]
    return text


def _assistant(blocks: Sequence[Any], where: str, ignore: Ignore) -> list[str | ToolCall]:
    """Texts and calls in their order."""
    said: list[str | ToolCall] = []
    for at, block in enumerate(blocks):
        place = f"{where}.content[{at}]"
        match block:
            case {"type": "tool_use", "id": str(id), "name": str(name), "input": dict() | str() as given} if name:
                said.append(call_of(id, name, given, f"{place}.input"))
            case {"type": "text", "text": str(more)}:
                said.append(more)
            case {"type": kind} if kind in _THOUGHTS:
                ignore([f"messages.content.{kind}"])
            case _:
                raise _unread(block, place, "text (with text), tool_use (with id, name, input)")
    return said


def _others(role: str, blocks: Sequence[Any], where: str) -> list[Message]:
    """A user's turn: results of tools as turns of their own, neighbouring texts as one."""
    turns: list[Message] = []
    texts: list[str] = []

    def close() -> None:
        if texts:
            turns.append(Message(role, "\n".join(texts), place=where))
            texts.clear()

    for at, block in enumerate(blocks):
        place = f"{where}.content[{at}]"
        match block:
            case {"type": "text", "text": str(more)}:
                texts.append(more)
            case {"type": "tool_result", "tool_use_id": str(id)} if role == "user":
                close()
                text = _text(block.get("content") or "", f"{place}.content")
                shown = f"error: {text}" if block.get("is_error") is True else text
                turns.append(Message("tool", shown, tool_call_id=id, place=place))
            case _:
                raise _unread(block, place, "text (with text), tool_result (with tool_use_id)")
    close()
    return turns or [Message(role, "", place=where)]


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadInput(f"{where} must be a string or a list of text blocks")
    texts = []
    for at, block in enumerate(content):
        match block:
            case {"type": "text", "text": str(more)}:
                texts.append(more)
            case _:
                raise _unread(block, f"{where}[{at}]", "text (with text)")
    return "\n".join(texts)


def _unread(block: Any, where: str, known: str) -> BadInput:
    kind = block.get("type") if isinstance(block, Mapping) else type(block).__name__
    return BadInput(f"{where} is of type {kind!r:.60} or incomplete; this model reads: {known}")


def functions_from(tools: Tools) -> Tools:
    """Tools in OpenAI's form. Raises BadInput for tools that only Anthropic's own servers run."""
    functions = {}
    for at, tool in tools.items():
        where = f"tools[{at}]"
        if tool.get("type") not in (None, "custom"):
            raise BadInput(f"{where}.type is {tool['type']!r:.60}; only tools with name and input_schema can be called")
        if not isinstance(tool.get("input_schema"), Mapping):
            raise BadInput(f"{where}.input_schema must be a JSON schema")
        described = {key: tool.get(key) for key in ("name", "description", "strict")}
        function = {key: value for key, value in described.items() if value is not None}
        functions[at] = {"type": "function", "function": function | {"parameters": tool["input_schema"]}}
    return functions


def choice_from(given: Mapping[str, Any] | None) -> str:
    """Anthropic's tool_choice as `Conversation.tool_choice`. Raises BadInput."""
    match given:
        case None | {"type": "auto"}:
            return "auto"
        case {"type": "any"}:
            return "required"
        case {"type": "none"}:
            return "none"
        case {"type": "tool", "name": str(name)}:
            return f"={name}"
    raise BadInput("tool_choice.type must be auto, any, none or tool (with name)")
