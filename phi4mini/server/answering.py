"""The answers to one request while they are made: from the runner's thread to the event loop, as events.

Promises: nothing is computed for an answer whose reader has left; an error of one choice ends the request; tokens that
come while the reader is busy wait in order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from phi4mini.chat import Event
from phi4mini.llm.results import TokenLogprob
from phi4mini.llm.run import Run
from phi4mini.server.dialects import sampling_fields

if TYPE_CHECKING:
    from phi4mini.engine.request import Token
    from phi4mini.server.service import Service


@dataclass
class Piece:
    """What became certain of one choice: its events, the tokens of its content, and whether it is over."""

    index: int
    events: list[Event]
    logprobs: list[TokenLogprob] = field(default_factory=list)
    over: bool = False


@dataclass(frozen=True)
class Progress:
    """How much of the prompt has been computed, in tokens; of it `cached` was there before."""

    total: int
    cached: int
    done: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As llama-server spells it."""
        return {"total": self.total, "cache": self.cached, "processed": self.done, "time_ms": round(self.seconds * 1e3)}


class Choices:
    """`async for piece in choices.pieces()`; leaving the loop gives up what is not finished."""

    def __init__(self, service: Service, runs: Sequence[Run], owner: str | None) -> None:
        self.runs, self.owner = list(runs), owner
        self.events: list[list[Event]] = [[] for _ in runs]
        self._service, self._loop = service, asyncio.get_running_loop()
        self._inbox: asyncio.Queue[tuple[int, list[Token], bool, Exception | None]] = asyncio.Queue()
        self._open = set(range(len(self.runs)))
        self._last = [0.0] * len(self.runs)
        self._waiting = set(self._open)  # not queued yet
        self._given_back = False

    def start(self) -> None:
        """Queue one run of each prompt. The others follow when there is a token: they begin with what was computed."""
        for index in self._leaders:
            self._submit(index)

    def _submit(self, index: int) -> None:
        run = self.runs[index]
        self._waiting.discard(index)
        self._service.runner.submit(
            run,
            lambda tokens: self._from_runner(index, tokens, False, None),
            lambda error: self._from_runner(index, [], True, error),
        )

    @property
    def _leaders(self) -> list[int]:
        """The first run of each prompt; those of one prompt follow each other."""
        prompts = [run.request.ids[: run.request.num_prompt] for run in self.runs]
        return [at for at, ids in enumerate(prompts) if at == 0 or ids != prompts[at - 1]]

    async def pieces(self, progress: float | None = None) -> AsyncGenerator[Piece | Progress, None]:
        """Pieces as they become certain; with `progress`, while there is no token, how far the prompt is, that often in
        seconds. Raises what ended a run badly.
        """
        began, noted = time.monotonic(), None
        try:
            while self._open:
                try:
                    async with asyncio.timeout(progress if not any(self._last) else None):
                        index, tokens, over, error = await self._inbox.get()
                except TimeoutError:
                    now = self._progress(began)
                    if now != noted and now.done:
                        noted = now
                        yield now
                    continue
                if error:
                    raise error
                for late in sorted(self._waiting):
                    self._submit(late)
                piece = self._piece(index, tokens, over)
                if piece.events or piece.over or piece.logprobs:
                    yield piece
        finally:
            self.close()

    async def finish(self) -> None:
        """Take everything."""
        async for _ in self.pieces():
            pass

    def close(self) -> None:
        """Give up what is not finished, and the place in the queue."""
        for index in self._open:
            if index not in self._waiting:
                self._service.runner.cancel(self.runs[index])
        self._open.clear()
        if not self._given_back:
            self._given_back = True
            self._service.leave(self)

    def fail(self, error: Exception, only_waiting: bool = False) -> bool:
        """Let the reader end with this error, and whether it will: with `only_waiting` not if a run was in a pass."""
        if only_waiting and any(run.request.started for run in self.runs):
            return False
        self._inbox.put_nowait((0, [], True, error))
        return True

    def usage(self) -> dict[str, Any]:
        """Tokens so far; a prompt counts once."""
        f = self.figures()
        return sampling_fields.usage(f["prompt_tokens"], f["tokens"], f["cached_tokens"])

    def figures(self) -> dict[str, int]:
        """The same as the log has it."""
        prompts = [self.runs[at].request for at in self._leaders]
        return {
            "prompt_tokens": sum(request.num_prompt for request in prompts),
            "cached_tokens": sum(request.cached_tokens for request in prompts),
            "tokens": self._tokens,
        }

    def timings(self) -> dict[str, Any]:
        """Of the first prompt, and of the tokens of all choices."""
        request = self.runs[0].request
        longest = max(run.request.timings.decode_seconds for run in self.runs)
        prefill = request.timings.prefill_seconds
        return sampling_fields.timings(request.num_prompt, request.cached_tokens, prefill, self._tokens, longest)

    @property
    def _tokens(self) -> int:
        return sum(len(run.tokens) for run in self.runs)

    def _from_runner(self, index: int, tokens: list[Token], over: bool, error: Exception | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has stopped, nobody waits
            self._loop.call_soon_threadsafe(self._inbox.put_nowait, (index, tokens, over, error))

    def _piece(self, index: int, tokens: list[Token], over: bool) -> Piece:
        run = self.runs[index]
        if index not in self._open:
            return Piece(index, [])
        events = [event for token in tokens for event in run.push(token)]
        self._note_times(index, len(tokens))
        if over or run.stopped:
            events += run.finish()
            self._open.discard(index)
            if not over:
                self._service.runner.cancel(run)
            self._service.metrics.ended(run.request, len(run.tokens))
        self.events[index] += events
        return Piece(index, events, run.new_logprobs(), index not in self._open)

    def _note_times(self, index: int, count: int) -> None:
        if not count:
            return
        now, metrics = time.monotonic(), self._service.metrics
        if self._last[index]:
            for _ in range(count):
                metrics.itl.observe((now - self._last[index]) / count)
        self._last[index] = now

    def _progress(self, began: float) -> Progress:
        request = self.runs[0].request
        done = min(request.cached, request.num_prompt)
        return Progress(request.num_prompt, request.cached_tokens, done, time.monotonic() - began)
