"""Answers in Ollama's form, streamed and whole, against a running server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phi4mini.server.dialects.ollama.chat import on_one_line
from tests.server.process import CHAT

HI = [{"role": "user", "content": "Say hi to Anna."}]
CITY = {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_time", "parameters": CITY | {"additionalProperties": False}}}
BOTH = ["/api/chat", "/api/generate"]


def asked(path: str, text: str = "Say hi to Anna.", **more: Any) -> dict[str, Any]:
    given = {"messages": [{"role": "user", "content": text}]} if path == "/api/chat" else {"prompt": text}
    return {"model": "demo", **given, **more}


def lines(answer: Any) -> list[dict[str, Any]]:
    assert answer.status == 200 and answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.body.decode().removesuffix("\n").split("\n")]


def text_of(line: dict[str, Any]) -> str:
    return line["message"]["content"] if "message" in line else line["response"]


OPTIONS = [
    {},
    {"num_predict": 1},
    {"num_predict": 30},
    {"temperature": 1.2, "seed": 7},
    {"temperature": 1.2, "seed": -7, "top_k": 20},
    {"stop": ["!"]},
    {"stop": ["there", "Anna"]},
    {"repeat_penalty": 1.3},
    {"presence_penalty": 1.0, "frequency_penalty": 1.0},
    {"top_p": 0.5, "min_p": 0.1, "temperature": 1.0, "seed": 3},
]


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_PR2_and_PR3_streamed_and_whole_are_the_same(demo, path, options):
    options = {"num_predict": 40} | options
    whole = demo.ask(path, asked(path, options=options, stream=False)).json
    streamed = lines(demo.ask(path, asked(path, options=options)))  # a stream, unless told otherwise
    assert "".join(map(text_of, streamed)) == text_of(whole)
    assert [line["done"] for line in streamed] == [False] * (len(streamed) - 1) + [True]
    assert all(line["model"] == "demo" and line["created_at"].endswith("Z") for line in streamed)
    last = streamed[-1]
    for name in ("done_reason", "prompt_eval_count", "eval_count"):
        assert last[name] == whole[name]
    spent = last["load_duration"] + last["prompt_eval_duration"] + last["eval_duration"]
    assert 0 < spent <= last["total_duration"] and last["eval_duration"] >= 0


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_PR2_the_answer_is_that_of_the_openai_route(demo, options):
    ours = {"num_predict": "max_tokens", "repeat_penalty": "repetition_penalty"}
    options = {"num_predict": 40} | options
    body = {"messages": HI} | {ours.get(name, name): value for name, value in options.items()}
    same = demo.ask(CHAT, body).json
    made = demo.ask("/api/chat", {"model": "demo", "messages": HI, "options": options, "stream": False}).json
    assert made["message"] == {"role": "assistant", "content": same["choices"][0]["message"]["content"]}
    assert made["eval_count"] == same["usage"]["completion_tokens"]
    assert made["done_reason"] == same["choices"][0]["finish_reason"]


def test_PR2_log_probabilities_come_with_the_text(demo):
    more = {"logprobs": True, "top_logprobs": 2, "options": {"num_predict": 12, "stop": ["Anna"]}}
    whole = demo.ask("/api/chat", asked("/api/chat", **more, stream=False)).json
    streamed = lines(demo.ask("/api/chat", asked("/api/chat", **more)))
    assert [entry for line in streamed for entry in line.get("logprobs", ())] == whole["logprobs"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in whole["logprobs"])
    assert whole["message"]["content"].startswith("".join(entry["token"] for entry in whole["logprobs"]))


def test_PR2_a_last_message_of_the_assistant_is_continued(demo):
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    turns += [{"role": "assistant", "content": "The capital of France is"}]
    body = {"model": "demo", "messages": turns, "stream": False, "options": {"num_predict": 4}}
    assert "Paris" in demo.ask("/api/chat", body).json["message"]["content"]


@pytest.mark.parametrize("path", BOTH)
def test_PR2_and_PR3_nothing_asked_is_a_wish_that_the_model_be_there(demo, path):
    for more in ({}, {"keep_alive": "5m"}, {"stream": False}):
        (line,) = (
            lines(answer)
            if (answer := demo.ask(path, {"model": "demo", **more})).headers["content-type"] != "application/json"
            else [answer.json]
        )
        assert line["done"] is True and line["done_reason"] == "load" and text_of(line) == ""
        assert answer.headers.get("x-ignored-fields") == ("keep_alive" if "keep_alive" in more else None)


def test_PR3_a_system_text_is_a_system_turn(demo):
    options = {"num_predict": 12}
    made = demo.ask("/api/generate", asked("/api/generate", system="Answer in French.", options=options, stream=False))
    turns = [{"role": "system", "content": "Answer in French."}, *HI]
    same = demo.ask("/api/chat", {"model": "demo", "messages": turns, "options": options, "stream": False})
    assert made.json["response"] == same.json["message"]["content"]
    assert made.json["prompt_eval_count"] == same.json["prompt_eval_count"]


def test_PR3_raw_is_the_text_as_the_model_sees_it(demo):
    """A prompt written out with its control tokens is the conversation that it spells."""
    spelled = demo.ask("/render", {"messages": HI}).json
    body = {"model": "demo", "prompt": spelled["prompt"], "raw": True, "stream": False, "options": {"num_predict": 16}}
    made = demo.ask("/api/generate", body).json
    assert made["prompt_eval_count"] == spelled["count"]
    assert made["response"] == demo.ask(CHAT, {"messages": HI, "max_tokens": 16}).text


def test_PR4_a_call_comes_whole_and_its_arguments_are_an_object(demo):
    """A small model calls a tool when it has seen how: three times in the conversation."""
    tool = {"type": "function", "function": {"name": "get_time", "description": "The time.", "parameters": CITIES}}
    turns: list[dict[str, Any]] = []
    for city in ("Oslo", "Rome", "Lima"):
        call = {"function": {"name": "get_time", "arguments": {"city": city}}}
        turns += [{"role": "user", "content": f"What time is it in {city}?"}]
        turns += [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "noon"}]
        turns += [{"role": "assistant", "content": f"It is noon in {city}."}]
    turns.append({"role": "user", "content": "What time is it in Oslo?"})
    body = {"model": "demo", "messages": turns, "tools": [tool], "options": {"num_predict": 60}}
    whole = demo.ask("/api/chat", body | {"stream": False}).json
    (call,) = whole["message"]["tool_calls"]
    assert call["function"] == {"index": 0, "name": "get_time", "arguments": {"city": "Oslo"}}
    assert whole["message"]["content"] == "" and whole["done_reason"] == "stop"
    streamed = lines(demo.ask("/api/chat", body))
    (piece,) = [line["message"]["tool_calls"] for line in streamed if "tool_calls" in line["message"]]
    assert [one["function"] for one in piece] == [call["function"]] and "".join(map(text_of, streamed)) == ""
    again = [*turns, whole["message"], {"role": "tool", "content": "noon", "tool_name": "get_time"}]
    assert demo.ask("/api/chat", body | {"messages": again, "stream": False}).json["done"]


CITIES = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome", "Lima"]}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ('{"a": 1}', '{"a":1}'),
        ('{\n  "a": [\n 1,\r\n 2]\n}', '{"a":[1,2]}'),
        ("{}", "{}"),
        ("", "{}"),
        (" { } ", "{}"),
        ('{"a": 1e400}', '{"a":1e400}'),
        ('{"a": 12345678901234567890123}', '{"a":12345678901234567890123}'),
        ('{"a": 1.10}', '{"a":1.10}'),
        ('{"a": "line\\nend  two"}', '{"a":"line\\nend  two"}'),
        ('{"a": "\\u00e9 é 😀"}', '{"a":"\\u00e9 é 😀"}'),
        ('{"a": null, "a": true}', '{"a":null,"a":true}'),
    ],
    ids=range(11),
)
def test_PR4_arguments_are_what_was_written_on_one_line(written, line):
    assert bytes(on_one_line(written)).decode() == line


@pytest.mark.parametrize("server", ["demo", "phi"])
def test_PR4_a_call_and_its_result_are_what_the_model_sees(request, server):
    """Of models whose calls are text and whose calls are tokens."""
    running = request.getfixturevalue(server)
    turns = [*HI, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "noon"}]
    body = {"model": "default", "messages": turns, "tools": [TOOL], "options": {"num_predict": 8}, "stream": False}
    assert running.ask("/api/chat", body).json["done_reason"] in ("stop", "length")
    rendered = running.ask("/render", {"messages": as_openai(turns), "tools": [TOOL]}).json
    assert running.ask("/api/chat", body).json["prompt_eval_count"] == rendered["count"]


CALL = {"function": {"name": "get_time", "arguments": {"city": "Oslo"}}}


def as_openai(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    call = {"id": "c", "type": "function", "function": {"name": "get_time", "arguments": '{"city": "Oslo"}'}}
    made = [dict(turn) for turn in turns]
    made[1]["tool_calls"], made[2]["tool_call_id"] = [call], "c"
    return made


FORMATS = [
    ({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False}, {"a": 1}),
    ({"const": "x"}, "x"),
    ({"enum": [True]}, True),
    ({"type": "null"}, None),
    ({"type": "array", "items": {"const": 0}, "minItems": 3, "maxItems": 3}, [0, 0, 0]),
    ({"anyOf": [{"const": {"b": []}}]}, {"b": []}),
    ({"type": "array", "maxItems": 0, "items": {}}, []),
    ({"const": ""}, ""),
    ({"$defs": {"d": {"const": 4}}, "$ref": "#/$defs/d"}, 4),
    ({"const": -1.5}, -1.5),
]


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize(("format", "document"), FORMATS, ids=range(10))
def test_PR5_a_schema_is_held(demo, path, format, document):
    made = demo.ask(path, asked(path, format=format, stream=False, options={"num_predict": 60})).json
    assert json.loads(text_of(made)) == document


@pytest.mark.parametrize("path", BOTH)
def test_PR5_json_is_an_object_and_anything_else_is_refused(demo, path):
    made = demo.ask(path, asked(path, format="json", stream=False, options={"num_predict": 300})).json
    assert isinstance(json.loads(text_of(made)), dict)
    wrong = demo.ask(path, asked(path, format="yaml"))
    assert wrong.status == 400 and "yaml" in wrong.json["error"]


IGNORED = ["num_gpu", "num_thread", "num_batch", "main_gpu", "low_vram", "use_mmap", "mirostat", "tfs_z", "num_keep"]
IGNORED += ["typical_p", "repeat_last_n", "numa", "penalize_newline"]


@pytest.mark.parametrize("name", IGNORED)
def test_PR6_options_for_another_runner_are_named(demo, name):
    answer = demo.ask("/api/chat", asked("/api/chat", options={name: 1, "num_predict": 1}, stream=False))
    assert answer.status == 200 and answer.headers["x-ignored-fields"] == f"options.{name}"


def test_PR6_a_context_is_held_up_to_what_there_is(demo):
    for size, ignored in ((512, None), (2048, None), (8192, "options.num_ctx")):
        answer = demo.ask("/api/chat", asked("/api/chat", options={"num_ctx": size, "num_predict": 1}))
        assert answer.status == 200 and answer.headers.get("x-ignored-fields") == ignored


@pytest.mark.parametrize("path", BOTH)
def test_PR6_a_limit_beyond_the_context_goes_to_its_end(demo, path):
    long = "word " * 1990
    made = demo.ask(path, asked(path, long, options={"num_predict": 1000}, stream=False)).json
    assert made["done_reason"] in ("stop", "length")
    assert made["prompt_eval_count"] + made["eval_count"] <= 2048
    beyond = demo.ask(path, asked(path, "word " * 3000))
    assert beyond.status == 400 and "2048" in beyond.json["error"]


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize("think", [True, "low", "high"])
def test_PR7_this_model_does_not_think(demo, path, think):
    answer = demo.ask(path, asked(path, think=think))
    assert answer.status == 400 and answer.json == {"error": '"demo" does not support thinking'}
    assert demo.ask(path, asked(path, think=False, options={"num_predict": 1})).status == 200


def test_PR8_an_error_in_a_stream_is_its_last_line(demo):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", demo.port, timeout=60)
    body = asked("/api/generate", "Count to a thousand.", raw=True, options={"num_predict": 1900})
    headers = {"Content-Type": "application/json", "X-Timeout": "0.5"}
    connection.request("POST", "/api/generate", json.dumps(body), headers)
    answer = connection.getresponse()
    made = [json.loads(line) for line in answer.read().decode().splitlines()]
    connection.close()
    assert answer.status == 200 and len(made) > 1
    assert list(made[-1]) == ["error"] or made[-1]["done"], made[-1]
