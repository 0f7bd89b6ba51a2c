"""The answers to one request while they are made: tokens come from the runner's thread, events go to the event loop.

Promises: nothing is computed for an answer whose reader has left; an error of one choice ends the request; tokens that
come while the reader is busy wait in order. It knows no HTTP and no dialect.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from phi4mini.chat import Event
from phi4mini.llm.results import TokenLogprob
from phi4mini.llm.run import Run
from phi4mini.llm.runner import Runner
from phi4mini.server import usage
from phi4mini.server.metrics import Metrics

if TYPE_CHECKING:
    from phi4mini.engine.request import Token


@dataclass
class ChoicePiece:
    """The next piece of one choice: events, log-probabilities of its content's tokens, and whether it is over."""

    index: int
    events: list[Event]
    logprobs: list[TokenLogprob] = field(default_factory=list)
    over: bool = False


@dataclass(frozen=True)
class PrefillProgress:
    """How many tokens of the prompt have been computed; `cached` of them were in the prefix cache."""

    total: int
    cached: int
    done: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Under llama-server's names."""
        return {"total": self.total, "cache": self.cached, "processed": self.done, "time_ms": round(self.seconds * 1e3)}


class Choices:
    """Several runs as one answer: `async for piece in choices.pieces()`; leaving the loop cancels unfinished runs."""

    def __init__(
        self,
        runs: Sequence[Run],
        runner: Runner,
        metrics: Metrics,
        owner: str | None,
        closed: Callable[[Choices], None],
    ) -> None:
        """`closed` is called once, when the choices are over or given up. Needs a running event loop."""
        self.runs, self.owner = list(runs), owner
        self.events: list[list[Event]] = [[] for _ in runs]  # of each choice, so far
        self._runner, self._metrics, self._closed = runner, metrics, closed
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[tuple[int, list[Token], bool, Exception | None]] = asyncio.Queue()
        self._open = set(range(len(self.runs)))
        self._last = [0.0] * len(self.runs)  # time of the last token of each choice; 0 before the first
        self._waiting = set(self._open)  # not submitted yet
        self._is_closed = False

    def start(self) -> None:
        """Submit one run of each prompt. The others follow at the first token, when the prompt is in the cache."""
        for index in self._leaders:
            self._submit(index)

    def _submit(self, index: int) -> None:
        run = self.runs[index]
        self._waiting.discard(index)
        self._runner.submit(
            run,
            lambda tokens: self._from_runner(index, tokens, False, None),
            lambda error: self._from_runner(index, [], True, error),
        )

    @property
    def _leaders(self) -> list[int]:
        """The first run of each prompt; the runs of one prompt follow each other."""
        prompts = [run.request.ids[: run.request.num_prompt] for run in self.runs]
        return [at for at, ids in enumerate(prompts) if at == 0 or ids != prompts[at - 1]]

    async def pieces(self, progress: float | None = None) -> AsyncGenerator[ChoicePiece | PrefillProgress, None]:
        """Pieces as they become certain. With `progress` the prompt's progress too, every so many seconds until the
        first token. Raises the error that ended a run.
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
        """Wait until all choices are over; `events` and `runs` have everything then."""
        async for _ in self.pieces():
            pass

    def close(self) -> None:
        """Cancel the runs that are not finished, and give up the places in the queue. May be called again."""
        for index in self._open:
            if index not in self._waiting:
                self._runner.cancel(self.runs[index])
        self._open.clear()
        if not self._is_closed:
            self._is_closed = True
            self._closed(self)

    def fail(self, error: Exception, only_waiting: bool = False) -> bool:
        """End the reader's loop with this error; with `only_waiting` only if no run was in a pass yet. True if done."""
        if only_waiting and any(run.request.started for run in self.runs):
            return False
        self._inbox.put_nowait((0, [], True, error))
        return True

    def usage(self) -> dict[str, Any]:
        """Tokens so far, under OpenAI's names; a prompt with several choices counts once."""
        f = self.figures()
        return usage.usage(f["prompt_tokens"], f["tokens"], f["cached_tokens"])

    def figures(self) -> dict[str, int]:
        """The same for the log."""
        prompts = [self.runs[at].request for at in self._leaders]
        return {
            "prompt_tokens": sum(request.num_prompt for request in prompts),
            "cached_tokens": sum(request.cached_tokens for request in prompts),
            "tokens": self._tokens,
        }

    def timings(self) -> dict[str, Any]:
        """Prefill of the first prompt, and decode of all choices together."""
        request = self.runs[0].request
        longest = max(run.request.timings.decode_seconds for run in self.runs)
        prefill = request.timings.prefill_seconds
        return usage.timings(request.num_prompt, request.cached_tokens, prefill, self._tokens, longest)

    @property
    def _tokens(self) -> int:
        return sum(len(run.tokens) for run in self.runs)

    def _from_runner(self, index: int, tokens: list[Token], over: bool, error: Exception | None) -> None:
        """Called on the runner's thread."""
        with suppress(RuntimeError):  # the loop is closed: the server has stopped, and nothing reads the answer
            self._loop.call_soon_threadsafe(self._inbox.put_nowait, (index, tokens, over, error))

    def _piece(self, index: int, tokens: list[Token], over: bool) -> ChoicePiece:
        run = self.runs[index]
        if index not in self._open:
            return ChoicePiece(index, [])
        events = [event for token in tokens for event in run.push(token)]
        self._note_times(index, len(tokens))
        if over or run.stopped:
            events += run.finish()
            self._open.discard(index)
            if not over:
                self._runner.cancel(run)
            self._metrics.ended(run.request, len(run.tokens))
        self.events[index] += events
        return ChoicePiece(index, events, run.new_logprobs(), index not in self._open)

    def _note_times(self, index: int, count: int) -> None:
        """Tokens of one pass share the time since the last pass equally."""
        if not count:
            return
        now = time.monotonic()
        if self._last[index]:
            for _ in range(count):
                self._metrics.itl.observe((now - self._last[index]) / count)
        self._last[index] = now

    def _progress(self, began: float) -> PrefillProgress:
        request = self.runs[0].request
        done = min(request.cached, request.num_prompt)
        return PrefillProgress(request.num_prompt, request.cached_tokens, done, time.monotonic() - began)
