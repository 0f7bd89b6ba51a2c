"""POST /v1/messages on the wire: blocks in, blocks out, Anthropic's events in their order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phi4mini.server.dialects.anthropic.messages_input import turns_from
from tests.server.process import Answer, Server

PATH = "/v1/messages"
NOTE = {
    "name": "note",
    "input_schema": {
        "type": "object",
        "properties": {"text": {"type": "string", "maxLength": 8}},
        "required": ["text"],
        "additionalProperties": False,
    },
}
LONG = "The quick brown fox jumps over the lazy dog. " * 20


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def send(server: Server, *messages: Any, new: int = 12, **more: Any) -> Answer:
    return server.ask(PATH, {"model": "demo", "max_tokens": new, "messages": list(messages), **more})


def test_a_message_is_complete(demo):
    message = send(demo, user("Say hi"), new=60, system="Be brief.").json
    assert message["type"] == "message" and message["role"] == "assistant" and message["model"] == "demo"
    (block,) = message["content"]
    assert block["type"] == "text" and block["text"]
    assert message["stop_reason"] == "end_turn" and message["stop_sequence"] is None


def test_why_it_stopped(demo):
    assert send(demo, user("Count to fifty"), new=3).json["stop_reason"] == "max_tokens"
    text = send(demo, user("Say hi"), new=12).json["content"][0]["text"]
    stop = text[4:7]
    message = send(demo, user("Say hi"), stop_sequences=["never", stop]).json
    assert message["stop_reason"] == "stop_sequence" and message["stop_sequence"] == stop
    assert message["content"][0]["text"] == text[: text.index(stop)]


@pytest.mark.parametrize("tools", [{}, {"tools": [NOTE], "tool_choice": {"type": "tool", "name": "note"}}])
def test_a_streams_events_are_in_order(demo, tools):
    answer = send(demo, user("Note it"), new=90, stream=True, **tools)
    events = answer.events
    named = [line[7:] for line in answer.body.decode().split("\n") if line.startswith("event: ")]
    kinds = [event["type"] for event in events]
    assert named == kinds and kinds[:2] == ["message_start", "ping"] and kinds[-2:] == ["message_delta", "message_stop"]
    blocks: list[dict[str, Any]] = []
    for event in events[2:-2]:
        match event:
            case {"type": "content_block_start", "index": index, "content_block": block}:
                assert index == len(blocks)
                blocks.append({**block, "json": "", "open": True})
            case {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}:
                blocks[index]["text"] += text
            case {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": more}}:
                blocks[event["index"]]["json"] += more
            case {"type": "content_block_stop", "index": index}:
                blocks[index]["open"] = False
            case _:
                raise AssertionError(event)
    whole = send(demo, user("Note it"), new=90, **tools).json
    assert not any(block["open"] for block in blocks)
    assert [(b["type"], b.get("text"), json.loads(b["json"] or "{}")) for b in blocks] == [
        (b["type"], b.get("text"), b.get("input", {})) for b in whole["content"]
    ]
    delta = events[-2]
    assert delta["delta"]["stop_reason"] == whole["stop_reason"] == ("tool_use" if tools else whole["stop_reason"])
    assert delta["usage"]["output_tokens"] == whole["usage"]["output_tokens"]


def test_what_an_earlier_request_left_is_read_from_the_cache(demo):
    first = send(demo, user(LONG), new=1, cache_control={"type": "ephemeral"}).json["usage"]
    second = send(demo, user(LONG), new=1).json["usage"]
    assert first["cache_read_input_tokens"] == 0 and first["input_tokens"] > 200
    assert second["cache_read_input_tokens"] >= 128 and second["cache_creation_input_tokens"] == 0
    assert second["input_tokens"] + second["cache_read_input_tokens"] == first["input_tokens"]


def test_blocks_are_read_in_their_order(demo):
    """The same ids as the conversation in OpenAI's form."""
    messages = [
        user(
            [{"type": "text", "text": "Note "}, {"type": "text", "text": "it", "cache_control": {"type": "ephemeral"}}]
        ),
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Sure."},
                {"type": "tool_use", "id": "t1", "name": "note", "input": {"text": "a"}},
            ],
        },
        user(
            [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": [{"type": "text", "text": "full"}],
                    "is_error": True,
                },
                {"type": "text", "text": "And now?"},
            ]
        ),
    ]
    system = [{"type": "text", "text": "Be brief."}]
    body = {"model": "demo", "messages": messages, "system": system, "tools": [NOTE]}
    counted = demo.ask(f"{PATH}/count_tokens", body).json
    call = {"id": "t1", "function": {"name": "note", "arguments": {"text": "a"}}}
    chat = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            user("Note \nit"),
            {"role": "assistant", "content": "Sure.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "t1", "content": "error: full"},
            user("And now?"),
        ],
        "tools": [{"type": "function", "function": {"name": "note", "parameters": NOTE["input_schema"]}}],
    }
    rendered = demo.ask("/render", chat).json
    assert counted == {"input_tokens": rendered["count"]}
    usage = demo.ask(PATH, body | {"max_tokens": 1}).json["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == rendered["count"]


def test_a_last_message_of_the_assistant_is_continued(demo):
    said = {"role": "assistant", "content": "The capital of France is"}
    message = send(demo, user("What is the capital of France?"), said, new=4).json
    assert "Paris" in message["content"][0]["text"]


def test_output_config_is_followed(demo):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    closed = schema | {"additionalProperties": False}
    config = {"format": {"type": "json_schema", "schema": closed}, "effort": "low"}
    answer = send(demo, user("Fine?"), new=40, output_config=config, thinking={"type": "adaptive"})
    assert isinstance(json.loads(answer.json["content"][0]["text"])["ok"], bool)
    assert answer.headers["x-ignored-fields"] == "output_config.effort, thinking"


@pytest.mark.parametrize("type", ["image", "document", "thinking", "server_tool_use"])
def test_blocks_that_cannot_be_read_are_named(demo, type):
    answer = send(demo, user([{"type": "text", "text": "See:"}, {"type": type, "source": {}}]))
    assert answer.status == 400 and answer.json["type"] == "error"
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert "messages[0].content[1]" in answer.json["error"]["message"] and type in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [user(5)]}, "messages[0].content"),
        ({"messages": [user([{"type": "tool_result", "tool_use_id": "t9", "content": "x"}])]}, "t9"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "a"}]}, "tools[0].input_schema"),
        ({"tools": [NOTE], "tool_choice": {"type": "tool", "name": "other"}}, "other"),
        ({"tools": [NOTE], "tool_choice": {"type": "maybe"}}, "tool_choice"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"temperature": 101}, "temperature"),
        ({"output_config": {"format": {"type": "text"}}}, "output_config.format"),
    ],
    ids=range(13),
)
def test_what_is_wrong_is_named_in_anthropics_form(demo, fields, named):
    answer = demo.ask(PATH, {"model": "demo", "max_tokens": 1, "messages": [user("hi")], **fields})
    assert answer.status == 400, answer.body
    assert answer.json["error"]["type"] == "invalid_request_error" and named in answer.json["error"]["message"]


def test_what_does_not_fit_is_an_error_before_the_stream(demo):
    answer = send(demo, user("word " * 5000), stream=True)
    assert answer.status == 400 and "2048" in answer.json["error"]["message"] and answer.json["type"] == "error"


# ---- a coding agent's billing line

HEADER = "x-anthropic-billing-header: cc_version=2.1.100; cch="
SYSTEMS = [  # how a system text comes with that line first
    lambda cch: [{"type": "text", "text": f"{HEADER}{cch};"}, {"type": "text", "text": LONG}],
    lambda cch: [{"type": "text", "text": f"{HEADER}{cch};\n"}, {"type": "text", "text": LONG}],
    lambda cch: [{"type": "text", "text": f"{HEADER}{cch};\n{LONG}"}],
    lambda cch: f"{HEADER}{cch};\n{LONG}",
    lambda cch: [{"type": "text", "text": f"{HEADER}{cch};", "cache_control": {"type": "ephemeral"}},
                 {"type": "text", "text": LONG[:400]}, {"type": "text", "text": LONG[400:]}],
]  # fmt: skip


@pytest.mark.parametrize("system", SYSTEMS, ids=range(len(SYSTEMS)))
def test_RQ14_a_billing_line_does_not_break_the_prefix_cache(demo, system):
    first = send(demo, user("hi"), new=1, system=system("aaaaa"))
    again = send(demo, user("hi"), new=1, system=system("bbbbb"))
    assert first.headers["x-ignored-fields"] == "system.x-anthropic-billing-header"
    usage = again.json["usage"]
    assert usage["cache_read_input_tokens"] >= 128 and usage["input_tokens"] <= 64


@pytest.mark.parametrize(
    ("system", "kept"),
    [
        (f"{HEADER}a;", None),
        (f"{HEADER}a;\nBe brief.", "Be brief."),
        (f"{HEADER}a;\n\nBe brief.", "\nBe brief."),
        ([{"type": "text", "text": f"{HEADER}a;"}], None),
        ([{"type": "text", "text": f"{HEADER}a;"}, {"type": "text", "text": "Be brief."}], "Be brief."),
        ([{"type": "text", "text": "Be brief."}, {"type": "text", "text": f"{HEADER}a;"}], f"Be brief.\n{HEADER}a;"),
        (f"Be brief.\n{HEADER}a;", f"Be brief.\n{HEADER}a;"),
        (f" {HEADER}a;", f" {HEADER}a;"),
        (f"The {HEADER}a;", f"The {HEADER}a;"),
        ("x-anthropic-billing: a\nBe brief.", "x-anthropic-billing: a\nBe brief."),
        (f"{HEADER}a;\n{HEADER}b;", f"{HEADER}b;"),
    ],
    ids=range(11),
)
def test_RQ14_only_a_first_line_that_is_nothing_else_is_left_out(system, kept):
    ignored: list[str] = []
    turns = turns_from([user("hi")], system, ignored.extend)
    assert [turn.content for turn in turns if turn.role == "system"] == ([] if kept is None else [kept])
    assert bool(ignored) == (kept != (system if isinstance(system, str) else "\n".join(b["text"] for b in system)))


def test_RQ14_it_is_not_counted_either(demo):
    body = {"model": "demo", "messages": [user("hi")]}
    plain = demo.ask(f"{PATH}/count_tokens", body | {"system": "Be brief."}).json
    assert demo.ask(f"{PATH}/count_tokens", body | {"system": f"{HEADER}a;\nBe brief."}).json == plain
