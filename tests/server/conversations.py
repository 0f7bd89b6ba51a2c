"""Conversations in each dialect's form, as turns and as ids, and pieces to build them from; needs no server."""

from __future__ import annotations

from functools import cache
from typing import Any

from phi4mini.chat import Message, messages_from, render
from phi4mini.server.dialects.anthropic import messages_input
from phi4mini.server.dialects.openai import responses_input
from phi4mini.server.dialects.openai.chat_input import chat_turns
from phi4mini.server.http.parse_body import parsed
from phi4mini.tokenizer import Tokenizer, phi4_mini
from tests.tokenizer.vocabularies import small

PARAMETERS = {"type": "object", "properties": {"a": {}}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": PARAMETERS}}]
GO = [{"role": "user", "content": "go"}]
DIALECTS = ["chat", "responses", "messages"]
MARKS = {"phi": ("<|tool_call|>", "<|/tool_call|>"), "chatml": ("<tool_call>", "</tool_call>")}


@cache
def tokenizer_of(format: str) -> Tokenizer:
    """Phi's own, or single bytes with ChatML's control tokens."""
    return phi4_mini() if format == "phi" else small()


def turns_of(dialect: str, listed: str, ignored: list[str] | None = None) -> list[Message]:
    """The turns of a body's conversation, which is given as JSON between the brackets."""
    ignore = (ignored if ignored is not None else []).extend
    if dialect == "responses":
        given = parsed(f'{{"input": [{listed}]}}'.encode())["input"]
        return messages_from(responses_input.turns_from(given, None, ignore))
    given = parsed(f'{{"messages": [{listed}]}}'.encode())["messages"]
    turns = chat_turns(given, ignore) if dialect == "chat" else messages_input.turns_from(given, None, ignore)
    return messages_from(turns)


def rendered(format: str, turns: list[Any]) -> list[int]:
    return render(turns, TOOLS, tokenizer=tokenizer_of(format), format=format).ids


def call_item(id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": "f", "arguments": f'{{"a": "{id}"}}'}


def output_item(id: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": f"result {id}"}


def use(id: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": "f", "input": {"a": id}}


def result(id: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, "content": f"result {id}"}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def said(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}
