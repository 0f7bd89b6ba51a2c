"""The input of OpenAI's Responses API as ours: items to turns, flat tools to functions.

Promises: the order of the items is kept, and each turn knows the place at which it was sent; neighbouring texts and
calls are one turn, as the model wrote them; an item that cannot be read, or that refers to a stored one, is refused
with its place and type; whatever is left out is reported to the caller by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from phi4mini.chat import Message, ToolCall
from phi4mini.chat.messages import call_of
from phi4mini.errors import BadInput
from phi4mini.server.dialects.hosted_tools import Tools

Ignore = Callable[[list[str]], None]
_TEXTS = ("input_text", "output_text", "text")
_ROLES = ("user", "assistant", "system", "developer")


def turns_from(given: str | Sequence[Any], instructions: str | None, ignore: Ignore) -> list[Message]:
    """The conversation as turns. `ignore` gets the names of what is left out. Raises BadInput naming the place."""
    turns = [Message("system", instructions, place="instructions")] if instructions else []
    if isinstance(given, str):
        return [*turns, Message("user", given, place="input")]
    for at, item in enumerate(given):
        where = f"input[{at}]"
        match item:
            case {"type": "function_call", "call_id": str(id), "name": str(name), "arguments": str(written)} if name:
                _said(turns, call_of(id, name, written, f"{where}.arguments"), where)
            case {"type": "function_call_output", "call_id": str(id), "output": output}:
                turns.append(Message("tool", _text(output, f"{where}.output"), tool_call_id=id, place=where))
            case {"type": "reasoning"}:
                ignore(["input.reasoning"])  # from another model; this one writes none
            case {"role": role, "content": content} if item.get("type", "message") == "message":
                if role not in _ROLES:
                    raise BadInput(f"{where}.role is {role!r:.40}; known roles: {', '.join(_ROLES)}")
                text = _text(content, f"{where}.content", "" if role == "assistant" else "\n")
                if role == "assistant" and turns and turns[-1].tool_calls:
                    _said(turns, text, where)
                else:
                    turns.append(Message("system" if role == "developer" else role, text, place=where))
            case _:
                raise _unread(item, where)
    return turns


def _said(turns: list[Message], part: str | ToolCall, where: str) -> None:
    """Add a part to the assistant's turn; a new turn begins where the last one is not the assistant's."""
    last = turns.pop() if turns and turns[-1].role == "assistant" else Message("assistant", "", place=where)
    turns.append(Message.of_parts((*(last.said or (last.content,)), part), last.place))


def _text(content: Any, where: str, between: str = "\n") -> str:
    """A text, or its parts joined by `between`: parts that the assistant wrote followed each other directly."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise BadInput(f"{where} must be a string or a list of text parts")
    texts = []
    for at, part in enumerate(content):
        match part:
            case {"type": kind, "text": str(text)} if kind in _TEXTS:
                texts.append(text)
            case {"type": "refusal", "refusal": str(text)}:
                texts.append(text)
            case _:
                kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
                raise BadInput(f"{where}[{at}] is of type {kind!r:.60} or incomplete; this model reads text only")
    return between.join(texts)


def _unread(item: Any, where: str) -> BadInput:
    kind = item.get("type", "message") if isinstance(item, Mapping) else type(item).__name__
    if kind == "item_reference":
        return BadInput(f"{where} refers to an item of an earlier response, but this server keeps none; send the item")
    known = "message (role, content), function_call (call_id, name, arguments), function_call_output (call_id, output)"
    return BadInput(f"{where} is of type {kind!r:.60} or incomplete; known items: {known}")


def functions_from(tools: Tools) -> Tools:
    """Flat tools in the chat API's form. Raises BadInput for tools that only OpenAI's own servers run."""
    functions = {}
    for at, tool in tools.items():
        if tool.get("type") != "function":
            raise BadInput(f"tools[{at}].type is {tool.get('type')!r:.60}; only functions can be called")
        given = {key: tool[key] for key in ("name", "description", "parameters", "strict") if tool.get(key) is not None}
        functions[at] = {"type": "function", "function": given}
    return functions
