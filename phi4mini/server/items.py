"""The input of OpenAI's Responses API as ours: items to turns, flat tools to functions.

Promises: the order of the items is kept; calls that follow each other are one turn, as they were when the model wrote
them; an item that cannot be read, or that points to something stored, is refused with its place and type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phi4mini.errors import BadInput

Turn = dict[str, Any]
_TEXTS = ("input_text", "output_text", "text")
_ROLES = ("user", "assistant", "system", "developer")


def turns_from(given: str | Sequence[Any], instructions: str | None) -> list[Turn]:
    """The conversation as OpenAI's chat messages. Raises BadInput naming the place."""
    turns: list[Turn] = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str):
        return [*turns, {"role": "user", "content": given}]
    for at, item in enumerate(given):
        where = f"input[{at}]"
        match item:
            case {"type": "function_call", "call_id": str(id), "name": str(name), "arguments": str(arguments)}:
                call = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
                if not turns or turns[-1]["role"] != "assistant":
                    turns.append({"role": "assistant", "content": "", "tool_calls": []})
                turns[-1].setdefault("tool_calls", []).append(call)
            case {"type": "function_call_output", "call_id": str(id), "output": output}:
                turns.append({"role": "tool", "content": _text(output, f"{where}.output"), "tool_call_id": id})
            case {"role": role, "content": content} if item.get("type", "message") == "message":
                if role not in _ROLES:
                    raise BadInput(f"{where}.role is {role!r:.40}; known roles: {', '.join(_ROLES)}")
                turns.append({"role": role, "content": _text(content, f"{where}.content")})
            case _:
                raise _unread(item, where)
    return turns


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadInput(f"{where} must be a string or a list of text parts")
    texts = []
    for at, part in enumerate(content):
        match part:
            case {"type": kind, "text": str(text)} if kind in _TEXTS:
                texts.append(text)
            case _:
                kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
                raise BadInput(f"{where}[{at}] is of type {kind!r:.60} or incomplete; this model reads text only")
    return "".join(texts)


def _unread(item: Any, where: str) -> BadInput:
    kind = item.get("type", "message") if isinstance(item, Mapping) else type(item).__name__
    if kind == "item_reference":
        return BadInput(f"{where} refers to an item of an earlier response, but this server keeps none; send the item")
    known = "message (role, content), function_call (call_id, name, arguments), function_call_output (call_id, output)"
    return BadInput(f"{where} is of type {kind!r:.60} or incomplete; known items: {known}")


def functions_from(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Flat tools in the chat API's form. Raises BadInput for tools that OpenAI's own servers run."""
    functions = []
    for at, tool in enumerate(tools):
        if tool.get("type") != "function":
            raise BadInput(f"tools[{at}].type is {tool.get('type')!r:.60}; only functions can be called")
        given = {key: tool[key] for key in ("name", "description", "parameters", "strict") if tool.get(key) is not None}
        functions.append({"type": "function", "function": given})
    return functions
