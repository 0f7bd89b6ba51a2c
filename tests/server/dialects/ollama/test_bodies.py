"""Bodies of Ollama's clients: options, conversations, formats; unsupported fields are named."""

from __future__ import annotations

import msgspec
import pytest

from phi4mini.errors import BadInput
from phi4mini.server.dialects.ollama.bodies import GenerateBody, OllamaChatBody, Options, turns_from
from phi4mini.server.http.errors import ApiError

CALL = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}
OTHER = {"function": {"name": "time", "arguments": {}}}


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        ({}, {}),
        ({"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7, "top_p": 0.9}),
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"top_k": 40, "min_p": 0.05}, {"top_k": 40, "min_p": 0.05}),
        ({"top_k": -1}, {"top_k": -1}),
        ({"seed": 42}, {"seed": 42}),
        ({"seed": -1}, {"seed": -1}),
        ({"num_predict": 12}, {"max_new_tokens": 12}),
        ({"num_predict": -1}, {}),
        ({"num_predict": -2}, {}),
        ({"num_predict": 0}, {}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop": "a"}, {"stop": ["a"]}),
        ({"stop": []}, {"stop": []}),
        ({"repeat_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"presence_penalty": 1, "frequency_penalty": -1}, {"presence_penalty": 1.0, "frequency_penalty": -1.0}),
        ({"num_ctx": 4096}, {}),
    ],
    ids=str,
)
def test_PR6_options_are_what_they_say(options, keywords):
    assert msgspec.convert(options, Options).sampling(None) == keywords


def user(text: str = "hi") -> dict:
    return {"role": "user", "content": text}


def said(*calls: dict) -> dict:
    return {"role": "assistant", "content": "", "tool_calls": list(calls)}


def result(text: str, **more: str) -> dict:
    return {"role": "tool", "content": text, **more}


@pytest.mark.parametrize(
    ("messages", "answered"),
    [
        ([said(CALL), result("a")], [0]),
        ([said(CALL), result("a", tool_name="weather")], [0]),
        ([said(CALL), result("a", tool_name="unknown")], [0]),
        ([said(CALL, OTHER), result("a"), result("b")], [0, 1]),
        ([said(CALL, OTHER), result("b", tool_name="time"), result("a", tool_name="weather")], [1, 0]),
        ([said(CALL, OTHER), result("b", tool_name="time"), result("a")], [1, 0]),
        ([said(CALL, CALL), result("a", tool_name="weather"), result("b", tool_name="weather")], [0, 1]),
        ([said(CALL), result("a"), user(), said(CALL), result("b")], [0, 1]),
        ([said(CALL | {"id": "x"}, OTHER | {"id": "y"}), result("b", tool_call_id="y"), result("a")], [1, 0]),
        ([said(CALL | {"id": "x"}), result("a", tool_call_id="x")], [0]),
        ([said(CALL), said(OTHER), result("b", name="time"), result("a", name="weather")], [1, 0]),
    ],
    ids=range(11),
)
def test_PR4_a_result_finds_its_call(messages, answered):
    turns = turns_from([user(), *messages])
    ids = [call["id"] for turn in turns for call in turn.get("tool_calls", ())]
    assert [ids.index(turn["tool_call_id"]) for turn in turns if turn["role"] == "tool"] == answered
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (user() | {"images": ["aGk="]}, "messages[1].images"),
        (result("a"), "messages[1]"),
        (said({"name": "f"}), "messages[1].tool_calls[0]"),
        (said() | {"tool_calls": 5}, "messages[1].tool_calls[0]"),
    ],
    ids=range(4),
)
def test_PR7_what_a_conversation_cannot_hold_is_named(message, named):
    with pytest.raises(BadInput, match="^" + named.replace("[", r"\[")):
        turns_from([user(), message])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"images": ["aGk="]}, "images"),
        ({"suffix": "}"}, "does not support insert"),
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"context": [1, 2]}, "context"),
        ({"raw": True, "system": "s"}, "raw mode"),
        ({"raw": True, "template": "t"}, "raw mode"),
        ({"raw": True, "context": [1]}, "raw mode"),
    ],
)
def test_PR7_what_a_question_cannot_hold_is_named(fields, named):
    with pytest.raises(ApiError, match=named) as caught:
        GenerateBody(model="m", prompt="hi", **fields).check()
    assert caught.value.status == 400


@pytest.mark.parametrize("fields", [{"images": []}, {"suffix": ""}, {"template": ""}, {"context": []}, {"raw": False}])
def test_PR7_what_is_empty_is_not_asked_for(fields):
    GenerateBody(model="m", prompt="hi", **fields).check()
    OllamaChatBody(model="m", think=False, format="").check_thinking()
    assert OllamaChatBody(model="m", format="").grammar() is None
