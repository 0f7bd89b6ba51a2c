"""Fields below the top level that nothing reads are named; fields that are read, and the caller's own data, are not."""

from __future__ import annotations

import pytest

from phi4mini.server.dialects.anthropic.messages import MessagesBody
from phi4mini.server.dialects.ollama.bodies import OllamaChatBody
from phi4mini.server.dialects.openai.chat import ChatBody
from phi4mini.server.dialects.openai.responses_body import InputBody
from phi4mini.server.http.unread_fields import unread
from tests.server.process import CHAT, serving

HI = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"x": {"type": "string", "weird": 1}}, "x-own": 2}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("kind", "body", "named"),
    [
        (ChatBody, {"stream_options": {"include_usage": True, "include_all": 1}}, ["stream_options.include_all"]),
        (ChatBody, {"messages": [HI | {"weight": 1}]}, ["messages.weight"]),
        (ChatBody, {"messages": [HI, HI | {"weight": 1}] * 9}, ["messages.weight"]),
        (ChatBody, {"messages": [{"role": "assistant", "content": "x", "audio": {"id": "a"}}]}, ["messages.audio"]),
        (
            ChatBody,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "detail": "low"}]}]},
            ["messages.content.detail"],
        ),
        (
            ChatBody,
            {"messages": [{"role": "assistant", "tool_calls": [CALL | {"extra_content": {"a": 1}}]}]},
            ["messages.tool_calls.extra_content"],
        ),
        (ChatBody, {"tools": [{"type": "function", "function": FUNCTION, "eager": True}]}, ["tools.eager"]),
        (ChatBody, {"response_format": {"type": "text", "schema": {}}}, ["response_format.schema"]),
        (
            ChatBody,
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "depth": 3}}},
            ["response_format.json_schema.depth"],
        ),
        (InputBody, {"text": {"format": {"type": "text"}, "tone": "kind"}}, ["text.tone"]),
        (InputBody, {"input": [HI | {"priority": 1}]}, ["input.priority"]),
        (InputBody, {"tools": [{"type": "function", **FUNCTION, "defer_loading": True}]}, ["tools.defer_loading"]),
        (MessagesBody, {"system": [{"type": "text", "text": "s", "ttl": 1}]}, ["system.ttl"]),
        (MessagesBody, {"tools": [{"name": "f", "input_schema": SCHEMA, "eager": 1}]}, ["tools.eager"]),
        (OllamaChatBody, {"options": {"seed": 1, "num_gpu": 3, "numa": False}}, ["options.num_gpu", "options.numa"]),
        (OllamaChatBody, {"messages": [HI | {"thinking": "hm"}]}, ["messages.thinking"]),
    ],
    ids=range(16),
)
def test_RQ33_a_field_below_the_top_level_that_nobody_reads_is_named(kind, body, named):
    assert unread(body, kind) == named


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ChatBody, {"messages": [{"role": "assistant", "content": None, "refusal": None, "annotations": []}]}),
        (ChatBody, {"messages": [HI | {"weight": None, "name": "Anna"}]}),
        (ChatBody, {"tools": [{"type": "function", "function": FUNCTION}]}),
        (ChatBody, {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": True}}}),
        (ChatBody, {"response_format": {"type": "json_object", "schema": SCHEMA}}),
        (ChatBody, {"messages": "no list", "tools": 5, "response_format": None, "stream_options": None}),
        (InputBody, {"input": [{"type": "message", "role": "assistant", "id": "m", "status": "completed"}]}),
        (InputBody, {"input": [{"type": "something_new", "whatever": 1}]}),  # refused elsewhere, by its type
        (MessagesBody, {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]}),
        (OllamaChatBody, {"format": SCHEMA, "options": {"temperature": 0, "num_gpu": None}}),
    ],
    ids=range(10),
)
def test_RQ33_what_is_read_or_is_the_callers_own_is_not_named(kind, body):
    assert unread(body, kind) == []


def test_RQ33_the_header_names_them_and_a_strict_server_refuses_them(demo, demo_store, tmp_path):
    body = {"messages": [HI | {"weight": 1}], "max_tokens": 1, "stream_options": {"other": 1}}
    answer = demo.ask(CHAT, body)
    assert answer.status == 200 and answer.headers["x-ignored-fields"] == "messages.weight, stream_options.other"
    odd = demo.ask(CHAT, body | {"messages": [HI | {"a\r\nSet-Cookie: b": 1}]})
    assert odd.status == 200 and "set-cookie" not in odd.headers
    demo_store()
    with serving(tmp_path, "--strict", "--kv-tokens", "4096") as strict:
        refused = strict.ask(CHAT, body)
        assert refused.status == 400 and "messages.weight" in refused.json["error"]["message"]
        plain = {"messages": [HI | {"name": "Anna"}], "max_tokens": 1, "stream_options": {"include_usage": True}}
        assert strict.ask(CHAT, plain).status == 200
