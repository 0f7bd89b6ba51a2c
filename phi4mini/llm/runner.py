"""One thread that steps an engine for many callers: runs come from any thread, tokens are delivered when drawn.

Promises: `ended` is called exactly once for each accepted run, with its error if there was one; a cancelled run takes
part in no pass after the current one; a pass that fails ends all runs, and the model is opened again. A model that
stays idle for `unload_after` is closed; the next run waits until it is open again.

It knows no text and no server: `Run` (run.py) turns tokens into text.
"""

from __future__ import annotations

import gc
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from phi4mini.errors import Phi4MiniError
from phi4mini.llm.model import Model
from phi4mini.llm.run import Run

if TYPE_CHECKING:
    from phi4mini.engine.request import Token

T = TypeVar("T")
Job = Callable[[Model], Iterator[Any]]
_RETRY = 5.0  # seconds from a failed opening to the next try
_TICK = 0.25  # seconds between checks whether an idle model is to be closed


class Crashed(Exception):
    """A pass failed, and no input was at fault: the request may be sent again."""


class NotOpened(Exception):
    """The model could not be opened. `__cause__` is the reason; it may name files, so no client may see it."""


@dataclass
class _Live:
    run: Run
    deliver: Callable[[list[Token]], None]
    ended: Callable[[Exception | None], None]
    inbox: deque[Token] = field(default_factory=deque)  # where the dispatcher puts this request's tokens


class Runner:
    """`start`, then `submit`, `cancel` and `call` from any thread, then `close`."""

    def __init__(
        self,
        open_model: Callable[[], Model],
        unload_after: float | None = None,
        fault: Callable[[str, BaseException], None] = lambda where, error: None,
    ) -> None:
        """`open_model` runs on the runner's thread. `unload_after`: seconds without work until it is closed; None
        keeps it open. `fault(where, error)` is called for errors that no request caused.
        """
        self._open, self._unload_after, self._fault = open_model, unload_after, fault
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._live: dict[int, _Live] = {}
        self._jobs: list[tuple[Iterator[Any], Future[Any], list[Any]]] = []
        self._model: Model | None = None
        self._loaded = False
        self._used = time.monotonic()
        self._thread = threading.Thread(target=self._loop, name="phi4mini-runner", daemon=True)
        self.crashes = 0
        self.reopening = False  # after a crash, until the model is open again
        self.failure: Exception | None = None  # why there is no model, if opening it failed
        self._failed_at = 0.0

    # ---- from any thread

    def begin(self, opened: Callable[[Model], None] = lambda model: None) -> Future[None]:
        """Start opening the model. `opened` is called with it on the runner's thread, then the future is done; after an
        error the future has the error.
        """
        future: Future[None] = Future()
        self._inbox.put(lambda: self._first_model(opened, future))
        self._thread.start()
        return future

    def start(self) -> None:
        """Open the model and wait. Raises the error of opening it."""
        self.begin().result()

    @property
    def loaded(self) -> bool:
        """True while any of the model is in memory; if False, the next run opens it."""
        return self._loaded

    @property
    def unloads_in(self) -> float | None:
        """Seconds until the model is closed if no run comes; None if it stays open."""
        if self._unload_after is None:
            return None
        return self._unload_after if self._busy else max(0.0, self._unload_after - self._idle)

    @property
    def model(self) -> Model | None:
        """The model while it is open. Its engine belongs to the runner's thread."""
        return self._model

    @property
    def broken(self) -> bool:
        """True for a few seconds after opening the model failed; then the next run tries again."""
        return self.failure is not None and time.monotonic() - self._failed_at < _RETRY

    def submit(
        self, run: Run, deliver: Callable[[list[Token]], None], ended: Callable[[Exception | None], None]
    ) -> None:
        """Queue a run. Both functions are called on the runner's thread and must be quick; `ended` is the last call."""
        self._inbox.put(lambda: self._add(_Live(run, deliver, ended)))

    def cancel(self, run: Run) -> None:
        """Cancel a run; `ended` is called unless it was called before."""
        self._inbox.put(lambda: self._cancel(run))

    def call(self, job: Job) -> Future[list[Any]]:
        """Run a generator over the model, one step between two passes; the future gets the list of its values."""
        future: Future[list[Any]] = Future()
        self._inbox.put(lambda: self._add_job(job, future))
        return future

    def close(self, wait: bool = True) -> None:
        """End all runs and the thread. With `wait`, return after the prefix cache is written to disk."""
        self._inbox.put(None)
        if wait:
            self._thread.join()

    # ---- on the runner's thread

    def _loop(self) -> None:
        while self._obey():
            if self._busy:
                self._slice()
                self._pass()
                self._used = time.monotonic()
            elif self._model and self._unload_after is not None and self._idle >= self._unload_after:
                self._close_model()
        for live in list(self._live.values()):
            self._end(live, Crashed("the server is stopping"))
        for _, future, _ in self._jobs:
            future.set_exception(Crashed("the server is stopping"))
        self._close_model()

    @property
    def _busy(self) -> bool:
        return bool(self._live or self._jobs)

    @property
    def _idle(self) -> float:
        return time.monotonic() - self._used

    def _obey(self) -> bool:
        """Carry out the commands in the inbox, waiting for one if there is no other work. False after `close`."""
        wait = not self._busy
        while True:
            try:
                command = self._inbox.get(wait, _TICK if wait else None)
            except queue.Empty:
                return True
            if command is None:
                return False
            command()
            wait = False

    def _first_model(self, opened: Callable[[Model], None], future: Future[None]) -> None:
        try:
            self._model, self._loaded = self._open(), True
            opened(self._model)
            self._used = time.monotonic()
            future.set_result(None)
        except BaseException as error:
            future.set_exception(error)

    def _ready_model(self) -> Model:
        if self._model is None:
            try:
                self._model, self._loaded, self.failure = self._open(), True, None
            except Exception as error:
                self.failure, self._failed_at = error, time.monotonic()
                self._fault("opening the model", error)
                raise NotOpened("the model could not be opened") from error
        return self._model

    def _close_model(self) -> None:
        if self._model is None:
            return
        model, self._model = self._model, None
        try:
            model.close()
        except Exception as error:  # a crashed model may have lost its threads; drop it anyway
            self._fault("closing the model", error)
        del model
        gc.collect()  # its parts form reference cycles: free their memory now, not at some later collection
        self._loaded = False

    def _add(self, live: _Live) -> None:
        self._live[id(live.run.request)] = live
        try:
            live.inbox = self._ready_model().engine.dispatcher.open(live.run.request)
        except Exception as error:
            self._end(live, error)

    def _cancel(self, run: Run) -> None:
        if live := self._live.get(id(run.request)):
            if self._model:
                self._model.engine.dispatcher.close(run.request)
            self._end(live, None)

    def _add_job(self, job: Job, future: Future[list[Any]]) -> None:
        try:
            self._jobs.append((job(self._ready_model()), future, []))
        except Exception as error:
            future.set_exception(error)

    def _slice(self) -> None:
        """One step of the oldest job."""
        if not self._jobs:
            return
        steps, future, values = job = self._jobs[0]
        try:
            if future.cancelled():
                raise StopIteration
            values.append(next(steps))
        except StopIteration:
            self._jobs.remove(job)
            with suppress(InvalidStateError):  # cancelled meanwhile
                future.set_result(values)
        except Exception as error:
            self._jobs.remove(job)
            with suppress(InvalidStateError):
                future.set_exception(error)

    def _pass(self) -> None:
        """One pass of the engine; its tokens go to their runs."""
        if not self._live or self._model is None:
            return
        try:
            self._model.engine.step()
        except Exception as error:
            self._crash(error)
            return
        dispatcher = self._model.engine.dispatcher
        for live in list(self._live.values()):
            if live.inbox:
                live.deliver(list(live.inbox))
                live.inbox.clear()
            if live.run.request.finish_reason is not None:
                dispatcher.close(live.run.request)
                self._end(live, live.run.request.error)

    def _end(self, live: _Live, error: Exception | None) -> None:
        del self._live[id(live.run.request)]
        live.ended(error)

    def _crash(self, error: Exception) -> None:
        """A pass failed, and the engine's state cannot be trusted any more: end all runs, open the model again."""
        self.crashes += 1
        self.reopening = True
        self._fault("the engine", error)
        traceback.clear_frames(error.__traceback__)  # they hold the engine, and two of them may not fit
        known = error if isinstance(error, Phi4MiniError) else Crashed(f"the engine failed: {type(error).__name__}")
        for live in list(self._live.values()):
            self._end(live, known)
        for _, future, _ in self._jobs:
            with suppress(InvalidStateError):
                future.set_exception(known)
        self._jobs.clear()
        self._close_model()
        with suppress(Exception):  # `failure` holds the error
            self._ready_model()
        self.reopening = False
