"""One row of the API: a method and a path, the handler that answers them, and the types of what goes in and out.

Promise: everything about a route that the server, the OpenAPI document and the errors need to know stands in its row.
`exchange.py` calls the handler; docs/howto/add-an-endpoint.md shows how a row is added.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from phi4mini.server.http.call import Call

PING = b": ping\n\n"  # a comment of server-sent events: every client skips it
Handler = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Endpoint:
    """`handler(call, body)`, or `handler(call)` where there is no body, returns a struct or dict (sent as JSON), a
    `Raw`, or an async generator of bytes (streamed).
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: Any = None  # the struct that a body is read as
    answer: Any = None  # the struct of a whole answer
    streams: Any = None  # what the events of a stream hold: one type, or a union whose tags are the events' names
    open: bool = False  # needs no API key
    works: bool = False  # needs the model, so it is refused while the server loads or drains
    dialect: str = "openai"  # the form of errors, and of streams: Ollama's are lines of JSON
    ping: Callable[[Call[Any]], bytes] = lambda call: PING  # what is sent into a silent stream
    names: Mapping[str, str] = field(default_factory=dict)  # our parameter -> the body's field, for errors
    kind: str = "application/json"  # content type of a `Raw`
    more_codes: tuple[int, ...] = ()  # statuses that this row alone may answer with
