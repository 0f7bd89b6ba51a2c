"""Mistyped paths: the error suggests the right one."""

from __future__ import annotations

import pytest

from phi4mini.server.http.nearest_path import meant
from tests.server.process import CHAT, asking

KNOWN = {CHAT, "/v1/messages", "/v1/models", "/tokenize", "/health", "/v1/completions"}
WRONG = [
    ("POST", "/chat/completions", CHAT),
    ("POST", "/v1/chat/completions/", CHAT),
    ("POST", "//v1/chat/completions", CHAT),
    ("POST", "/v1//chat/completions", CHAT),
    ("POST", "/v1/v1/chat/completions", CHAT),
    ("POST", "/V1/Chat/Completions", CHAT),
    ("POST", "/openai/v1/chat/completions", CHAT),
    ("POST", "/v1/chat/completion", CHAT),
    ("GET", "/v1/chat/completions/", CHAT),
    ("POST", "/completions", "/v1/completions"),
    ("POST", "/messages", "/v1/messages"),
    ("POST", "/v1/v1/messages", "/v1/messages"),
    ("GET", "/models", "/v1/models"),
    ("GET", "/models/demo", "/v1/models/demo"),
    ("GET", "/v1/health", "/health"),
    ("POST", "/v1/tokenize", "/tokenize"),
    ("POST", "/responses/input_tokens/", "/v1/responses/input_tokens"),
]


@pytest.mark.parametrize(("method", "path", "right"), WRONG)
def test_RQ8_a_path_that_is_nearly_one_says_which_was_meant(demo, method, path, right):
    answer = demo.ask(path, asking() if method == "POST" else None, method=method)
    error = answer.json["error"]
    assert answer.status == 404 and error["code"] == "unknown_route"
    way = "GET" if right in ("/health", "/v1/models", "/v1/models/demo") else "POST"
    assert error["message"] == f"{method} {path}: Not Found; did you mean {way} {right}?"
    assert (answer.json.get("type") == "error") == right.startswith("/v1/messages"), "in the form of what was meant"


@pytest.mark.parametrize("path", ["/v2/chat", "/nothing", "/", "/v1", "/v1/", "/api", "/a" * 200, "/%00", "/v1/../etc"])
def test_RQ8_a_path_that_is_like_none_suggests_none(demo, path):
    answer = demo.ask(path, method="POST")
    assert answer.status in (404, 405) and "did you mean" not in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST"),
        ("PUT", CHAT, "POST"),
        ("DELETE", "/v1/messages", "POST"),
        ("PATCH", "/v1/completions", "POST"),
        ("GET", "/v1/responses", "POST"),
        ("GET", "/v1/embeddings", "POST"),
        ("GET", "/tokenize", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/models/demo", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
    ],
)
def test_RQ8_a_wrong_method_says_the_right_ones(demo, method, path, allowed):
    answer = demo.ask(path, method=method)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)
    assert answer.json["error"]["message"].endswith(f"it takes {allowed}")


def test_what_is_meant_is_a_path_that_there_is():
    for path in ("//health//", "/HEALTH", "/v1/v1/v1/models", "/api/v1/models/", "/heath"):
        assert meant(path, KNOWN.__contains__, KNOWN) in KNOWN
    assert meant("/health", lambda path: False, ()) is None
