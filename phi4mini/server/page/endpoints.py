"""The page's endpoints: its files, which need no key, and the rendering of Markdown, which needs one."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from phi4mini.server.http.call import Raw
from phi4mini.server.http.endpoint import Endpoint
from phi4mini.server.http.errors import ApiError
from phi4mini.server.page.markdown import render
from phi4mini.server.page.static_files import HEADERS, page
from phi4mini.server.service import ServiceCall

MAX_TEXT = 4_000_000  # characters; a text too long to be rendered comes back plain, and beyond this not at all


class RenderBody(msgspec.Struct):
    """Markdown, as a model writes it."""

    text: Annotated[str, Meta(max_length=MAX_TEXT)]


class Rendered(msgspec.Struct):
    """HTML that cannot run anything."""

    html: str


async def index(call: ServiceCall) -> Raw:
    """The chat page."""
    return _file(call, "index.html")


async def file(call: ServiceCall) -> Raw:
    """One of its files, by its exact name."""
    return _file(call, str(call.path["name"]))


async def rendered(call: ServiceCall, body: RenderBody) -> Rendered:
    """Markdown with code and formulas as HTML."""
    call.headers.update(HEADERS)
    return Rendered(await call.service.apart(lambda: render(body.text), len(body.text) * 8))


def _file(call: ServiceCall, name: str) -> Raw:
    found = page().file(name, call.sent.get("if-none-match"))
    if found is None:
        raise ApiError(404, "there is no such file", code="unknown_route")
    headers = dict(found.headers)
    return Raw(found.body, headers.pop("Content-Type", "text/plain"), headers, found.status)


ENDPOINTS = [
    Endpoint("GET", "/", index, "The chat page.", open=True, kind="text/html", more_codes=(304,)),
    Endpoint("GET", "/page/{name}", file, "A file of the page.", open=True, kind="*/*", more_codes=(304,)),
    Endpoint("POST", "/page/render", rendered, "Markdown to safe HTML.", body=RenderBody, answer=Rendered),
]
