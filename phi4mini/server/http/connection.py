"""An HTTP/1.1 connection: uvicorn's h11 protocol with deadlines for slow clients and a bound on connections.

uvicorn waits forever for a client that sends nothing or half a header, that goes on sending a body after it was
refused, or that does not read. Promise: here such a connection is closed, after `header_deadline` or `write_deadline`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from phi4mini.server.http.errors import ApiError

MOST_HEAD = 64 << 10  # bytes of a request's line and headers


def protocol_class(header_deadline: float, write_deadline: float, connections: int) -> type[H11Protocol]:
    """The protocol with these limits, in seconds and connections."""

    class Guarded(_Guarded):
        _header_deadline, _write_deadline, _most_connections = header_deadline, write_deadline, connections

    return Guarded


class _Guarded(H11Protocol):
    _header_deadline: float
    _write_deadline: float
    _most_connections: int
    _timer: asyncio.TimerHandle | None = None  # runs while a head is due, or the rest of a body that was answered early

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._most_connections:
            transport.abort()
            return
        self._begin_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if "abort" not in self.app_state:  # set here, so that an idle connection costs no copy
            self.app_state = {**self.app_state, "abort": self.transport.abort}
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE:
            if self._timer is None:
                self._begin_waiting()  # the next request on a kept connection has begun
        elif self.conn.our_state is not h11.DONE:
            self._end_waiting()
        if self.conn.their_state is h11.DONE and len(self.conn.trailing_data[0]) <= MOST_HEAD:
            self.flow.resume_reading()  # h11 pauses with a pipelined request; a disconnect must still be seen

    def on_response_complete(self) -> None:
        """Start the deadline of a client that has not read its answer, or not sent the whole of its request."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._see_it_closed()
        elif self.conn.their_state is h11.SEND_BODY and self._timer is None:
            self._begin_waiting()
        elif size := self.transport.get_write_buffer_size():
            self.loop.call_later(self._write_deadline, self._see_it_read, size)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._see_it_closed()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP in the API's form, like every other refusal."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()  # an answer has begun: a second one would be read as part of it
            return
        error = ApiError(400, "not a valid HTTP/1.1 request, or its head is too large", code="bad_request")
        body = msgspec.json.encode(error.body())
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        head = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._see_it_closed()

    def _begin_waiting(self) -> None:
        self._timer = self.loop.call_later(self._header_deadline, self._too_slow)

    def _end_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        self.transport.abort()

    def _see_it_read(self, before: int) -> None:
        """Abort a kept connection whose answer is still unread; one that was read may idle for longer."""
        size = 0 if self.transport.is_closing() else self.transport.get_write_buffer_size()
        if size >= before:
            self.transport.abort()
        elif size:
            self.loop.call_later(self._write_deadline, self._see_it_read, size)

    def _see_it_closed(self) -> None:
        """Abort a closing connection after the write deadline: it stays open until its client has read everything."""
        if self.transport.get_write_buffer_size():
            self.loop.call_later(self._write_deadline, self.transport.abort)


def h11_settings() -> dict[str, Any]:
    """Further settings of uvicorn."""
    return {"h11_max_incomplete_event_size": MOST_HEAD, "ws": "none", "server_header": False, "proxy_headers": False}
