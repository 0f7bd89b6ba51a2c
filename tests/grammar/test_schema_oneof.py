"""oneOf: tags that become required, references whose type is said, and what stays as it was."""

from __future__ import annotations

import json

import pytest

from phi4mini.errors import BadInput
from phi4mini.grammar.schema_oneof import exclusive_options, resolve_pointer


def option(name, *required, tag="kind", **more):
    return {
        "type": "object",
        "properties": {tag: {"const": name, "default": name}, "p": {}},
        "required": list(required),
        **more,
    }


DEFS = {"a": option("a", "p"), "b": option("b"), "t": {"type": "string"}, "hop": {"$ref": "#/$defs/a"}}
A, B, T, HOP = ({"$ref": f"#/$defs/{name}"} for name in DEFS)
TAGGED = {
    "defaults": ([option("a", "p"), option("b", "p")], {"p": 1}),
    "references": ([A, B], {"p": 1}),
    "a reference to a reference": ([HOP, B], {"p": 1}),
    "one required already": ([option("a", "kind"), B], {"p": 1}),
    "enums": ([{**option("a"), "properties": {"kind": {"enum": ["a", "c"]}}}, B], {"p": 1}),
    "null beside them": ([A, B, {"type": "null"}], {"p": 1}),
    "another tag": ([option("a", tag="type"), option("b", tag="type")], {"p": 1}),
    "three": ([A, B, option("c")], {"p": 1}),
    "a text beside them": ([A, T], []),
    "a number beside a reference": ([T, {"type": "number"}], []),
}


@pytest.mark.parametrize("name", TAGGED)
def test_SC2_a_union_that_can_be_told_apart_is_held(spelled, name):
    options, never = TAGGED[name]
    schema = {"oneOf": options, "$defs": DEFS}
    assert not spelled(schema, json.dumps(never))
    tag = "type" if name == "another tag" else "kind"
    if "$ref" not in options[0] or options[0] in (A, HOP):
        assert spelled(schema, json.dumps({tag: "a", "p": 1})) or "enums" in name
        assert not spelled(schema, json.dumps({tag: "x", "p": 1}))


def test_options_that_nothing_tells_apart_are_left_as_they_are(spelled):
    same = [option("a"), option("a")]
    assert exclusive_options({}, same) == same
    with pytest.raises(BadInput, match="oneOf with options that may overlap"):
        spelled({"oneOf": same}, "{}")


@pytest.mark.parametrize(
    ("reference", "found"),
    [("#", DEFS), ("#/a/type", "object"), ("#/a/required/0", "p"), ("#/no", None), ("#a", None), ("x#/a", None)],
)
def test_what_a_pointer_points_to(reference, found):
    assert resolve_pointer(DEFS, reference) == found
