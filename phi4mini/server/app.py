"""The ASGI application: the endpoints of every module in one table, behind the guard.

Promises: a request reaches a route through the guard only; a path without a route is answered in the API's own form.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib import import_module

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from phi4mini.server.http.endpoint import Endpoint
from phi4mini.server.http.errors import ApiError, dialect_of
from phi4mini.server.http.exchange import EndpointApp
from phi4mini.server.http.guard import Guard
from phi4mini.server.http.nearest_path import meant
from phi4mini.server.openapi.document import document_endpoint
from phi4mini.server.service import Service

MODULES = (  # each has a list ENDPOINTS
    "routes.status",
    "dialects.openai.chat",
    "dialects.openai.completions",
    "dialects.openai.responses",
    "dialects.anthropic.messages",
    "dialects.openai.embeddings",
    "routes.tokenize",
    "page.endpoints",
    "dialects.ollama.chat",
    "dialects.ollama.models",
)


def endpoints() -> list[Endpoint]:
    """All rows of the API in the order of the modules; the last one is the OpenAPI document of all of them."""
    rows = [row for name in MODULES for row in import_module(f"phi4mini.server.{name}").ENDPOINTS]
    return [*rows, document_endpoint(rows)]


def application(service: Service) -> ASGIApp:
    """The ASGI application of one service, which starts and closes with it."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    rows = endpoints()
    app = Starlette(
        routes=list(_routes(rows, service)), lifespan=lifespan, exception_handlers={HTTPException: _no_such_route}
    )
    app.router.redirect_slashes = False
    opened = {(row.method, row.path) for row in rows if row.open}

    def is_open(method: str, path: str) -> bool:
        method = "GET" if method == "HEAD" else method
        return (method, path) in opened or (method == "GET" and path.startswith("/page/") and ".." not in path)

    return Guard(app, service.settings, service.log, is_open, service.metrics.answered)


def _routes(rows: Iterable[Endpoint], service: Service) -> Iterable[Route]:
    by_path: dict[str, list[Endpoint]] = {}
    for row in rows:
        by_path.setdefault(row.path, []).append(row)
    for path, same in by_path.items():
        for row in same:
            yield Route(path, EndpointApp(row, service), methods=[row.method])


async def _no_such_route(request: Request, error: Exception) -> Response:
    """404 and 405 in the API's form, with the path that was probably meant, or the allowed methods."""
    assert isinstance(error, HTTPException)
    code = {404: "unknown_route", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    path = request.scope["path"]  # not request.url, which is made from the Host header
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    message, headers = f"{request.method} {path[:100]}: {error.detail}", dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(routes, path))
        message += f"; it takes {headers['Allow']}"
    elif right := meant(path, lambda one: bool(_methods(routes, one)), [r.path for r in routes if "{" not in r.path]):
        methods = _methods(routes, right)
        path, method = right, request.method if request.method in methods else methods[0]
        message += f"; did you mean {method} {right}?"
    refused = ApiError(error.status_code, message, code=code)
    body = msgspec.json.encode(refused.body(dialect_of(path)))
    return Response(body, error.status_code, {**headers, "Content-Type": "application/json"})


def _methods(routes: Iterable[Route], path: str) -> list[str]:
    """The methods that a path takes."""
    matching = (route for route in routes if route.path_regex.match(path))
    return sorted({method for route in matching for method in route.methods or ()})
