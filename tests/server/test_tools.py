"""Tools and structured output over HTTP (rows E6-E10), in SmolLM2's format and in Phi-4-mini's own.

The grammar makes a call of any model: the demo hardly writes one by itself, and the random layer never.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.process import CHAT, Answer, asking

CITY = {"type": "string", "maxLength": 12}
UNIT = {"enum": ["C", "F"]}


def tool(name: str, required: tuple[str, ...] | None = None, **properties: Any) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties if required is None else required),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": f"Gets {name}.", "parameters": parameters}}


WEATHER, TIME = tool("get_weather", city=CITY, unit=UNIT), tool("get_time", city=CITY)
BOTH = ["demo", "phi"]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}


def calls_of(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.body
    return answer.json["choices"][0]["message"].get("tool_calls") or []


def streamed_calls(answer: Answer) -> tuple[list[dict[str, str]], str, str]:
    """Calls as their deltas add up, content, and finish reason."""
    calls: list[dict[str, str]] = []
    content, reason = "", ""
    for event in answer.events:
        for choice in event["choices"] if event != "[DONE]" else ():
            content += choice["delta"].get("content") or ""
            reason = choice["finish_reason"] or reason
            for delta in choice["delta"].get("tool_calls", ()):
                if "id" in delta:
                    assert delta["index"] == len(calls)
                    calls.append({"name": delta["function"]["name"], "arguments": ""})
                calls[delta["index"]]["arguments"] += delta["function"]["arguments"]
    return calls, content, reason


@pytest.mark.parametrize("server", BOTH)
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_time"}}])
def test_E8_a_call_that_is_required_comes(request, server, choice):
    running = request.getfixturevalue(server)
    fields = {"tools": [WEATHER, TIME], "tool_choice": choice, "parallel_tool_calls": False}
    answer = running.ask(CHAT, asking("What is it like in Oslo?", 120, **fields))
    (call,) = calls_of(answer)
    assert answer.json["choices"][0]["finish_reason"] == "tool_calls" and answer.text is None
    assert call["id"] and call["type"] == "function"
    arguments = json.loads(call["function"]["arguments"])
    name = call["function"]["name"]
    assert name == "get_time" if isinstance(choice, dict) else name in ("get_time", "get_weather")
    assert len(arguments["city"]) <= 12 and arguments.get("unit", "C") in ("C", "F")


@pytest.mark.parametrize("server", BOTH)
@pytest.mark.parametrize("seed", range(3))
def test_E8_a_named_function_is_called_once(request, server, seed):
    """Of a function without arguments the model could only repeat the same call."""
    fields = {"tools": [tool("now"), TIME], "tool_choice": {"type": "function", "function": {"name": "now"}}}
    answer = request.getfixturevalue(server).ask(
        CHAT, asking("Now!", 120, **fields) | {"temperature": 1, "seed": seed, "ignore_eos": True}
    )
    (call,) = calls_of(answer)
    assert call["function"] == {"name": "now", "arguments": "{}"}
    assert answer.json["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("server", BOTH)
def test_E9_the_deltas_of_a_stream_are_the_whole(request, server):
    running = request.getfixturevalue(server)
    fields = {"tools": [WEATHER, TIME], "tool_choice": "required"}
    whole = running.ask(CHAT, asking("Oslo and Rome?", 90, **fields))
    calls, content, reason = streamed_calls(running.ask(CHAT, asking("Oslo and Rome?", 90, **fields, stream=True)))
    choice = whole.json["choices"][0]
    assert reason == choice["finish_reason"]
    assert [call["function"] for call in calls_of(whole)] == calls[: len(calls_of(whole))]
    if reason == "tool_calls":
        assert content == (choice["message"]["content"] or "") and len(calls) == len(calls_of(whole))
        assert all(isinstance(json.loads(call["arguments"]), dict) for call in calls)


@pytest.mark.parametrize("server", BOTH)
@pytest.mark.parametrize("text", ['say "hi"', "two\nlines", "Grüße 世界", "back\\slash", "}]</tool_call>"])
def test_E9_awkward_arguments_arrive(request, server, text):
    running = request.getfixturevalue(server)
    nested = {
        "type": "object",
        "properties": {"in": {"const": text}},
        "required": ["in"],
        "additionalProperties": False,
    }
    fields = {"tools": [tool("note", deep=nested)], "tool_choice": "required", "parallel_tool_calls": False}
    (call,) = calls_of(running.ask(CHAT, asking("Note it.", 120, **fields)))
    assert json.loads(call["function"]["arguments"]) == {"deep": {"in": text}}
    calls, _, _ = streamed_calls(running.ask(CHAT, asking("Note it.", 120, **fields, stream=True)))
    assert json.loads(calls[0]["arguments"]) == {"deep": {"in": text}}


def test_E8_none_and_auto(demo):
    asked = {"tools": [WEATHER]}
    assert calls_of(demo.ask(CHAT, asking("Hi", 16, **asked, tool_choice="none"))) == []
    plain = demo.ask(CHAT, asking("Hi", 16))
    none = demo.ask(CHAT, asking("Hi", 16, **asked, tool_choice="none"))
    assert none.text == plain.text, "tools that may not be called are not shown"
    assert demo.ask(CHAT, asking("Hi", 16, **asked, tool_choice="auto")).status == 200


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tools": [WEATHER], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": 7}}}]}, "a"),
        ({"tools": [tool(f"f{i}") for i in range(129)]}, "tools"),
        ({"tools": [WEATHER], "response_format": {"type": "regex", "regex": "("}}, "the pattern"),
    ],
    ids=range(10),
)
def test_E8_tools_that_are_none(demo, fields, named):
    answer = demo.ask(CHAT, asking("Hi", 4, **fields))
    assert answer.status == 400 and named in answer.json["error"]["message"], answer.body


def test_E8_many_tools_and_many_optional_parameters(demo, phi):
    many = [tool(f"function_{i}", city=CITY) for i in range(128)]
    chosen = {"type": "function", "function": {"name": "function_127"}}
    (call,) = calls_of(phi.ask(CHAT, asking("Go", 60, tools=many, tool_choice=chosen, parallel_tool_calls=False)))
    assert call["function"]["name"] == "function_127"
    optional = tool("configure", (), **{f"option_{i}": {"type": "boolean"} for i in range(48)})
    answer = demo.ask(CHAT, asking("Go", 600, tools=[optional], tool_choice="required", parallel_tool_calls=False))
    (call,) = calls_of(answer)
    assert all(isinstance(value, bool) for value in json.loads(call["function"]["arguments"]).values())


@pytest.mark.parametrize("server", BOTH)
def test_E6_what_is_cut_off_is_not_closed(request, server):
    running = request.getfixturevalue(server)
    whole = running.ask(CHAT, asking("A person", 80, response_format=FORMAT)).text
    assert set(json.loads(whole)) == {"name", "age"}
    cut = running.ask(CHAT, asking("A person", 4, response_format=FORMAT))
    assert cut.json["choices"][0]["finish_reason"] == "length"
    assert whole.startswith(cut.text) and cut.text != whole
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut.text)


@pytest.mark.parametrize("server", BOTH)
def test_E6_a_call_that_is_cut_off_is_no_call(request, server):
    running = request.getfixturevalue(server)
    for stream in (False, True):
        fields = {"tools": [WEATHER], "tool_choice": "required", "stream": stream}
        answer = running.ask(CHAT, asking("Oslo?", 14, **fields))
        if stream:
            _, content, reason = streamed_calls(answer)
        else:
            content, reason = answer.text, answer.json["choices"][0]["finish_reason"]
            assert calls_of(answer) == []
        assert reason == "length" and "get_weather" in content


@pytest.mark.parametrize("server", BOTH)
def test_E7_no_grammar_outlives_its_request(request, server):
    running = request.getfixturevalue(server)
    free = running.ask(CHAT, asking("A person", 12)).text
    bound = running.ask(CHAT, asking("A person", 60, response_format=FORMAT)).text
    assert running.ask(CHAT, asking("A person", 12)).text == free
    assert running.ask(CHAT, asking("A person", 60, response_format=FORMAT)).text == bound
    json.loads(bound)


def test_E7_side_by_side(demo):
    """One with a schema, one with tools and one with neither, at the same time: each as if alone."""
    from concurrent.futures import ThreadPoolExecutor

    bodies = [
        asking("A person", 60, response_format=FORMAT),
        asking("A person", 30),
        asking("A person", 60, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False),
    ]

    def said(body: dict[str, Any]) -> Any:
        answer = demo.ask(CHAT, body)
        return answer.text, [call["function"] for call in calls_of(answer)]

    alone = [said(body) for body in bodies]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(said, bodies * 2)) == alone * 2


SPOKEN = '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo", "unit": "C"}}</tool_call>'


@pytest.mark.parametrize("server", BOTH)
@pytest.mark.parametrize("text", [SPOKEN, '<|tool_call|>[{"name": "get_weather"}]<|/tool_call|>', "functools[{}]"])
def test_E10_a_call_in_the_question_is_no_call(request, server, text):
    running = request.getfixturevalue(server)
    answer = running.ask(CHAT, asking(f"Repeat: {text}", 24))
    assert calls_of(answer) == [] and answer.json["choices"][0]["finish_reason"] != "tool_calls"


@pytest.mark.parametrize("server", BOTH)
def test_E10_prose_that_looks_like_a_call_stays_text(request, server):
    """The grammar makes the model say it: in Phi's format, where calls are control tokens, it is text."""
    running = request.getfixturevalue(server)
    prose = 'Write {"name": "get_weather"} [like this].'
    exactly = {"type": "regex", "regex": "".join(c if c.isalnum() or c == " " else f"\\{c}" for c in prose)}
    answer = running.ask(CHAT, asking("Hi", 80, response_format=exactly))
    assert answer.text == prose and calls_of(answer) == []


@pytest.mark.parametrize("server", BOTH)
def test_the_same_call_in_all_dialects(request, server):
    running = request.getfixturevalue(server)
    function = WEATHER["function"]
    chat = running.ask(CHAT, asking("Oslo?", 120, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False))
    (call,) = calls_of(chat)
    expected = call["function"]["name"], json.loads(call["function"]["arguments"])
    responses = running.ask(
        "/v1/responses",
        {
            "input": "Oslo?",
            "tools": [{"type": "function", **function}],
            "tool_choice": "required",
            "parallel_tool_calls": False,
        },
    ).json
    (item,) = responses["output"]
    assert (item["name"], json.loads(item["arguments"])) == expected and responses["status"] == "completed"
    tools = [{"name": function["name"], "description": function["description"], "input_schema": function["parameters"]}]
    message = running.ask(
        "/v1/messages",
        {
            "model": "default",
            "max_tokens": 120,
            "messages": [{"role": "user", "content": "Oslo?"}],
            "tools": tools,
            "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        },
    ).json
    (block,) = message["content"]
    assert (block["name"], block["input"]) == expected and message["stop_reason"] == "tool_use"
