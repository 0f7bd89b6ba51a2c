"""Anthropic's conversations as ours: content blocks to turns, tools and tool_choice to OpenAI's form.

Promises: the order of the blocks is kept; a block that cannot be read is refused with its place and type, never left
out. It knows no HTTP and no tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phi4mini.errors import BadInput

Turn = dict[str, Any]


def turns_from(messages: Sequence[Mapping[str, Any]], system: str | Sequence[Mapping[str, Any]] | None) -> list[Turn]:
    """The conversation as OpenAI's messages. Raises BadInput naming the place."""
    turns: list[Turn] = []
    if system:
        turns.append({"role": "system", "content": _text(system, "system")})
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant", "system"):
            given = "missing" if role is None else f"{role!r:.40}"
            raise BadInput(f"{where}.role is {given}; known roles: user, assistant, system")
        if isinstance(content, str):
            turns.append({"role": role, "content": content})
        elif not isinstance(content, list):
            raise BadInput(f"{where}.content must be a string or a list of blocks")
        elif role == "assistant":
            turns.append(_assistant(content, where))
        else:
            turns += _others(str(role), content, where)
    return turns


def _assistant(blocks: Sequence[Any], where: str) -> Turn:
    """Text and calls in one turn; text after a call would be moved before it, and is refused."""
    text, calls = "", []
    for at, block in enumerate(blocks):
        place = f"{where}.content[{at}]"
        match block:
            case {"type": "tool_use", "id": str(id), "name": str(name), "input": dict(given)}:
                calls.append({"id": id, "type": "function", "function": {"name": name, "arguments": given}})
            case {"type": "text", "text": str(more)} if not calls or not more.strip():
                text += more if not calls else ""
            case {"type": "text", "text": str()}:
                raise BadInput(f"{place}: text after a tool_use block is not possible; send it in the next message")
            case _:
                raise _unread(block, place, "text (with text), tool_use (with id, name, input)")
    return {"role": "assistant", "content": text, "tool_calls": calls}


def _others(role: str, blocks: Sequence[Any], where: str) -> list[Turn]:
    """A user's turn: results of tools as turns of their own, neighbouring texts as one."""
    turns: list[Turn] = []
    for at, block in enumerate(blocks):
        place = f"{where}.content[{at}]"
        match block:
            case {"type": "text", "text": str(more)}:
                if turns and turns[-1]["role"] == role:
                    turns[-1]["content"] += more
                else:
                    turns.append({"role": role, "content": more})
            case {"type": "tool_result", "tool_use_id": str(id)} if role == "user":
                text = _text(block.get("content") or "", f"{place}.content")
                shown = f"error: {text}" if block.get("is_error") is True else text
                turns.append({"role": "tool", "content": shown, "tool_call_id": id})
            case _:
                raise _unread(block, place, "text (with text), tool_result (with tool_use_id)")
    if not turns:
        raise BadInput(f"{where}.content is empty")
    return turns


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
    return "".join(texts)


def _unread(block: Any, where: str, known: str) -> BadInput:
    kind = block.get("type") if isinstance(block, Mapping) else type(block).__name__
    return BadInput(f"{where} is of type {kind!r:.60} or incomplete; this model reads: {known}")


def functions_from(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tools in OpenAI's form. Raises BadInput for the tools of Anthropic's own servers, which are not here."""
    functions = []
    for at, tool in enumerate(tools):
        where = f"tools[{at}]"
        if tool.get("type") not in (None, "custom"):
            raise BadInput(f"{where}.type is {tool['type']!r:.60}; only tools with name and input_schema can be called")
        if not isinstance(tool.get("input_schema"), Mapping):
            raise BadInput(f"{where}.input_schema must be a JSON schema")
        described = {key: tool.get(key) for key in ("name", "description", "strict")}
        function = {key: value for key, value in described.items() if value is not None}
        functions.append({"type": "function", "function": function | {"parameters": tool["input_schema"]}})
    return functions


def choice_from(given: Mapping[str, Any] | None) -> str:
    """Anthropic's tool_choice as `asks` has it. Raises BadInput."""
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
