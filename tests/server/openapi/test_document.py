"""The OpenAPI document is complete and true: Schemathesis sends what it allows and what it forbids (row B16)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from phi4mini.server.app import endpoints
from phi4mini.server.http import body_schemas
from phi4mini.server.openapi.document import described

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis (the extra dev)")
from schemathesis.checks import not_a_server_error  # noqa: E402  # after the skip
from schemathesis.specs.openapi import checks  # noqa: E402

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
SHORT = {"max_tokens": 2, "max_completion_tokens": 2, "max_output_tokens": 2, "min_tokens": 0, "n": 2}
EXAMPLES = {"max_examples": 30, "deadline": None, "derandomize": True, "database": None, "phases": [Phase.generate]}
QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def test_every_endpoint_and_every_shape_is_in_it():
    document = described(endpoints())
    SCHEMA.validate()  # it is an OpenAPI document of its version
    assert sum(map(len, document["paths"].values())) == len(endpoints())
    for name, fields in body_schemas.OF.items():
        assert set(fields) <= set(document["components"]["schemas"][name]["properties"])
    for row in endpoints():
        operation = document["paths"][row.path.replace(":path}", "}")][row.method.lower()]
        assert operation["summary"] and operation["responses"].keys() >= {"200", "400", "403", "421", "500"}
        assert ("401" in operation["responses"]) != row.open == (operation["security"] == [])


def test_it_is_open_and_refers_only_to_what_it_has(demo):
    answer = demo.ask("/openapi.json")
    assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    document = answer.json

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            here = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return here.union(*(references(value) for value in node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known


def shortened(body: Any) -> Any:
    """The same wish for few tokens: numbers that would be answered are made small, wrong ones stay wrong. A deadline
    is made long, since one of a millisecond is rightly a 504 (row F4).
    """
    if not isinstance(body, dict):
        return body
    if type(timeout := body.get("timeout")) in (int, float) and timeout >= 0.001:
        body = body | {"timeout": max(timeout, 60)}  # type: ignore[type-var]
    asked = {
        key: min(value, SHORT[key]) if key in SHORT and type(value) is int and value > 0 else value
        for key, value in body.items()
    }
    if isinstance(asked.get("messages", asked.get("prompt", asked.get("input"))), (list, str)):
        limit = "max_output_tokens" if "input" in asked else "max_tokens"
        if limit not in asked or asked[limit] is None:
            asked[limit] = 2
    return asked


SCHEMA = schemathesis.openapi.from_dict(described(endpoints()))
SCHEMA.config.max_stream_events = 100_000  # streams to their end, not their first 20 events
MODES = schemathesis.GenerationMode
CASES = [  # a request without a body has nothing in it that could be wrong
    pytest.param(row.method, row.path.replace(":path}", "}"), mode, id=f"{row.method} {row.path} {mode}")
    for row in endpoints()
    for mode in MODES
    if row.body is not None or mode == MODES.POSITIVE
]


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_B16_what_the_document_says_is_true(demo, method, path, mode):
    """Requests that it allows (positive) and that it does not (negative): declared answers, never a fault."""
    operation = SCHEMA[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(**EXAMPLES, suppress_health_check=QUIET)
    def ask(case: Any) -> None:
        case.body = shortened(case.body)
        case.call_and_validate(f"http://127.0.0.1:{demo.port}", checks=CHECKS, timeout=60)

    ask()


# ---- streams: Schemathesis seldom asks for calls, log-probabilities or progress, so these ask for all there is

SAID = [{"role": "user", "content": "What is it like in Oslo?"}]
COUNT = [{"role": "user", "content": "Count from one to one thousand, each number in words."}]
TOOL = {"name": "get_time", "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}}}
CALLED = {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "required"}
BLOCKS = {"tools": [{"name": "get_time", "input_schema": TOOL["parameters"]}], "tool_choice": {"type": "any"}}
ITEMS = {"tools": [{"type": "function", **TOOL}], "tool_choice": "required"}
USAGE = {"stream_options": {"include_usage": True}}
ENDLESS = {"max_tokens": 1900, "ignore_eos": True, "timeout": 0.5}
LONG = "The harbour was quiet. " * 300
READ = [{"role": "user", "content": LONG}]
CHAT, TEXT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
STREAMS = [  # path, body, and what must occur in the stream for it to say anything
    (CHAT, {"messages": SAID, "max_tokens": 4, "n": 2, "logprobs": True, "top_logprobs": 2, **USAGE}, '"usage"'),
    (CHAT, {"messages": SAID, "max_tokens": 60, **CALLED}, '"tool_calls"'),
    (CHAT, {"messages": SAID, **ENDLESS}, '"timeout"'),
    (CHAT, {"messages": READ, "prompt_logprobs": 20, "max_tokens": 4, "return_progress": True}, "prompt_progress"),
    (TEXT, {"prompt": LONG, "max_tokens": 4, "echo": True, "logprobs": 2, "return_progress": True, **USAGE}, '"usage"'),
    (TEXT, {"prompt": "One, two,", **ENDLESS}, '"timeout"'),
    (MESSAGES, {"model": "default", "messages": SAID, "max_tokens": 8}, "text_delta"),
    (MESSAGES, {"model": "default", "messages": SAID, "max_tokens": 60, **BLOCKS}, "input_json_delta"),
    (MESSAGES, {"model": "default", "messages": COUNT, "max_tokens": 1900, "timeout": 0.5}, "timeout_error"),
    (RESPONSES, {"input": "Count to ten.", "max_output_tokens": 4, "top_logprobs": 2}, "response.incomplete"),
    (RESPONSES, {"input": "Where?", "max_output_tokens": 60, **ITEMS}, "response.function_call_arguments.done"),
    (RESPONSES, {"input": "Say it.", "text": {"format": {"type": "json_object"}}}, "response.completed"),
    (RESPONSES, {"input": "Count.", "ignore_eos": True, "timeout": 0.5}, '"timeout"'),
]


@pytest.mark.parametrize(("path", "body", "holds"), STREAMS, ids=[f"{path} {holds}" for path, _, holds in STREAMS])
def test_B16_every_event_of_a_stream_is_one_that_the_document_names(demo, path, body, holds):
    case = SCHEMA[path]["POST"].Case(body=body | {"stream": True}, media_type="application/json")
    answer = case.call_and_validate(f"http://127.0.0.1:{demo.port}", checks=CHECKS, timeout=60)
    assert answer.status_code == 200 and answer.headers["content-type"] == ["text/event-stream; charset=utf-8"]
    assert holds in answer.text


def test_B16_an_event_that_the_document_does_not_name_is_noticed(demo):
    """The check above can fail: an event whose type or field is wrong, in a document that has another name for it."""
    for path, name in ((CHAT, "choices"), (MESSAGES, "content_block_delta"), (RESPONSES, "output_index")):
        renamed = json.loads(json.dumps(described(endpoints())).replace(f'"{name}"', '"something_else"'))
        body = next(body for its, body, _ in STREAMS if its == path)
        case = schemathesis.openapi.from_dict(renamed)[path]["POST"].Case(
            body=body | {"stream": True}, media_type="application/json"
        )
        with pytest.raises(schemathesis.core.failures.FailureGroup, match="violates schema"):
            case.call_and_validate(f"http://127.0.0.1:{demo.port}", checks=CHECKS, timeout=60)
