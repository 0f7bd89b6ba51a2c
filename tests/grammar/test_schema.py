"""Schemas that are wrong, hostile or impossible: one line, under a second, nothing fetched."""

from __future__ import annotations

import math
import socket
import time

import pytest

from tests.grammar.following import admits, refused, wander

ENDLESS = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
TREE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["name", "children"],
    "additionalProperties": False,
}


def deep(levels: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def circular_in_python() -> dict:
    schema: dict = {}
    schema["properties"] = {"a": schema}
    return schema


def chain(length: int) -> dict:
    links = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{length}": {"type": "boolean"}}}


HOSTILE = {
    "depth 60,000": (lambda: deep(60_000), "more than 64 brackets deep"),
    "circular object": (circular_in_python, "more than 64 brackets deep"),
    "20,000 properties": (lambda: {"properties": {f"p{i}": {} for i in range(20_000)}}, "more than 1000 properties"),
    "100,000 enum values": (lambda: {"enum": list(range(100_000))}, "more than 10000 enum values"),
    "20,000 required": (lambda: {"required": [f"p{i}" for i in range(20_000)]}, "more than 1000 required names"),
    "8 MB": (lambda: {"description": "x" * 8_000_000}, "more than 262144 bytes"),
    "300 kB": (lambda: {"enum": ["x" * 100_000] * 3}, "more than 262144 bytes"),
    "only itself": (lambda: {"$ref": "#"}, "circular at #: its values would have no end"),
    "endless": (lambda: ENDLESS, "circular at #"),
    "endless inside": (
        lambda: {
            "anyOf": [{"type": "null"}, {"$ref": "#/$defs/list"}],
            "$defs": {"list": {"type": "array", "items": {"$ref": "#/$defs/list"}, "minItems": 1}},
        },
        "circular at #/anyOf/1",
    ),
    "in a circle": (
        lambda: {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        "circular",
    ),
    "5,000 references": (lambda: chain(5000), "more than 500 references"),
    "remote": (lambda: {"$ref": "http://example.com/schema.json"}, "'http://example.com/schema.json' is not inside it"),
    "dangling": (lambda: {"$ref": "#/$defs/no"}, "cannot be used"),
    "keyword not implemented": (lambda: {"type": "array", "uniqueItems": True}, 'not supported: "uniqueItems"'),
    "format not implemented": (lambda: {"type": "string", "format": "isbn"}, "Unknown format: isbn"),
    "overlapping oneOf": (lambda: {"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf with options that may"),
    "1,300 patterns": (lambda: {"patternProperties": {f"^{i}x": {} for i in range(1300)}}, "more than 64 patterns"),
    "multipleOf": (lambda: {"type": "integer", "multipleOf": 1_000_003}, r"multipleOf \(1000003\)"),
    "multipleOf together": (
        lambda: {"allOf": [{"multipleOf": 997}, {"multipleOf": 1009}]},
        r"multipleOf \(997, 1009\)",
    ),
    "multipleOf tiny": (lambda: {"type": "number", "multipleOf": 1e-300}, "too many digits"),
    "NaN": (lambda: {"const": math.nan}, "JSON"),
    "a set": (lambda: {"enum": {1, 2}}, "JSON"),
    "a key that is no string": (lambda: {"properties": {1: {}}}, "the key 1, which is no string"),
    "a lone surrogate": (lambda: {"const": "\ud800"}, "surrogate"),
    "a list": (lambda: [], "must be an object or a boolean, got list"),
    "x-guidance": (lambda: {"x-guidance": {"lenient": True}, "uniqueItems": True}, "x-guidance"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_E1_hostile_schemas(grammars, name, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)  # nothing may be fetched
    make, expected = HOSTILE[name]
    schema = make()
    refused(lambda: grammars.json_schema(schema), expected)


def test_E1_a_word_that_is_no_keyword_is_an_annotation(phi, grammars):
    assert admits(grammars.json_schema({"type": "boolean", "x-order": 3, "example": True}), phi, "true")


def test_E1_the_largest_that_are_allowed_compile_in_a_second(grammars):
    names = {f"p{i}": {"type": "string"} for i in range(1000)}
    for schema in ({"properties": names, "type": "object"}, {"enum": [f"v{i}" for i in range(10_000)]}, chain(499)):
        start = time.perf_counter()
        constraint = grammars.json_schema(schema)
        assert time.perf_counter() - start < 1
        wander(constraint, 0, most=20)


def test_E1_references_in_the_worst_order_are_followed_in_a_second(grammars):
    """Each meets the next before it is known whether that one ends; thousands of bystanders."""
    links = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}, *[{"type": "null"}] * 8]} for i in range(245)}
    shown = {f"p{i}": {"$ref": f"#/$defs/d{i}"} for i in range(245, -1, -1)}
    schema = {"type": "object", "properties": shown, "$defs": {**links, "d245": {"type": "boolean"}}}
    start = time.perf_counter()
    grammars.json_schema(schema)
    assert time.perf_counter() - start < 1


def test_a_tree_ends_and_so_does_a_list(phi, grammars):
    assert admits(grammars.json_schema(TREE), phi, '{"name": "a", "children": [{"name": "b", "children": []}]}')
    linked = {"anyOf": [{"type": "null"}, {"type": "array", "prefixItems": [{}, {"$ref": "#"}], "minItems": 2}]}
    assert admits(grammars.json_schema({**linked, "$comment": "list"}), phi, "[1, [2, null]]")


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string", "pattern": 3}, "Expected string for 'pattern', got 3"),
        ({"type": 3}, "type must be a string"),
        ({"type": "strnig"}, "Invalid type: strnig"),
        ({"type": "object", "properties": []}, "properties"),
        ({"type": "object", "required": "name"}, "required"),
        ({"anyOf": {}}, "anyOf"),
        ({"type": "string", "minLength": "3"}, "minLength"),
    ],
)
def test_E2_wrong_types_in_a_schema(grammars, schema, expected):
    refused(lambda: grammars.json_schema(schema), expected)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (False, "the schema is false"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, r"minimum \(5\) is greater than maximum \(3\)"),
        ({"type": "string", "minLength": 5, "maxLength": 3}, "minLength"),
        ({"type": "array", "minItems": 5, "maxItems": 3}, "minItems"),
        ({"type": "string", "pattern": "^a{10}$", "maxLength": 5}, "Unsatisfiable"),
        (
            {"type": "object", "properties": {"x": {"minimum": 2, "maximum": 1, "type": "number"}}, "required": ["x"]},
            "x",
        ),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "Unsatisfiable"),
        ({"enum": []}, "nsatisf|enum"),
    ],
)
def test_E5_what_cannot_be_satisfied(grammars, schema, expected):
    refused(lambda: grammars.json_schema(schema), expected)
