"""Tools: OpenAI's list read into function objects, calls written as JSON and checked against the functions.

Promises that a prompt gets a list of bare function objects with different names. `check_call` reports unknown functions
and missing arguments; it does not validate values against the schema (a grammar enforces that).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phi4mini.chat.messages import ToolCall
from phi4mini.chat.verbatim_json import to_json
from phi4mini.errors import BadInput


def functions_of(tools: Sequence[Mapping[str, Any]] | None, at: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """The bare function objects of `[{"type": "function", "function": {...}}]` or of a list of such objects.

    `strict` is removed: it tells the server to enforce the schema and says nothing to the model. Raises BadInput that
    names the place; `at` is the index of each tool in the list that was sent, where that list held more than these.
    """
    if tools is None:
        return []
    if isinstance(tools, (str, Mapping)) or not isinstance(tools, Sequence):
        raise BadInput(f"tools must be a list of functions, got {type(tools).__name__}")
    functions = [_function(tool, f"tools[{i}]") for i, tool in zip(at or range(len(tools)), tools, strict=True)]
    names = [function["name"] for function in functions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"tools: the function {twice!r} is given twice")
    return functions


def _function(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, Mapping):
        raise BadInput(f"{where} must be an object, got {type(tool).__name__}")
    if tool.get("type", "function") != "function":
        raise BadInput(f"{where}.type is {tool['type']!r}; only functions can be called")
    function = tool.get("function", tool)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise BadInput(f"{where}.function.name must be a non-empty string")
    if not isinstance(function.get("parameters", {}), (Mapping, type(None))):
        raise BadInput(f"{where}.function.parameters must be an object")
    return {key: value for key, value in function.items() if key not in ("strict", "type")}


def calls_to_json(calls: Sequence[ToolCall]) -> list[str]:
    """Each call as the model writes it, `{"name": ..., "arguments": {...}}`, with the arguments as they were written.

    If the last call is broken, its closing brace is left out, as the model left it out.
    """
    heads = [f'{{"name": {to_json(call.name)}, "arguments": {call.json}' for call in calls]
    open_end = bool(calls) and calls[-1].broken
    return [head if open_end and at == len(calls) - 1 else head + "}" for at, head in enumerate(heads)]


def check_call(call: ToolCall, tools: Sequence[Mapping[str, Any]]) -> str | None:
    """One line that says what is wrong with a call (unknown function, missing required argument), or None."""
    functions = {function["name"]: function for function in functions_of(tools)}
    if call.name not in functions:
        return f"the model called {call.name!r}, which is not among the tools ({', '.join(functions) or 'none'})"
    required = (functions[call.name].get("parameters") or {}).get("required")
    names = required if isinstance(required, list) else []
    missing = [name for name in names if isinstance(name, str) and name not in call.arguments]
    return f"the call of {call.name!r} lacks the required argument {missing[0]!r}" if missing else None
