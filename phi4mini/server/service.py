"""The service behind all routes: the model in its runner, the queue of each API key, threads for text, the metrics.

Promises: nothing that takes long runs on the event loop (long texts are rendered and tokenised on threads); an API key
may have a bounded number of requests queued, however many it sends. It knows no dialect.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from phi4mini.llm.model import Model, TextModel
from phi4mini.llm.run import Run
from phi4mini.llm.runner import Runner
from phi4mini.server.answering import Choices
from phi4mini.server.facts import Facts, facts_of
from phi4mini.server.http.call import Call
from phi4mini.server.http.errors import ApiError, busy, not_loaded, unavailable
from phi4mini.server.logs import Log
from phi4mini.server.metrics import Metrics
from phi4mini.server.settings import Settings

T = TypeVar("T")
_QUICK = 8192  # bytes of a body that may be decoded, rendered and tokenised on the event loop


class Service:
    """One model, served."""

    def __init__(self, settings: Settings, open_model: Callable[[], Model], unload_after: float | None = None) -> None:
        self.settings, self.log = settings, Log(settings.json_logs)
        self.runner = Runner(open_model, unload_after, self.log.fault)
        self.metrics = Metrics(self.runner)
        self.draining = self.opened = False
        self.created = int(time.time())
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="phi4mini-text")
        self._queued: Counter[str | None] = Counter()  # requests that are queued or running, by owner
        self._open: set[Choices] = set()
        self._facts: Facts | None = None
        self.text: TextModel  # the model's text side; works while the weights are not in memory

    # ---- from the beginning to the end

    def begin(self) -> Future[None]:
        """Begin to open the model. The future is done when requests can be answered; it raises what opening raised."""
        return self.runner.begin(self._take_over)

    def start(self) -> None:
        """Open the model and wait for it."""
        self.begin().result()

    def _take_over(self, model: Model) -> None:
        """Keep what outlives the model's unloading."""
        self._facts, self.text = facts_of(model), model.text_side()
        self.text.name = self._facts.id
        self.opened = True
        self._pool.submit(self.text.grammars.build)  # a second or two for 200,000 tokens, before the first schema

    def close(self) -> None:
        """End what runs and release everything; a model that is still opening is left to the end of the process."""
        self.runner.close(wait=self.opened)
        self._pool.shutdown(cancel_futures=True)

    def check_open(self) -> None:
        """Raises 503 where no request can be answered: while loading, while draining, or without a model."""
        if self.draining:
            raise unavailable("the server is shutting down", "draining")
        if not self.opened:
            raise unavailable("the model is being loaded", "loading")
        if self.runner.broken:
            raise not_loaded()

    def drain(self) -> int:
        """Accept no more requests and end those that no pass has taken yet; how many requests still run."""
        self.draining = True
        going_on = self.in_flight
        for choices in list(self._open):
            if choices.fail(unavailable("the server is shutting down", "draining"), only_waiting=True):
                going_on -= len(choices.runs)
        return going_on

    def give_up(self) -> None:
        """End every request that still runs."""
        for choices in list(self._open):
            choices.fail(unavailable("the server is shutting down", "draining"))

    # ---- what routes read

    @staticmethod
    def now() -> int:
        """Unix seconds."""
        return int(time.time())

    @property
    def facts(self) -> Facts:
        """Facts of the model. Raises 503 while it is opened for the first time."""
        if self._facts is None:
            raise unavailable("the model is being loaded", "loading")
        return self._facts

    @property
    def names(self) -> tuple[str, ...]:
        """The names that a request may call the model by."""
        return (self.facts.id, self.facts.id.rpartition("/")[2], self.facts.opened_as, "default")

    def check_model(self, name: str | None) -> None:
        """Raises 404 for a name of another model."""
        if name is not None and name not in self.names:
            message = f"the model {name[:80]!r} is not served here; {self.facts.id!r} is"
            raise ApiError(404, message, param="model", code="model_not_found")

    @property
    def in_flight(self) -> int:
        """Requests that are queued or running."""
        return self._queued.total()

    # ---- what routes have done

    async def apart(self, work: Callable[[], T], size: int = _QUICK + 1) -> T:
        """Do work on about `size` bytes of text: on a thread where that is more than a few kilobytes, else here."""
        if size <= _QUICK:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def admit(self, runs: Sequence[Run], call: Call[Any]) -> Choices:
        """Queue runs in the engine's runner until they or the call end. Raises 429 where the caller's queue is full."""
        most = self.settings.places + self.settings.queue
        if len(runs) > most:
            raise ApiError(400, f"{len(runs)} answers are asked for; at most {most} can be queued", param="n")
        self._queue(call.owner, len(runs))
        choices = Choices(runs, self.runner, self.metrics, call.owner, self._leave)
        self._open.add(choices)
        call.at_end += [choices.close, lambda: call.figures.update(choices.figures())]
        choices.start()
        return choices

    async def run_job(self, job: Callable[[Model], Iterator[Any]], call: Call[Any]) -> list[Any]:
        """Values of a job on the model, computed between passes. Raises 429 as `admit` does."""
        self._queue(call.owner, 1)
        try:
            return await asyncio.wrap_future(self.runner.call(job))
        finally:
            self._queue(call.owner, -1)

    def _leave(self, choices: Choices) -> None:
        """Choices are over: their places in the queue are free."""
        self._open.discard(choices)
        self._queue(choices.owner, -len(choices.runs))

    def _queue(self, owner: str | None, count: int) -> None:
        """Take places in an owner's queue, or give them back where `count` is negative. Raises 429 if it is full."""
        most, queued = self.settings.places + self.settings.queue, self._queued[owner]
        if count > 0 and queued + count > most:
            self.metrics.refused.inc()
            raise busy(f"{queued} requests are waiting or running; at most {most} may be")
        self._queued[owner] += count
        self._queued += Counter()  # drops owners with no requests


ServiceCall = Call[Service]  # a request to this service, as handlers get it
