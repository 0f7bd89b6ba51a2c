"""From a route's types to HTTP and back: reads the body, calls the handler, sends its answer or its stream.

Promises: a handler is cancelled as soon as its client has left, in every phase, or its deadline has passed; a stream
is never silent for longer than `settings.ping`; a client that does not read is cut off, others do not wait for it; an
error before the first byte is a status, one after it is a last event without the `[DONE]` that marks success.

It does not know what any route does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.types import Message, Receive, Scope, Send

from phi4mini.server.http.errors import ApiError, as_api_error, timed_out

if TYPE_CHECKING:
    from phi4mini.server.service import Service

PING = b": ping\n\n"
_JSON = b"application/json"
_EVENTS = b"text/event-stream; charset=utf-8"
_LINES = b"application/x-ndjson"


@dataclass
class Call:
    """One request on its way: who asks, and what the answer's headers shall say."""

    service: Service
    id: str
    owner: str | None
    path: Mapping[str, Any] = field(default_factory=dict)  # parameters of the path
    query: Mapping[str, str] = field(default_factory=dict)
    sent: Mapping[str, str] = field(default_factory=dict)  # headers of the request, by lower-case name
    headers: dict[str, str] = field(default_factory=dict)  # of the answer
    deadline: float | None = None  # seconds
    at_end: list[Callable[[], None]] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=dict)  # for the line in the log
    timer: asyncio.Timeout | None = None
    ignored: list[str] = field(default_factory=list)

    def ignore(self, names: Sequence[str]) -> None:
        """Fields that mean nothing here: the answer names them in a header, or a strict server refuses them."""
        before = self.headers.get("X-Ignored-Fields", "")
        names = [name for name in dict.fromkeys(names) if name not in self.ignored]  # a history says one thing often
        if not names:
            return
        self.ignored += names
        plain = re.compile(r"[A-Za-z0-9_.-]+")  # anything else is quoted: a line break in a header would end it
        shown = ", ".join(name[:64] if plain.fullmatch(name) else ascii(name[:40]) for name in names[:8])
        if self.service.settings.strict:
            raise ApiError(400, f"unknown field: {shown}", param=names[0][:64], code="unknown_field")
        self.headers["X-Ignored-Fields"] = f"{before}, {shown}" if before else shown

    def within(self, seconds: float | None) -> None:
        """A shorter deadline, counted from now."""
        if seconds is not None and self.timer and (self.deadline is None or seconds < self.deadline):
            self.deadline = seconds
            self.timer.reschedule(asyncio.get_running_loop().time() + seconds)


@dataclass(frozen=True)
class Raw:
    """An answer that is not JSON."""

    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


Stream = AsyncGenerator[bytes, None]  # server-sent events, ready to send
Handler = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Endpoint:
    """One row of the API: method, path, handler, and the types of what goes in and out.

    `handler(call, body)`, or `handler(call)` where there is no body, returns a struct or dict (sent as JSON), a `Raw`,
    or an async generator of events. `open`: needs no key. `works`: needs the model, so it is refused while draining.
    `streams`: what its stream's events hold: one type, or a union whose tags are the names of the events. `dialect`:
    whose error form is used, and how streams are written: Ollama's are lines of JSON. `ping`: what is sent into a
    silent stream.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: Any = None
    answer: Any = None
    streams: Any = None
    open: bool = False
    works: bool = False
    dialect: str = "openai"
    ping: Callable[[Call], bytes] = lambda call: PING
    names: Mapping[str, str] = field(default_factory=dict)  # our parameter -> this body's field, for errors
    kind: str = "application/json"  # content type of a `Raw`
    more_codes: tuple[int, ...] = ()  # statuses that this row alone may answer with


class EndpointApp:
    """An endpoint as an ASGI application."""

    def __init__(self, endpoint: Endpoint, service: Service) -> None:
        self.endpoint, self.service = endpoint, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        deadlines = (state.get("deadline"), self.service.settings.request_deadline)
        call = Call(
            self.service,
            id=state["request_id"],
            owner=state.get("owner"),
            path=scope.get("path_params", {}),
            query=state.get("query", {}),
            sent={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
            deadline=min((seconds for seconds in deadlines if seconds is not None), default=None),
            figures=state.setdefault("figures", {}),
        )
        answering = Answering(self.endpoint, call, receive, send)
        try:
            await answering.run()
        except NotReading:
            self.service.metrics.cut_off.inc()
            answering.left = True
            state["abort"]()
        finally:
            state["left"] = answering.left


class Answering:
    """The life of one call."""

    def __init__(self, endpoint: Endpoint, call: Call, receive: Receive, send: Send) -> None:
        self.endpoint, self.call, self.settings = endpoint, call, call.service.settings
        self._receive, self._send = receive, send
        self._begun = False
        self.left = False  # whether the client did before the answer was whole

    async def run(self) -> None:
        """Read, answer, and give up when nobody listens any more."""
        try:
            body = await self._read()
        except ApiError as error:
            await self._refuse(error, close=error.status == 408)
            return
        except ConnectionResetError:
            return
        work = asyncio.ensure_future(self._work(body))
        gone = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.left = True
                self.call.service.metrics.cancelled.inc()
        finally:
            gone.cancel()
            work.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait({work, gone})
            for end in self.call.at_end:
                end()
        if not work.cancelled():
            work.result()  # raises NotReading

    async def _read(self) -> bytes:
        """The whole body within its limit and deadline."""
        limit, parts, size = self.settings.body_limit, [], 0
        try:
            async with asyncio.timeout(self.settings.body_deadline):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionResetError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise ApiError(413, f"the body is larger than {limit} bytes", code="body_too_large")
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            seconds = self.settings.body_deadline
            raise ApiError(408, f"the body did not arrive within {seconds:g} s", code="body_timeout") from None

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _work(self, body: bytes) -> None:
        try:
            async with asyncio.timeout(self.call.deadline) as self.call.timer:
                answer = await self._answer(body)
                if isinstance(answer, AsyncGenerator):
                    async with aclosing(answer) as stream:
                        await self._stream(stream)
                else:
                    await self._whole(answer)
        except TimeoutError:
            await self._refuse(timed_out(self.call.deadline or 0.0))
        except NotReading:
            raise
        except Exception as error:
            refused = as_api_error(error, self.endpoint.names)
            if refused.status == 500:
                self.call.service.log.fault(self.call.id, error)
            await self._refuse(refused)

    async def _answer(self, body: bytes) -> Any:
        service = self.call.service
        if self.endpoint.works:
            service.check_open()
        if self.endpoint.body is None:
            return await self.endpoint.handler(self.call)
        return await self.endpoint.handler(self.call, await service.decode(body, self.endpoint.body, self.call))

    async def _whole(self, answer: Any) -> None:
        if isinstance(answer, Raw):
            await self._start(answer.status, answer.content_type.encode(), answer.headers, answer.body)
        else:
            await self._start(200, _JSON, {}, msgspec.json.encode(answer))

    async def _stream(self, stream: Stream) -> None:
        kind = _LINES if self.endpoint.dialect == "ollama" else _EVENTS
        await self._start(200, kind, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        following: asyncio.Future[bytes] | None = None
        try:
            while True:
                following = following or asyncio.ensure_future(anext(stream))
                done, _ = await asyncio.wait({following}, timeout=self.settings.ping)
                if not done:
                    await self._write(self.endpoint.ping(self.call))
                    continue
                ready, following = following, None
                try:
                    await self._write(ready.result())
                except StopAsyncIteration:
                    break
        finally:
            if following:
                following.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                    await following
        await self._write(b"", last=True)

    async def _refuse(self, error: ApiError, close: bool = False) -> None:
        dialect = self.endpoint.dialect
        body = msgspec.json.encode(error.body(dialect))
        if not self._begun:
            headers = error.headers | ({"Connection": "close"} if close else {})
            await self._start(error.status, _JSON, headers, body)
            return
        event = b"event: error\n" if dialect == "anthropic" else b""
        with suppress(NotReading):
            await self._write(body + b"\n" if dialect == "ollama" else event + b"data: " + body + b"\n\n", last=True)

    async def _start(self, status: int, kind: bytes, headers: Mapping[str, str], body: bytes | None = None) -> None:
        """The head, and the body with it where there is one already."""
        self._begun = True
        given = {"content-type": kind.decode()} | self.call.headers | dict(headers)
        if body is not None:
            given["content-length"] = str(len(body))
        sent = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in given.items()]
        await self._send_now({"type": "http.response.start", "status": status, "headers": sent})
        if body is not None:
            await self._write(body, last=True)

    async def _write(self, data: bytes, last: bool = False) -> None:
        await self._send_now({"type": "http.response.body", "body": data, "more_body": not last})

    async def _send_now(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self.settings.write_deadline):
                await self._send(message)
        except TimeoutError:
            raise NotReading from None


class NotReading(Exception):
    """The client has not taken what was sent for longer than it may."""
