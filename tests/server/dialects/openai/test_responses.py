"""POST /v1/responses on the wire: items in, items out, events in order; fields that need memory are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.process import Answer, Server

PATH = "/v1/responses"
NOTE = {
    "type": "function",
    "name": "note",
    "description": None,
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"text": {"type": "string", "maxLength": 8}},
        "required": ["text"],
        "additionalProperties": False,
    },
}
ORDER = [  # of a stream with one message
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]


def respond(server: Server, given: Any = "Say hi", new: int = 12, **more: Any) -> Answer:
    return server.ask(PATH, {"input": given, "max_output_tokens": new, **more})


def comparable(response: dict[str, Any]) -> Any:
    """A response without what differs from one to the next."""
    items = [{k: v for k, v in item.items() if k not in ("id", "call_id")} for item in response["output"]]
    drop = ("id", "created_at", "seed", "output", "usage")
    return {k: v for k, v in response.items() if k not in drop} | {"items": items}


def test_a_response_is_complete(demo):
    response = respond(demo, instructions="Be brief.", new=60).json
    assert response["object"] == "response" and response["status"] == "completed" and response["error"] is None
    (item,) = response["output"]
    assert item["type"] == "message" and item["status"] == "completed" and item["content"][0]["text"]
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert response["store"] is False and response["instructions"] == "Be brief."


def test_one_that_is_cut_says_so(demo):
    response = respond(demo, "Count to fifty", 3).json
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete" and response["usage"]["output_tokens"] == 3


@pytest.mark.parametrize(("new", "last"), [(60, "response.completed"), (3, "response.incomplete")])
def test_a_streams_events_are_in_order_and_end_with_the_whole(demo, new, last):
    events = respond(demo, new=new, stream=True).events
    kinds = [event["type"] for event in events]
    assert [kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] != kind] == [*ORDER, last]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    done = {event["type"]: event for event in events}
    assert done["response.output_text.done"]["text"] == text
    assert done["response.content_part.done"]["part"]["text"] == text
    whole = events[-1]["response"]
    assert whole["output"] == [done["response.output_item.done"]["item"]]
    assert comparable(whole) == comparable(respond(demo, new=new).json)


def test_calls_are_streamed_as_items(demo):
    fields = {"tools": [NOTE], "tool_choice": "required", "parallel_tool_calls": False}
    events = respond(demo, "Note it", 80, stream=True, **fields).events
    kinds = [event["type"] for event in events]
    parts = ["response.function_call_arguments.delta", "response.function_call_arguments.done"]
    expected = [*ORDER[:3], *parts, "response.output_item.done", "response.completed"]
    assert [kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] != kind] == expected
    arguments = "".join(event["delta"] for event in events if event["type"] == parts[0])
    (item,) = events[-1]["response"]["output"]
    assert item["arguments"] == arguments and set(json.loads(arguments)) == {"text"} and item["call_id"]
    assert comparable(events[-1]["response"]) == comparable(respond(demo, "Note it", 80, **fields).json)


def test_a_call_and_its_result_go_back_as_items(demo):
    called = respond(demo, "Note it", 80, tools=[NOTE], tool_choice="required", parallel_tool_calls=False).json
    (call,) = called["output"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "done"}
    items = [{"role": "user", "content": "Note it"}, call, result]
    counted = demo.ask(f"{PATH}/input_tokens", {"input": items, "tools": [NOTE]}).json
    answer = respond(demo, items, tools=[NOTE], tool_choice="none").json
    assert answer["status"] in ("completed", "incomplete") and counted["object"] == "response.input_tokens"
    function = {key: NOTE[key] for key in ("name", "parameters")}
    arguments = call["arguments"]
    chat = {
        "messages": [
            {"role": "user", "content": "Note it"},
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "function": {"name": "note", "arguments": arguments}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "done"},
        ],
        "tools": [{"type": "function", "function": function}],
    }
    assert counted["input_tokens"] == demo.ask("/render", chat).json["count"]


def test_text_format_is_followed(demo):
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}}}
    closed = schema | {"required": ["n"], "additionalProperties": False}
    format = {"type": "json_schema", "name": "n", "schema": closed, "strict": True}
    response = respond(demo, "A number", 40, text={"format": format}).json
    assert 0 <= json.loads(response["output"][0]["content"][0]["text"])["n"] <= 9
    assert response["text"]["format"]["name"] == "n"


def test_logprobs_are_the_chats(demo):
    response = respond(demo, "Say hi", 5, top_logprobs=2, include=["message.output_text.logprobs"]).json
    body = {"messages": [{"role": "user", "content": "Say hi"}], "max_tokens": 5, "logprobs": True, "top_logprobs": 2}
    chat = demo.ask("/v1/chat/completions", body).json
    assert response["output"][0]["content"][0]["logprobs"] == chat["choices"][0]["logprobs"]["content"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"include": [""]}, "include"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.json_schema"),
    ],
)
def test_what_needs_memory_or_is_not_there_is_refused(demo, fields, param):
    answer = demo.ask(PATH, {"input": "hi", **fields})
    assert answer.status == 400 and answer.json["error"]["param"] == param, answer.body


def test_store_may_be_declined(demo):
    assert respond(demo, new=1, store=False, previous_response_id=None, truncation="disabled").status == 200


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], "input is empty"),
        ([{"type": "item_reference", "id": "msg_1"}], "input[0]"),
        ([{"type": "web_search_call", "id": "w"}], "input[0]"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}], "input[0].content[0]"),
        ([{"role": "robot", "content": "hi"}], "input[0].role"),
        (["hi"], "input[0]"),
        ([{"type": "function_call_output", "call_id": "c", "output": "x"}], "input[0].call_id 'c'"),
        (5, "input"),
    ],
)
def test_items_that_cannot_be_read(demo, given, named):
    answer = respond(demo, given)
    assert answer.status == 400 and named in answer.json["error"]["message"], answer.body


@pytest.mark.parametrize("verbosity", ["low", "medium", "high", None])
def test_RQ15_a_wish_for_verbosity_is_named_where_it_changes_nothing(demo, verbosity):
    answer = respond(demo, new=1, text={"verbosity": verbosity})
    named = answer.headers.get("x-ignored-fields")
    assert answer.status == 200 and named == ("text.verbosity" if verbosity in ("low", "high") else None)


@pytest.mark.parametrize("verbosity", ["", "LOW", "none", 0, 1, True, [], {}, ["low"], "medium "])
def test_RQ15_what_is_none_is_refused(demo, verbosity):
    answer = respond(demo, new=1, text={"verbosity": verbosity})
    assert answer.status == 400 and answer.json["error"]["param"] == "text.verbosity"
