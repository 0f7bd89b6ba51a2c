"""From settings to a server that runs until it is told to stop: serves while the model opens, drains when it ends.

Promises: who asks while the model is opened is told so; the first SIGTERM or SIGINT lets what runs finish for `drain`
seconds and refuses what only waits, a later one ends everything now, as quietly.
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
_FLUSH = 2.0  # seconds for what was said last to reach the clients
_FLUSH_NOW = 0.2  # the same when somebody is impatient
_SAME_SIGNAL = 1.0  # seconds: systemd and `timeout` signal every process of a group, and the watcher passes its own on
_SPARE_FILES = 200  # descriptors for everything that is no connection
_GRACE = 5  # seconds a connection outlives what its answers promise: a request may be on its way when they are over
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(service: Service, listener: socket.socket, started: Callable[[], None] = lambda: None) -> None:
    """Open the model and answer until a signal ends it; returns when all is given back. `started` is called when the
    model is open. Raises what opening it raised.
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
        timeout_graceful_shutdown=round(_FLUSH) + 1,  # never reached: we cut connections off before that
        **h11_settings(),
    )
    server = _Server(config, service, started)
    with asyncio.Runner(loop_factory=PatientLoop) as runner:
        runner.run(server.serve([listener]))
    if server.failure:
        raise server.failure


def _most_files() -> int:
    """Descriptors this process may have, after asking for as many as it may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, 1 << 20)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class _Server(uvicorn.Server):
    """uvicorn with our way to begin and to end."""

    def __init__(self, config: uvicorn.Config, service: Service, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._started = service, started
        self._opening: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._told = 0.0  # when, by the loop's clock
        self.failure: Exception | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn would end the process with the signal's own code after all is done; we end with 0."""
        loop = asyncio.get_running_loop()
        for number in _ENDINGS:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in _ENDINGS:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; the model opens while /health is answered already."""
        await super().startup(sockets)
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        try:
            await asyncio.wrap_future(self._service.begin())
            self._started()
        except Exception as error:
            self.failure, self.should_exit = error, True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but in a hurry too the application is closed: else it ends in a traceback."""
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
        """Refuse what comes and what only waits; what runs may finish."""
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
        """End what still runs; who has not read the last of it after `flush` seconds is cut off."""
        self._service.give_up()
        self.should_exit = True
        asyncio.get_running_loop().call_later(flush, self._cut_off)

    def _cut_off(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
