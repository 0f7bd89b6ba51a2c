"""Real schemas and the standard's own test suite: what compiles, and documents judged token by token."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phi4mini.errors import BadInput
from tests.grammar.following import admits
from tests.shared import SHARED, needs_shared


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SHARED / "data/jsonschema" / name).read_text(encoding="utf-8").splitlines()]


def in_order(value: Any, schema: Any) -> Any:
    """The document with its keys in the order of the schema, which is the order that is generated."""
    if isinstance(value, list):
        items = schema.get("items") if isinstance(schema, dict) else None
        return [in_order(part, items) for part in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties", {}) if isinstance(schema, dict) else {}
    other = schema.get("additionalProperties") if isinstance(schema, dict) else None
    keys = [*(key for key in known if key in value), *(key for key in value if key not in known)]
    return {key: in_order(value[key], known.get(key, other)) for key in keys}


def judge(phi, grammars, sample: list[dict[str, Any]]) -> dict[str, Any]:
    """How many schemas compile, and the documents on which the constraint disagrees with the data."""
    compiled, wrong, judged = 0, [], 0
    for row in sample:
        try:
            grammars.json_schema(row["schema"])
        except BadInput as error:
            assert "\n" not in str(error)
            continue
        compiled += 1
        for test in row["tests"]:
            text = json.dumps(in_order(test["data"], row["schema"]), ensure_ascii=False)
            judged += 1
            if admits(grammars.json_schema(row["schema"]), phi, text) != test["valid"]:
                wrong.append((row["id"], test["valid"]))
    return {"compiled": compiled, "judged": judged, "wrong": wrong}


@needs_shared
@pytest.mark.parametrize(
    ("step", "least", "documents"), [(4, 45, 140), pytest.param(1, 188, 660, marks=pytest.mark.slow)]
)
def test_real_schemas_judge_their_documents(phi, grammars, step, least, documents):
    found = judge(phi, grammars, rows("jsonschemabench_200.jsonl")[::step])
    assert found["compiled"] >= least and found["judged"] >= documents
    assert found["wrong"] == []


# Values that the standard calls equal are written in one way: 1.0 for 1, another order of keys in a const. Formats are
# enforced, not annotations.
ONE_WAY_OF_WRITING = {"const-1", "const-11", "enum-9", "enum-11", "enum-12", "type-0"}
ENFORCED = {"format-0", "format-3", "format-4", "format-6", "format-14"}


@needs_shared
def test_the_standards_suite_has_no_surprises(phi, grammars):
    found = judge(phi, grammars, rows("test_suite_2020-12_200.jsonl"))
    assert found["compiled"] >= 106
    assert {id for id, valid in found["wrong"] if not valid} == set(), "an invalid document was admitted"
    assert {id for id, valid in found["wrong"] if valid} <= ONE_WAY_OF_WRITING | ENFORCED
