"""A conversation with calls, and what a format writes, as text: shared by the tests of the formats."""

from __future__ import annotations

from phi4mini.chat import Message, ToolCall, format_named

FUNCTION = {"name": "weather", "description": "Température", "parameters": {"city": {"type": "str"}}}
CALLS = (ToolCall("1", "weather", {"city": "Paris"}), ToolCall("2", "weather", {"city": "Köln"}))
CONVERSATION = [
    Message("user", "q"),
    Message("assistant", "Let me see.", tool_calls=CALLS),
    Message("tool", "no data", tool_call_id="2"),
    Message("tool", '{"t": 7}', tool_call_id="1"),
    Message("assistant", "7 degrees"),
]


def written(name: str, messages: list[Message], functions: list[dict], add_generation_prompt: bool) -> str:
    return "".join(part.text for part in format_named(name).write(messages, functions, add_generation_prompt))
