"""OpenAI's chat messages in older and foreign forms, as current ones: `functions` from before there were tools, and the
reasoning of other models.

Promises: every message keeps its place; whatever is left out is reported to the caller by name. It knows no tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from phi4mini.chat import functions_of
from phi4mini.errors import BadInput
from phi4mini.server.http.errors import ApiError

Ignore = Callable[[list[str]], None]
_THOUGHTS = ("reasoning", "reasoning_content", "reasoning_details", "thinking", "thinking_blocks")
_THOUGHT_PARTS = ("thinking", "redacted_thinking", "reasoning")


def chat_turns(messages: Sequence[Any], ignore: Ignore) -> list[Any]:
    """The messages in the chat API's current form. Raises BadInput for a function's result without a call."""
    called: dict[str, str] = {}  # function -> id of its last call
    return [_now(message, at, called, ignore) for at, message in enumerate(messages)]


def _now(message: Any, at: int, called: dict[str, str], ignore: Ignore) -> Any:
    match message:
        case {"role": "assistant"}:
            return _said(message, at, called, ignore)
        case {"role": "function", "name": str(name)}:
            if name not in called:
                raise BadInput(f"messages[{at}].name: no function_call of {name!r:.80} is before its result")
            return {"role": "tool", "tool_call_id": called[name], "content": message.get("content")}
    return message


def _said(message: Mapping[str, Any], at: int, called: dict[str, str], ignore: Ignore) -> dict[str, Any]:
    """The assistant's turn without reasoning; a refusal becomes text, a function_call a tool call."""
    made = {key: value for key, value in message.items() if key not in (*_THOUGHTS, "function_call")}
    ignore([f"messages.{name}" for name in _THOUGHTS if message.get(name)])
    if isinstance(content := made.get("content"), list):
        made["content"] = [kept for part in content for kept in _part(part, ignore)]
    call = message.get("function_call")
    if call is not None:
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            raise BadInput(f"messages[{at}].function_call needs name and arguments")
        id = called[call["name"]] = f"function_call_{at}"
        made["tool_calls"] = [*(made.get("tool_calls") or ()), {"id": id, "type": "function", "function": call}]
    return made


def _part(part: Any, ignore: Ignore) -> list[Any]:
    match part:
        case {"type": kind} if kind in _THOUGHT_PARTS:
            ignore([f"messages.content.{kind}"])
            return []
        case {"type": "refusal", "refusal": str(text)}:
            return [{"type": "text", "text": text}]
    return [part]


def tools_of(functions: Sequence[Mapping[str, Any]], choice: Any) -> tuple[list[dict[str, Any]], Any]:
    """`functions` and `function_call` as tools and tool_choice. Raises 400 with the names that were sent."""
    tools = [{"type": "function", "function": function} for function in functions]
    try:
        names = [function["name"] for function in functions_of(tools)]
    except BadInput as error:
        said = str(error).replace("tools", "functions").replace(".function.", ".")
        raise ApiError(400, said, param="functions") from None
    match choice:
        case None | "none" | "auto":
            return tools, choice
        case {"name": str(name)} if name in names:
            return tools, {"type": "function", "function": {"name": name}}
    known = 'none, auto or {"name": one of functions}'
    raise ApiError(400, f"function_call must be {known}", param="function_call", code="invalid_value")
