"""Error messages (row B10): they name the field as the request does, a code, and the allowed values."""

from __future__ import annotations

import re

import pytest

from tests.server.http.test_parse_body import ROUTES
from tests.server.process import CHAT


@pytest.mark.parametrize(
    ("path", "fields", "param", "message"),
    [
        (CHAT, {"messages": ...}, "messages", "messages is missing"),
        ("/v1/completions", {"prompt": ...}, "prompt", "prompt is missing"),
        ("/v1/embeddings", {}, "input", "input is missing"),
        (CHAT, {"messages": [{"content": "hi"}]}, "messages[0].role", "messages[0].role is missing; known roles"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", "messages[0].content is missing or null"),
        (CHAT, {"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "'f' is not among"),
        (CHAT, {"max_tokens": 3, "min_tokens": 50}, "min_tokens", "min_tokens 50 is above max_tokens 3"),
        (CHAT, {"stop_token_ids": [999999]}, "stop_token_ids", "stop_token_ids: id 999999 is beyond"),
        ("/v1/responses", {"max_output_tokens": 3, "min_tokens": 5}, "min_tokens", "5 is above max_output_tokens 3"),
        (CHAT, {"rope": "yarn"}, "rope", "'yarn'; it can be auto, long, short"),
        ("/v1/responses", {"text": {"verbosity": "least"}}, "text.verbosity", "'least'; it can be high, low, medium"),
        ("/v1/embeddings", {"input": "hi", "encoding_format": "hex"}, "encoding_format", "it can be base64, float"),
        (
            CHAT,
            {"logit_bias": {"5": 1, "6": 1, "7": 101, "8": 1}},
            "logit_bias[7]",
            "logit_bias[7]: Expected `float` <=",
        ),
        (CHAT, {"logit_bias": {"5\n": "1"}}, "logit_bias[5\\n]", "Expected `float`, got `str`"),
        (CHAT, {"metadata": {"a": "b", "c": 5}}, "metadata[c]", "Expected `str`, got `int`"),
        ("/v1/completions", {"max_tokens": 0}, "max_tokens", "nothing is asked for"),
    ],
)
def test_B10_a_refusal_names_the_field_and_says_what_would_be_right(demo, path, fields, param, message):
    body = {name: value for name, value in (ROUTES.get(path, {}) | fields).items() if value is not ...}
    answer = demo.ask(path, body)
    error = answer.json["error"]
    assert (answer.status, error["param"], error["code"]) == (400, param, "invalid_value"), error
    assert message in error["message"], error


def test_B10_anthropics_form_uses_its_own_names_too(demo):
    for message, body in (
        ("messages[0].role is missing", {"messages": [{"content": "hi"}]}),
        ("model is missing", {"model": ...}),
    ):
        sent = {name: value for name, value in (ROUTES["/v1/messages"] | body).items() if value is not ...}
        answer = demo.ask("/v1/messages", sent)
        assert answer.status == 400 and message in answer.json["error"]["message"]


def test_B10_suffix_is_known_and_not_supported(demo):
    answer = demo.ask("/v1/completions", {"prompt": "hi", "suffix": "ho"})
    assert answer.status == 400 and answer.code == "unsupported_parameter"
    assert answer.json["error"]["message"] == "suffix is not supported" and answer.json["error"]["param"] == "suffix"


# ---- what does not fit the context

WORDS = [  # of LiteLLM, LangChain (OpenAI, Anthropic), CrewAI and coding agents, in lower case
    "this model's maximum context length is",
    "context_length_exceeded",
    "prompt is too long",
    "maximum context length",
    "maximum context length is 2048 tokens",
]
BIG = "word " * 2500
LARGE = {  # path -> a body with a prompt that is too long, what it is called, what the limit is called
    CHAT: ({"messages": [{"role": "user", "content": BIG}]}, "messages", "max_tokens"),
    "/v1/completions": ({"prompt": BIG}, "prompt", "max_tokens"),
    "/v1/responses": ({"input": BIG}, "input", "max_output_tokens"),
    "/v1/messages": (
        {"model": "demo", "max_tokens": 8, "messages": [{"role": "user", "content": BIG}]},
        "messages",
        "max_tokens",
    ),
}


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"temperature": 1}])
@pytest.mark.parametrize("path", LARGE)
def test_RQ5_a_prompt_that_is_too_long_is_said_in_the_words_that_clients_look_for(demo, path, more):
    body, param, _ = LARGE[path]
    answer = demo.ask(path, body | more)
    error = answer.json["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "context_length_exceeded", param)
    found = re.match(r"prompt is too long: (\d+) tokens > 2048 maximum \(context_length_exceeded\); ", error["message"])
    assert found and int(found[1]) == error["n_prompt_tokens"] > 2048 and error["n_ctx"] == 2048
    assert [word for word in WORDS if word not in error["message"].lower()] == []
    assert "\n" not in error["message"]


@pytest.mark.parametrize("new", [2048, 32000, 2**31 - 1])
@pytest.mark.parametrize("path", LARGE)
def test_RQ6_too_many_new_tokens_are_refused_with_the_sum_and_what_would_fit(demo, path, new):
    """Neither cut nor capped: the number of tokens that the message says would fit is answered."""
    _, _, limit = LARGE[path]
    small = ROUTES[path] | {limit: new}
    answer = demo.ask(path, small)
    error = answer.json["error"]
    pattern = rf"input length and `{limit}` exceed context limit: (\d+) \+ {new} > 2048 \(context_length_exceeded\); "
    found = re.match(pattern + r"at most (\d+) new tokens fit$", error["message"])
    assert found and (answer.status, error["code"]) == (400, "context_length_exceeded")
    assert int(found[1]) + int(found[2]) == 2048 and int(found[1]) == error["n_prompt_tokens"]
    stop = {"stop_sequences" if path == "/v1/messages" else "stop": ["e", "a", "i", "o", "u", " "]}
    stop = {} if path == "/v1/responses" else stop
    more = {"ignore_eos": False} if path != "/v1/messages" else {}
    assert demo.ask(path, small | {limit: int(found[2])} | stop | more, timeout=120).status == 200


@pytest.mark.parametrize(("count", "told"), [(2047, None), (2048, "2048 tokens > 2047"), (2049, "2049 tokens > 2048")])
def test_RQ5_at_the_edge_the_numbers_are_true(demo, count, told):
    ids = demo.ask("/tokenize", {"content": "one two three four five six " * 400}).json["tokens"][:count]
    answer = demo.ask("/v1/completions", {"prompt": ids, "max_tokens": 1})
    if told is None:
        assert answer.status == 200
    else:
        assert f"prompt is too long: {told} maximum" in answer.json["error"]["message"]


# ---- places

GO = {"role": "user", "content": "go"}
RESULT = {"type": "tool_result", "tool_use_id": "zz", "content": "x"}
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
PLACES = [
    (MESSAGES, {"system": "s", "messages": [GO, {"role": "user", "content": [RESULT]}]},
     "messages[1].content[0].tool_use_id"),
    (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, RESULT]}],
                "tools": [{"name": "f", "input_schema": {}}]}, "messages[0].content[1].tool_use_id"),
    (MESSAGES, {"messages": [GO], "system": [{"type": "image"}]}, "system[0]"),
    (MESSAGES, {"messages": [GO], "system": [{"type": "text", "text": "a"}, {"type": "text"}]}, "system[1]"),
    (MESSAGES, {"messages": [GO], "tools": [{"name": "", "input_schema": {}}]}, "tools[0].name"),
    (MESSAGES, {"messages": []}, "messages"),
    (RESPONSES, {"instructions": "s", "input": [GO, {"type": "function_call_output", "call_id": "zz", "output": "x"}]},
     "input[1].call_id"),
    (RESPONSES, {"instructions": "s", "input": [GO, {"role": "user", "content": [{"type": "input_image"}]}]},
     "input[1].content[0]"),
    (RESPONSES, {"input": [GO, {"role": "assistant", "content": "x"}]}, "input"),
    (RESPONSES, {"input": []}, "input"),
    (RESPONSES, {"input": "hi", "tools": [{"type": "function", "name": ""}]}, "tools[0].name"),
    (RESPONSES, {"input": "hi", "tools": [{"type": "function", "name": "f", "parameters": 5}]}, "tools[0].parameters"),
    (CHAT, {"messages": [GO, {"role": "tool", "tool_call_id": "zz", "content": "x"}],
            "tools": [{"type": "function", "function": {"name": "f"}}]}, "messages[1].tool_call_id"),
    (CHAT, {"messages": [GO, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
    (CHAT, {"messages": [GO, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]},
     "messages[1].content[1]"),
    (CHAT, {"messages": [GO], "tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
    (CHAT, {"messages": [GO], "functions": [{"name": ""}]}, "functions[0].name"),
    ("/v1/completions", {"prompt": ["a", ""]}, "prompt[1]"),
    ("/v1/embeddings", {"input": ["a", BIG]}, "input[1]"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "fields", "place"), PLACES, ids=range(len(PLACES)))
def test_RQ7_an_error_names_the_place_that_was_sent(demo, path, fields, place):
    """Also where the check comes after the conversion, and a system turn was put in front."""
    answer = demo.ask(path, ROUTES.get(path, {}) | fields)
    error = answer.json["error"]
    assert answer.status == 400, answer.body
    assert re.match(re.escape(place) + r"[ :]", error["message"]), error
    assert place.startswith(error["param"])
