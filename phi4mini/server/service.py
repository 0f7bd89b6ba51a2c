"""What all routes share: the model behind its runner, who may queue, the threads for slow text work, the figures.

Promises: nothing that takes long runs on the event loop (long texts are rendered and tokenised on threads); a key may
have so many requests queued and no more, however many it sends.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from phi4mini.errors import TooLong
from phi4mini.llm.model import Model, TextModel
from phi4mini.llm.run import Reader, Run
from phi4mini.llm.runner import Runner
from phi4mini.server.answering import Choices
from phi4mini.server.http import parse_body
from phi4mini.server.http.errors import ApiError, busy, not_loaded, unavailable
from phi4mini.server.http.unread_fields import unread
from phi4mini.server.logs import Log
from phi4mini.server.metrics import Metrics
from phi4mini.server.settings import Settings

if TYPE_CHECKING:
    from phi4mini.server.http.endpoint import Call

T = TypeVar("T")
_QUICK = 8192  # bytes of a body that may be decoded, rendered and tokenised on the event loop


@dataclass(frozen=True)
class Facts:
    """What is true of the model whether it is in memory or not. `id` is for clients; `opened_as` may be a path."""

    id: str
    opened_as: str
    ctx: int
    kv: str
    quant: str
    threads: int
    parameters: int
    kv_tokens: int
    kv_token_bytes: int
    fingerprint: str
    nbytes: int  # of its store


class Service:
    """One model, served."""

    def __init__(self, settings: Settings, open_model: Callable[[], Model], unload_after: float | None = None) -> None:
        self.settings, self.log = settings, Log(settings.json_logs)
        self.runner = Runner(open_model, unload_after, self.log.fault)
        self.metrics = Metrics(self.runner)
        self.draining = self.opened = False
        self.created = int(time.time())
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="phi4mini-text")
        self._queued: Counter[str | None] = Counter()
        self._open: set[Choices] = set()
        self._facts: Facts | None = None
        self.text: TextModel  # works while the weights are not there

    def begin(self) -> Future[None]:
        """Begin to open the model; done when requests can be answered. Raises there what opening it raised."""
        return self.runner.begin(self._take_over)

    def start(self) -> None:
        """Open the model and wait for it."""
        self.begin().result()

    def _take_over(self, model: Model) -> None:
        """What belongs to the model and outlives its unloading is kept."""
        self._facts, self.text = _facts(model), model.text_side()
        self.text.name = self._facts.id
        self.opened = True
        self._pool.submit(self.text.grammars.build)  # a second or two for 200,000 tokens; nobody waits for it

    def close(self) -> None:
        """End what runs and give everything back; a model that is being opened is left to the end of the process."""
        self.runner.close(wait=self.opened)
        self._pool.shutdown(cancel_futures=True)

    @property
    def facts(self) -> Facts:
        """Of the model. Raises 503 while it is opened for the first time."""
        if self._facts is None:
            raise unavailable("the model is being loaded", "loading")
        return self._facts

    def check_open(self) -> None:
        """Raises 503 where no request can be answered: at the beginning, at the end, or without a model."""
        if self.draining:
            raise unavailable("the server is shutting down", "draining")
        if not self.opened:
            raise unavailable("the model is being loaded", "loading")
        if self.runner.broken:
            raise not_loaded()

    def drain(self) -> int:
        """Accept nothing more; end what has not been in a pass yet. What runs goes on: so many requests."""
        self.draining = True
        going_on = self.in_flight
        for choices in list(self._open):
            if choices.fail(unavailable("the server is shutting down", "draining"), only_waiting=True):
                going_on -= len(choices.runs)
        return going_on

    def give_up(self) -> None:
        """End what still runs."""
        for choices in list(self._open):
            choices.fail(unavailable("the server is shutting down", "draining"))

    # ---- for routes

    @staticmethod
    def now() -> int:
        """Unix seconds."""
        return int(time.time())

    async def apart(self, work: Callable[[], T], size: int = _QUICK + 1) -> T:
        """Do it on a thread if it is about more than a few kilobytes, else here."""
        if size <= _QUICK:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def decode(self, body: bytes, kind: Any, call: Call) -> Any:
        """The body as its type. Unknown fields are named in a header, or refused where the server is strict."""
        return await self.apart(lambda: self._decode(body, kind, call), len(body))

    def _decode(self, body: bytes, kind: Any, call: Call) -> Any:
        given = parse_body.parsed(body)
        known = {field.encode_name for field in msgspec.structs.fields(kind)}
        call.ignore(sorted(key for key in given if key not in known))
        body = parse_body.typed(given, kind)
        call.ignore(unread(given, kind))
        return body

    def check_model(self, name: str | None) -> None:
        """Only the model that is served can be asked for. Raises 404."""
        if name is not None and name not in self.names:
            message = f"the model {name[:80]!r} is not served here; {self.facts.id!r} is"
            raise ApiError(404, message, param="model", code="model_not_found")

    @property
    def names(self) -> tuple[str, ...]:
        """What the model may be called."""
        return (self.facts.id, self.facts.id.rpartition("/")[2], self.facts.opened_as, "default")

    def run(
        self, ids: Sequence[int], sampling: Mapping[str, Any], call: Call, reader: Reader | None = None, **who: Any
    ) -> Run:
        """A run of this caller's; whoever has another key never begins with what this one has asked."""
        ctx, new = self.facts.ctx, sampling.get("max_new_tokens")
        if len(ids) + (new or 1) > ctx:
            raise TooLong(len(ids), ctx, ctx, new)
        salt = "\0".join(part for part in (call.owner, who.pop("salt", None)) if part) or None
        return self.text.run(ids, sampling, reader, salt=salt, owner=call.owner, **who)

    def admit(self, runs: Sequence[Run], call: Call) -> Choices:
        """Queue runs until they or the call end. Raises 429 if this key has too many."""
        most = self.settings.places + self.settings.queue
        if len(runs) > most:
            raise ApiError(400, f"{len(runs)} answers are asked for; at most {most} can be queued", param="n")
        self._queue(call.owner, len(runs))
        choices = Choices(self, runs, call.owner)
        self._open.add(choices)
        call.at_end += [choices.close, lambda: call.figures.update(choices.figures())]
        choices.start()
        return choices

    def leave(self, choices: Choices) -> None:
        """Choices are over: their place in the queue is free."""
        self._open.discard(choices)
        self._queue(choices.owner, -len(choices.runs))

    def _queue(self, owner: str | None, count: int) -> None:
        """Take places of an owner's queue, or give them back. Raises 429 when there are not so many."""
        most, queued = self.settings.places + self.settings.queue, self._queued[owner]
        if count > 0 and queued + count > most:
            self.metrics.refused.inc()
            raise busy(f"{queued} requests are waiting or running; at most {most} may be")
        self._queued[owner] += count
        self._queued += Counter()  # forgets owners that have none

    @property
    def in_flight(self) -> int:
        """Requests that are queued or running."""
        return self._queued.total()

    async def ask(self, job: Callable[[Model], Iterator[Any]], call: Call) -> list[Any]:
        """Values of a job on the model, computed between the passes of others. Raises 429 as `admit` does."""
        self._queue(call.owner, 1)
        try:
            return await asyncio.wrap_future(self.runner.call(job))
        finally:
            self._queue(call.owner, -1)


def _facts(model: Model) -> Facts:
    engine = model.engine
    return Facts(
        id=_public(model.name),
        opened_as=model.name,
        ctx=engine.ctx,
        kv=engine.facts.kv,
        quant=model.store.recipe,
        threads=engine.facts.threads,
        parameters=model.config.num_parameters,
        kv_tokens=engine.facts.kv_tokens,
        kv_token_bytes=engine.facts.kv_token_bytes,
        fingerprint=f"phi4mini_{model.store.fingerprint[:16]}",
        nbytes=model.store.nbytes,
    )


def _public(name: str) -> str:
    """A model's name for clients: of one that is a file or a folder here its own name, without where it lies."""
    path = Path(name).expanduser()
    return path.absolute().name or "model" if path.exists() else name
