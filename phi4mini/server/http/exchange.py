"""One exchange over HTTP: read the body, make it the route's type, call the handler, send its answer or its stream.

Promises: a handler is cancelled as soon as its client has left (`disconnect.py`), or its deadline has passed; a stream
is never silent for longer than `settings.ping`; a client that does not read is cut off, and others do not wait for it;
an error before the first byte is a status, one after it is a last event without the `[DONE]` that marks success.

It does not know what any route does; the handler goes on from the typed body.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from starlette.types import Message, Receive, Scope, Send

from phi4mini.server.http.call import Call, Raw, Stream
from phi4mini.server.http.disconnect import unless_disconnected
from phi4mini.server.http.endpoint import Endpoint
from phi4mini.server.http.errors import ApiError, as_api_error, timed_out
from phi4mini.server.http.parse_body import body_as
from phi4mini.server.logs import Log
from phi4mini.server.metrics import Metrics
from phi4mini.server.settings import Settings

_JSON = b"application/json"
_EVENTS = b"text/event-stream; charset=utf-8"
_LINES = b"application/x-ndjson"


class Serving(Protocol):
    """What an exchange needs of the service behind its route, whatever that serves."""

    settings: Settings
    log: Log
    metrics: Metrics

    def check_open(self) -> None:
        """Raises 503 where no request can be answered."""

    async def apart(self, work: Callable[[], Any], size: int) -> Any:
        """Do work of about `size` bytes without holding up the event loop."""


S = TypeVar("S", bound=Serving)


class EndpointApp(Generic[S]):
    """An endpoint as an ASGI application."""

    def __init__(self, endpoint: Endpoint, service: S) -> None:
        self.endpoint, self.service = endpoint, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state, settings = scope["state"], self.service.settings
        deadlines = (state.get("deadline"), settings.request_deadline)
        call = Call(
            self.service,
            id=state["request_id"],
            owner=state.get("owner"),
            path=scope.get("path_params", {}),
            query=state.get("query", {}),
            sent={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
            strict=settings.strict,
            deadline=min((seconds for seconds in deadlines if seconds is not None), default=None),
            figures=state.setdefault("figures", {}),
        )
        exchange = Exchange(self.endpoint, call, receive, send)
        try:
            await exchange.run()
        except NotReading:
            self.service.metrics.cut_off.inc()
            exchange.left = True
            state["abort"]()
        finally:
            state["left"] = exchange.left


class Exchange(Generic[S]):
    """A request and its answer, from the first byte of the body to the last of the answer."""

    def __init__(self, endpoint: Endpoint, call: Call[S], receive: Receive, send: Send) -> None:
        self.endpoint, self.call, self.service = endpoint, call, call.service
        self.settings = call.service.settings
        self._receive, self._send = receive, send
        self._begun = False  # whether the head of the answer has been sent
        self.left = False  # whether the client left before the answer was whole

    async def run(self) -> None:
        """Read, answer, and give up when the client leaves. Raises NotReading."""
        try:
            body = await self._read()
        except ApiError as error:
            await self._refuse(error, close=error.status == 408)
            return
        except ConnectionResetError:
            return
        try:
            if not await unless_disconnected(self._work(body), self._receive):
                self.left = True
                self.service.metrics.cancelled.inc()
        finally:
            for end in self.call.at_end:
                end()

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

    async def _work(self, body: bytes) -> None:
        """Answer, whole or as a stream; what goes wrong is answered too, but for a client that does not read."""
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
                self.service.log.fault(self.call.id, error)
            await self._refuse(refused)

    async def _answer(self, body: bytes) -> Any:
        """What the handler returns for this body, read as the route's type."""
        row = self.endpoint
        if row.works:
            self.service.check_open()
        if row.body is None:
            return await row.handler(self.call)
        typed = await self.service.apart(lambda: body_as(row.body, body, self.call.ignore), len(body))
        return await row.handler(self.call, typed)

    async def _whole(self, answer: Any) -> None:
        if isinstance(answer, Raw):
            await self._start(answer.status, answer.content_type.encode(), answer.headers, answer.body)
        else:
            await self._start(200, _JSON, {}, msgspec.json.encode(answer))

    async def _stream(self, stream: Stream) -> None:
        """Send what the generator yields, and a ping whenever it is silent for too long."""
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
        """Send an error: as the answer, or as the last event of a stream that has begun."""
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
        """Send the head of the answer, and the whole body where it is known already."""
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
    """The client has not taken what was sent to it for longer than the write deadline."""
