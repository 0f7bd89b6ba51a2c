"""Messages from OpenAI's JSON: what is taken, and what is refused with its place."""

from __future__ import annotations

import pytest

from phi4mini.chat import Message, ParsedReply, ToolCall, from_openai, messages_from
from phi4mini.errors import BadInput

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def test_openai_forms():
    assert from_openai({"role": "user", "content": "hi"}) == Message("user", "hi")
    assert from_openai({"role": "developer", "content": "be brief"}) == Message("system", "be brief")
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert from_openai({"role": "user", "content": parts}) == Message("user", "a\nb")
    expected = Message("assistant", "", tool_calls=(ToolCall("c1", "f", {"a": 1}),))
    assert from_openai({"role": "assistant", "content": None, "tool_calls": [CALL]}) == expected
    result = from_openai({"role": "tool", "tool_call_id": "c1", "content": "7", "name": "f"})
    assert result == Message("tool", "7", name="f", tool_call_id="c1")
    assert messages_from([Message("user", "x"), {"role": "user", "content": "x"}]) == [Message("user", "x")] * 2


@pytest.mark.parametrize("arguments", ['{"a": 1}', {"a": 1}])
def test_arguments_as_text_or_object(arguments):
    call = {"id": "c1", "function": {"name": "f", "arguments": arguments}}
    assert from_openai({"role": "assistant", "tool_calls": [call]}).tool_calls[0].arguments == {"a": 1}


@pytest.mark.parametrize("arguments", ["", " ", None])
def test_no_arguments(arguments):
    call = {"id": "c1", "function": {"name": "f", "arguments": arguments}}
    assert from_openai({"role": "assistant", "tool_calls": [call]}).tool_calls[0].arguments == {}


def test_calls_go_back_to_openai_and_a_reply_becomes_a_turn():
    assert ToolCall("c1", "f", {"a": 1}).to_openai() == CALL
    reply = ParsedReply("x", [ToolCall("c1", "f", {})])
    assert reply.to_message() == Message("assistant", "x", tool_calls=(ToolCall("c1", "f", {}),))


def bad_call(function: object, **others: object) -> dict[str, object]:
    return {"role": "assistant", "content": "", "tool_calls": [{"function": function, **others}]}


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (3, r"messages\[1\] must be an object, got int"),
        ({"role": "robot", "content": "x"}, r"messages\[1\].role is 'robot'; known roles: system"),
        ({"content": "x"}, r"messages\[1\].role is missing"),
        ({"role": "user"}, r"messages\[1\].content is missing or null"),
        ({"role": "system", "content": None}, r"messages\[1\].content is missing or null"),
        ({"role": "user", "content": 5}, r"messages\[1\].content must be a string or a list"),
        ({"role": "user", "content": ["x"]}, r"messages\[1\].content\[0\] must be an object"),
        (
            {"role": "user", "content": [{"type": "image_url"}]},
            r"content\[0\] is of type 'image_url'; this model reads text",
        ),
        ({"role": "user", "content": [{"type": "text", "text": 1}]}, r"content\[0\].text must be a string"),
        ({"role": "user", "content": "a\udc80"}, r"messages\[1\].content is not Unicode: .* U\+DC80 at character 1"),
        ({"role": "user", "content": "x", "name": 3}, r"messages\[1\].name must be a string"),
        ({"role": "user", "content": "x", "tools": "[]"}, r"messages\[1\].tools: only a system message"),
        ({"role": "system", "content": "x", "tools": [1]}, r"messages\[1\].tools must be a string"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, r"messages\[1\].tool_calls: only the assistant"),
        ({"role": "assistant", "content": "x", "tool_calls": "f"}, r"messages\[1\].tool_calls must be a list"),
        (bad_call({"arguments": {}}), r"tool_calls\[0\] needs function.name"),
        (
            bad_call({"name": "f", "arguments": [1]}),
            r"tool_calls\[0\].function.arguments must be a JSON object, got list",
        ),
        (bad_call({"name": "f", "arguments": "\udc80"}), r"tool_calls\[0\].function.arguments is not Unicode"),
        (bad_call({"name": "f"}, id=5), r"tool_calls\[0\].id must be a string"),
    ],
)
def test_refused_with_its_place(message, told):
    with pytest.raises(BadInput, match=told):
        messages_from([{"role": "user", "content": "x"}, message])


@pytest.mark.parametrize("messages", ["hi", {"role": "user"}, None, 4])
def test_not_a_list(messages):
    with pytest.raises(BadInput, match="messages must be a list"):
        messages_from(messages)
