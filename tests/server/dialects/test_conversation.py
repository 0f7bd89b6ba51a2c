"""Response formats of conversations, as different programs ask for them."""

from __future__ import annotations

import json

import pytest

from tests.server.process import CHAT

HI = [{"role": "user", "content": "hi"}]
TEAM = {"type": "object", "properties": {"team": {"type": "string", "maxLength": 8}}, "required": ["team"]}
TEAM |= {"additionalProperties": False}
OBJECT_SCHEMAS = [  # of a document that is certain, and the document
    (TEAM | {"properties": {"team": {"enum": ["Aurora"]}}}, {"team": "Aurora"}),
    (TEAM | {"properties": {"team": {"const": 7}}}, {"team": 7}),
    ({"type": "object", "properties": {}, "additionalProperties": False}, {}),
    ({"const": {"a": [1, None]}}, {"a": [1, None]}),
    ({"enum": [{"b": True}]}, {"b": True}),
    ({"type": "object", "properties": {"n": {"const": 1}, "m": {"const": 2}}, "required": ["n", "m"]}
     | {"additionalProperties": False}, {"n": 1, "m": 2}),
    (TEAM | {"properties": {"team": {"type": "array", "items": {"const": "x"}, "minItems": 2, "maxItems": 2}}},
     {"team": ["x", "x"]}),
    ({"$ref": "#/$defs/d", "$defs": {"d": {"const": {"r": 0}}}}, {"r": 0}),
    (TEAM | {"properties": {"team": {"anyOf": [{"const": "only"}]}}}, {"team": "only"}),
    (TEAM | {"properties": {"team": {"type": "null"}}}, {"team": None}),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "document"), OBJECT_SCHEMAS, ids=range(10))
def test_RQ32_a_schema_beside_json_object_is_held(demo, schema, document):
    """As llama-server's clients ask for a schema."""
    body = {"messages": HI, "max_tokens": 60, "response_format": {"type": "json_object", "schema": schema}}
    answer = demo.ask(CHAT, body)
    assert answer.status == 200 and json.loads(answer.text) == document and "x-ignored-fields" not in answer.headers
    items = {"input": "hi", "max_output_tokens": 60, "text": {"format": body["response_format"]}}
    assert json.loads(demo.ask("/v1/responses", items).json["output"][0]["content"][0]["text"]) == document


def test_RQ32_without_one_it_is_any_object(demo):
    for format in ({"type": "json_object"}, {"type": "json_object", "schema": None}):
        answer = demo.ask(CHAT, {"messages": HI, "max_tokens": 200, "response_format": format})
        assert isinstance(json.loads(answer.text), dict)
    wrong = demo.ask(CHAT, {"messages": HI, "response_format": {"type": "json_object", "schema": 5}})
    assert wrong.status == 400 and wrong.json["error"]["param"] == "response_format.schema"
