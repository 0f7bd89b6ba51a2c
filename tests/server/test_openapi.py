"""The OpenAPI document: whole, and true: Schemathesis asks what it allows and what it does not (row B16)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from phi4mini.server import shapes
from phi4mini.server.app import endpoints
from phi4mini.server.openapi import described

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
    assert document["openapi"] == "3.1.0"
    assert sum(map(len, document["paths"].values())) == len(endpoints())
    for name, fields in shapes.OF.items():
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
    """The same wish for few tokens: numbers that would be answered are made small, wrong ones stay wrong."""
    if not isinstance(body, dict):
        return body
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
