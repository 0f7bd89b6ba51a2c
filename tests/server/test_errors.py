"""What a refusal says (row B10): the field by the request's own name, a code, and what would be right."""

from __future__ import annotations

import pytest

from tests.server.process import CHAT
from tests.server.test_bodies import ROUTES


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
        ("/v1/responses", {"text": {"verbosity": "low"}}, "text.verbosity", "'low'; it can be medium"),
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
