"""The server's process: it serves while the model opens, and drains when a signal ends it.

Promises: requests that come while the model opens are refused with 503; after the first SIGTERM or SIGINT running
requests have `drain` seconds to finish and waiting ones are refused; a later signal ends everything at once. The exit
is clean either way.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import uvicorn

from phi4mini.server.app import application
from phi4mini.server.http.connection import h11_settings, protocol_class
from phi4mini.server.http.event_loop import PatientLoop
from phi4mini.server.service import Service

_POLL = 0.05  # seconds between looks at whether the last request is over
_FLUSH = 2.0  # seconds for the last events to reach the clients
_FLUSH_NOW = 0.2  # the same after a second signal
_SAME_SIGNAL = 1.0  # seconds; a group may be signalled by systemd or `timeout` and once more by the supervisor
_SPARE_FILES = 200  # file descriptors kept for everything but connections
_GRACE = 5  # seconds beyond the Keep-Alive that answers promise: a request may be on its way at its end
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(service: Service, listener: socket.socket, started: Callable[[], None] = lambda: None) -> None:
    """Open the model and answer requests until a signal; returns when everything is released. `started` is called when
    the model is open. Raises what opening the model raised.
    """
    settings = service.settings
    connections = min(settings.connections, max(_most_files() - _SPARE_FILES, 1))
    config = uvicorn.Config(
        application(service),
        http=protocol_class(settings.header_deadline, settings.write_deadline, connections),
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_keep_alive=settings.idle_deadline + _GRACE,
        timeout_graceful_shutdown=round(_FLUSH) + 1,  # never reached: connections are aborted before that
        **h11_settings(),
    )
    server = _Server(config, service, started)
    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        runner.run(server.serve([listener]))
    if server.failure:
        raise server.failure


def _most_files() -> int:
    """Raise this process's limit of file descriptors as far as allowed; the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 1 << 20)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class _Server(uvicorn.Server):
    """uvicorn's server with our start and shutdown."""

    def __init__(self, config: uvicorn.Config, service: Service, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._started = service, started
        self._opening: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._told = 0.0  # time of the first signal, by the loop's clock
        self.failure: Exception | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals here: uvicorn would end the process with the signal's exit code, and ours is 0."""
        loop = asyncio.get_running_loop()
        for number in _ENDINGS:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in _ENDINGS:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen as uvicorn does, then open the model: /health is answered meanwhile."""
        await super().startup(sockets)
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        try:
            await asyncio.wrap_future(self._service.begin())
            self._started()
        except Exception as error:
            self.failure, self.should_exit = error, True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but close the application after a second signal too: otherwise it ends in a traceback."""
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()

    def _stop(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._ending is None:
            self._told = now
            self._ending = asyncio.get_running_loop().create_task(self._drain())
        elif now - self._told >= _SAME_SIGNAL:
            self.force_exit = True
            self._end(_FLUSH_NOW)

    async def _drain(self) -> None:
        """Refuse new and waiting requests; running ones may finish."""
        service, until = self._service, self._told + self._service.settings.drain
        if count := service.drain():
            self._announce(count, service.settings.drain)
        while service.in_flight and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(_POLL)
        self._end(_FLUSH)

    def _announce(self, count: int, seconds: float) -> None:
        what = "1 request has" if count == 1 else f"{count} requests have"
        text = f"stopping: {what} up to {seconds:g} s; a second Ctrl-C ends {'it' if count == 1 else 'them'} now"
        self._service.log.say("stopping", text, requests=count, seconds=seconds)

    def _end(self, flush: float) -> None:
        """End running requests; clients that have not read the last event after `flush` seconds are cut off."""
        self._service.give_up()
        self.should_exit = True
        asyncio.get_running_loop().call_later(flush, self._cut_off)

    def _cut_off(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
