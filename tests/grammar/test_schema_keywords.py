"""The table of docs/grammar.md: keywords of schemas, and what happens where `strict` is said and where it is not."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from phi4mini.errors import BadInput
from phi4mini.grammar import Form
from tests.grammar.following import admits
from tests.shared import SHARED, needs_shared

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "grammar.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(\{.*\})` \| (held|left out|refused) \| (held|refused) \|$", PAGE, re.MULTILINE)
DEFS = {
    "text": {"type": "string", "maxLength": 2},
    "tree": {"type": "object", "properties": {"next": {"$ref": "#/$defs/tree"}}, "additionalProperties": False},
}


def tool(odd, **more):
    """A function with the odd schema in one property, and another one beside it."""
    schema = {
        "type": "object",
        "properties": {"plain": {"type": "integer", "minimum": 1, "maximum": 3}, "odd": odd},
        "required": ["plain"],
        "additionalProperties": False,
        "$defs": DEFS,
        "definitions": DEFS,
    }
    return {"type": "function", "function": {"name": "f", "parameters": schema, **more}}


def test_SC2_the_table_has_its_rows():
    assert len(ROWS) >= 45 and {row[1] for row in ROWS} == {"held", "left out", "refused"}


@pytest.mark.parametrize(("odd", "plain", "strict"), ROWS)
def test_SC2_a_keyword_of_the_table(phi, grammars, odd, plain, strict):
    for outcome, more in ((plain, {}), (plain, {"strict": False}), (strict, {"strict": True})):
        dropped: list[str] = []
        tools = [tool(json.loads(odd), **more), {"name": "other"}]
        asked = {"required": "f", "parallel": False, "dropped": dropped}
        if outcome == "refused":
            with pytest.raises(BadInput, match=r"the function 'f': .*properties\.odd"):
                grammars.tool_calls(tools, "phi", **asked)
            continue
        constraint = grammars.tool_calls(tools, "phi", **asked)
        assert (outcome == "left out") == bool(dropped), dropped
        assert all(place.startswith("f.properties.odd") for place in dropped)
        constraint.accept(phi.id_of("<|tool_call|>"))
        begin = '[{"name": "f", "arguments": {"plain": '
        assert admits_beginning(phi, constraint, begin, "2") and not admits_beginning(phi, constraint, "", "x")


def admits_beginning(phi, constraint, begin: str, char: str) -> bool:
    """Whether the character may follow, in the first of the tokens that spell it."""
    for id in phi.encode(begin):
        constraint.accept(id)
    mask = constraint.mask()
    id = phi.encode(char)[0]
    return bool(mask[id >> 5] >> (id & 31) & 1)


def test_SC2_a_rest_that_is_held_stays_held(phi, grammars):
    """Left out is the keyword, not what stands beside it."""
    for odd, good, bad in [
        ({"type": "array", "items": {"enum": ["a"]}, "uniqueItems": True}, ["a", "a"], ["b"]),
        ({"type": "string", "maxLength": 2, "pattern": "^(?!a)"}, "ab", "abc"),
        ({"type": "string", "maxLength": 2, "format": "isbn"}, "ab", "abc"),
        ({"propertyNames": {"enum": ["a"]}, "additionalProperties": {"type": "null"}}, {"b": None}, {"b": 1}),
        ({"not": {"const": 1}, "type": "integer", "maximum": 5}, 1, 6),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, 1, "a"),
        ({"type": "object", "patternProperties": {"(?=a)": {}, "^b": {"type": "null"}}}, {"bc": None}, {"bc": 1}),
        ({"if": {}, "then": {"minimum": 1}, "enum": [0, 2]}, 0, 1),
        ({"$ref": "#/$defs/none", "type": "string"}, "x", 1),
        ({"type": "array", "contains": {"const": 7}, "maxItems": 1}, [1], [1, 2]),
    ]:
        for value, fits in ((good, True), (bad, False)):
            schema = {"type": "object", "properties": {"x": odd}, "required": ["x"], "additionalProperties": False}
            dropped: list[str] = []
            made = grammars.answer(Form("json_schema", schema, strict=False), dropped)
            assert admits(made, phi, json.dumps({"x": value})) == fits, (odd, value)
            assert dropped and all(place.startswith("properties.x") for place in dropped)
            with pytest.raises(BadInput):
                grammars.answer(Form("json_schema", schema))


def test_SC2_one_function_decides_about_no_other(phi, grammars):
    """Whatever one schema is, the other functions are held and callable."""
    deep: dict = {"type": "string"}
    for _ in range(80):
        deep = {"type": "object", "properties": {"a": deep}}
    for hopeless in (
        deep,
        {"type": "object", "properties": {f"p{i}": {} for i in range(1500)}},
        {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "allOf": [{"$ref": "https://e.org/x"}]},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": ".*a?" * 1000}}},
    ):
        dropped: list[str] = []
        tools = [{"name": "odd", "parameters": hopeless}, tool({"const": 1})]
        for name, written in (
            ("f", '{"plain": 1, "odd": 1}'),
            ("odd", '{"a": {}}' if "oneOf" not in hopeless else '{"b": 1}'),
        ):
            constraint = grammars.tool_calls(tools, "chatml", required=True, parallel=False, dropped=dropped)
            text = f'<tool_call>{{"name": "{name}", "arguments": {written}}}</tool_call>'
            assert admits(constraint, phi, text), (name, dropped)
        assert dropped and all(place.startswith("odd") for place in dropped)


def test_SC2_what_is_left_out_is_said_in_the_log_where_nobody_asks(grammars, caplog):
    with caplog.at_level(logging.WARNING, "phi4mini.grammar"):
        grammars.tool_calls([tool({"uniqueItems": True})], "phi", required=True, parallel=False)
    (record,) = caplog.records
    assert "f.properties.odd.uniqueItems" in record.getMessage() and "\n" not in record.getMessage()


@pytest.mark.parametrize("chat_format", ["phi", "chatml"])
def test_SC3_a_call_or_a_text_of_the_form(phi, grammars, chat_format):
    forms = [
        (Form("json_schema", {"enum": ["a", 1]}), '"a"', '"b"'),
        (Form("json_schema", {"type": "object"}), '{"x": 1}', "x"),
        (Form("regex", "[a-c]{2}"), "ab", "ad"),
        (Form("lark", 'start: "yes" | "no"'), "no", "maybe"),
    ]
    for form, good, bad in forms:
        made = [
            grammars.tool_calls([tool({"const": 1})], chat_format, required=False, parallel=False, text=form)
            for _ in range(3)
        ]
        assert admits(made[0], phi, good) and not admits(made[1], phi, bad)
        if chat_format == "phi":
            made[2].accept(phi.id_of("<|tool_call|>"))
            assert admits_beginning(phi, made[2], '[{"name": "f", "arguments": {"plain": ', "2")
        else:
            text = '<tool_call>{"name": "f", "arguments": {"plain": 1, "odd": 1}}</tool_call>'
            assert admits(made[2], phi, text)


@needs_shared
def test_SC2_every_real_schema_is_taken_where_it_is_not_strict(grammars):
    """Whole, or without what is named; what compiles strictly loses nothing."""
    lines = (SHARED / "data/jsonschema/jsonschemabench_200.jsonl").read_text("utf-8").splitlines()
    for schema in (json.loads(line)["schema"] for line in lines):
        dropped: list[str] = []
        grammars.answer(Form("json_schema", schema, strict=False), dropped)
        try:
            grammars.answer(Form("json_schema", schema))
        except BadInput:
            assert dropped
        else:
            assert dropped == []
