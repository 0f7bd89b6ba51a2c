"""The format that a request wants of its answer's text (JSON, a schema, a pattern, a grammar), and its constraint.

Promises: a constraint belongs to one choice of one request; parts of a schema that the grammar cannot follow are named
as ignored, unless the schema is strict; then the request is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phi4mini.errors import BadInput
from phi4mini.grammar import Form
from phi4mini.server.http.errors import ApiError
from phi4mini.server.service import ServiceCall


@dataclass(frozen=True)
class ResponseFormat:
    """The form of a text, and the field of the body that asks for it."""

    form: Form
    param: str

    def constraint(self, call: ServiceCall) -> Any:
        """A new constraint. Raises 400 for a schema, pattern or grammar that cannot be compiled."""
        dropped: list[str] = []
        try:
            made = call.service.text.grammars.answer(self.form, dropped)
        except BadInput as error:
            raise self.refused(error) from None
        call.ignore([f"{self.param}.{place}" for place in dropped])
        return made

    def refused(self, error: BadInput) -> ApiError:
        """The error as a 400 that names the field."""
        return ApiError(400, str(error), param=self.param, code="invalid_schema")


def response_format(given: Mapping[str, Any] | None, param: str = "response_format") -> ResponseFormat | None:
    """OpenAI's response_format, and the types `regex` and `grammar`. None for plain text. Raises 400 otherwise."""
    if given is None or given.get("type") == "text":
        return None
    match given.get("type"):
        case "json_object" if given.get("schema") is None:
            return ResponseFormat(Form("json_schema", {"type": "object"}), param)
        case "json_object" | "json_schema":  # llama-server's clients send json_object with a schema beside it
            inner = given.get("json_schema")
            flat = "schema" in given and inner is None  # the Responses API's form
            schema = given["schema"] if flat else inner.get("schema") if isinstance(inner, Mapping) else None
            if not isinstance(schema, (Mapping, bool)):
                where = f"{param}.schema" if flat else f"{param}.json_schema"
                raise ApiError(400, f"{where} must hold a JSON schema", param=where, code="invalid_value")
            strict = (given if flat else inner or {}).get("strict")
            form = Form("json_schema", schema, param.startswith("output_config") or strict is True)
            return ResponseFormat(form, param)
        case "regex" if isinstance(given.get("regex"), str):
            return ResponseFormat(Form("regex", given["regex"]), param)
        case "grammar" if isinstance(given.get("grammar"), str):
            return ResponseFormat(Form("lark", given["grammar"]), param)
    known = "text, json_object, json_schema, regex (with regex), grammar (with grammar)"
    raise ApiError(400, f"{param}.type must be one of {known}", param=f"{param}.type", code="invalid_value")
