"""GET /openapi.json: the API as OpenAPI 3.2, made from the table of endpoints and their types.

Promises: no endpoint is missing, and every status and every event of a stream that one answers with is declared. The
document is written once and kept. 3.2 is the first version of OpenAPI that can describe the events of a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, get_args

import msgspec

from phi4mini import __version__
from phi4mini.server.http import body_schemas
from phi4mini.server.http.call import Call, Raw
from phi4mini.server.http.endpoint import Endpoint

Schema = dict[str, Any]
_JSON, _EVENTS, _LINES = "application/json", "text/event-stream", "application/x-ndjson"
_REFUSALS = {
    400: "A field, a header or the body is not as it must be.",
    401: "The key is missing or wrong.",
    403: "Pages of that origin may not ask.",
    404: "There is no such model, file or route.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not JSON, or compressed.",
    421: "The server does not answer to that Host.",
    429: "Too many requests of this key wait, or too many wrong keys came from this address.",
    431: "Too many headers.",
    500: "A fault of the server or of the weights.",
    503: "The model is loading, could not be opened, or the server is shutting down.",
    504: "The request's deadline has passed.",
}
_ALWAYS = (400, 403, 421, 431, 500, 504)


class ErrorDetail(msgspec.Struct):
    """What was wrong, and the parameter it was about."""

    message: str
    type: str
    param: str | None
    code: str | None
    n_prompt_tokens: int | msgspec.UnsetType = msgspec.UNSET
    n_ctx: int | msgspec.UnsetType = msgspec.UNSET


class ErrorBody(msgspec.Struct):
    """A refusal in OpenAI's form."""

    error: ErrorDetail


class MessagesErrorDetail(msgspec.Struct):
    """What was wrong; beside Anthropic's two fields those of OpenAI's form."""

    type: str
    message: str
    param: str | None
    code: str | None
    n_prompt_tokens: int | msgspec.UnsetType = msgspec.UNSET
    n_ctx: int | msgspec.UnsetType = msgspec.UNSET


class MessagesErrorBody(msgspec.Struct):
    """A refusal in Anthropic's form."""

    type: str
    error: MessagesErrorDetail


class OllamaErrorBody(msgspec.Struct):
    """A refusal in Ollama's form."""

    error: str


_ERRORS = {"openai": ErrorBody, "anthropic": MessagesErrorBody, "ollama": OllamaErrorBody}  # by dialect


def document_endpoint(rows: Sequence[Endpoint]) -> Endpoint:
    """The endpoint that answers with the document of these rows and of itself."""

    @cache
    def encoded() -> bytes:
        return msgspec.json.encode(described([*rows, itself]))

    async def document(call: Call[Any]) -> Raw:
        return Raw(encoded(), _JSON)

    itself = Endpoint("GET", "/openapi.json", document, "This document.", open=True)
    return itself


def described(rows: Sequence[Endpoint]) -> Schema:
    """The OpenAPI document of these endpoints."""
    types: list[Any] = list(_ERRORS.values())
    types += [kind for row in rows for kind in (row.body, row.answer, *_kinds(row.streams)) if kind is not None]
    unique = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    for name, fields in body_schemas.OF.items():
        for field, shape in fields.items():
            _describe(components[name], field, shape)
    named = dict(zip(unique, schemas, strict=True))
    paths: dict[str, Schema] = {}
    for row in rows:
        path = row.path.replace(":path}", "}")
        paths.setdefault(path, {})[row.method.lower()] = _operation(row, path, named)
    key: Schema = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.2.0",
        "info": {"title": "phi4mini", "version": __version__, "summary": "One language model on this machine."},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": key}},
    }


def _describe(component: Schema, field: str, shape: Schema) -> None:
    """Describe a field whose type leaves open what it holds."""
    optional = field not in component.get("required", ())
    described = {"anyOf": [shape, {"type": "null"}], "default": None} if optional else shape
    component["properties"][field] = described


def _operation(row: Endpoint, path: str, named: dict[Any, Schema]) -> Schema:
    made: Schema = {
        "summary": row.summary,
        "operationId": row.handler.__name__,
        "security": [] if row.open else [{"key": []}, {}],
        "responses": {"200": _success(row, named)} | _refusals(row, path, named),
    }
    if "{" in path:
        name = path.partition("{")[2].partition("}")[0]
        schema = {"type": "string", "minLength": 1}
        made["parameters"] = [{"name": name, "in": "path", "required": True, "schema": schema}]
    if row.body is not None:
        made["requestBody"] = {"required": True, "content": {_JSON: {"schema": named[row.body]}}}
    return made


def _success(row: Endpoint, named: dict[Any, Schema]) -> Schema:
    content: Schema = {_JSON: {"schema": named[row.answer]}} if row.answer is not None else {row.kind: {}}
    if row.streams is not None and row.dialect == "ollama":
        item = {"anyOf": [named[row.streams], named[OllamaErrorBody]]}
        content[_LINES] = {"description": "Unless stream is false: lines of JSON.", "itemSchema": item}
    elif row.streams is not None:
        content[_EVENTS] = {"description": "With stream: server-sent events.", "itemSchema": _event(row, named)}
    return {"description": row.summary, "content": content}


def _kinds(streams: Any) -> tuple[Any, ...]:
    """The types of a stream's events: of a union its members."""
    return get_args(streams) or (streams,)


def _event(row: Endpoint, named: dict[Any, Schema]) -> Schema:
    """An event of a stream: one of its own, or the error with which it may end."""
    kinds = get_args(row.streams)
    events = [_with_data(named[kind], kind.__struct_config__.tag) for kind in kinds]
    if not kinds:
        done = {"type": "object", "properties": {"data": {"const": "[DONE]"}}, "required": ["data"]}
        events = [done, _with_data(named[row.streams])]
    error = _with_data(named[_ERRORS[row.dialect]], "error" if row.dialect == "anthropic" else None)
    return {"anyOf": [*events, error]}


def _with_data(data: Schema, name: str | None = None) -> Schema:
    """An event of this name, or of none, with JSON as its data."""
    holds: Schema = {"data": {"type": "string", "contentMediaType": _JSON, "contentSchema": data}}
    if name is not None:
        holds["event"] = {"const": name}
    return {"type": "object", "properties": holds, "required": list(holds)}


def _refusals(row: Endpoint, path: str, named: dict[Any, Schema]) -> Schema:
    """Every status but 200 with which a route may answer."""
    codes = set(_ALWAYS)
    codes |= set() if row.open else {401, 429, 503}
    codes |= {404, 408, 413, 415} if row.body is not None else set()
    codes |= {404} if "{" in path else set()
    codes |= set(row.more_codes)
    error = named[_ERRORS[row.dialect]]
    return {str(code): _refusal(code, error) for code in sorted(codes)}


def _refusal(code: int, error: Schema) -> Schema:
    if code < 400:
        return {"description": "What the client has is current."}
    return {"description": _REFUSALS[code], "content": {_JSON: {"schema": error}}}
