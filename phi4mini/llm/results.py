"""The results of a request: generations, replies, and streams of their pieces. Plain data; nothing is computed here.

Promises: a `Stream` that has ended, or was stopped, has a `result`; its joined text is the text of that result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from phi4mini.chat import ParsedReply

P = TypeVar("P")  # a piece of a stream
R = TypeVar("R")  # the result of the whole stream


@dataclass(frozen=True)
class Usage:
    """Token counts of one request; `cached_tokens` of the prompt came from the cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Seconds:
    """Time spent on the prompt and on the answer."""

    prefill_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its natural log-probability (None for the first of a prompt), and the likeliest tokens, best first."""

    id: int
    token: str
    logprob: float | None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Generation:
    """A continuation of ids. `ids`: the new ids, the end id included; `text`: their text, cut at a stop string.

    `finish_reason`: "stop", "length" (max_new_tokens or the context's end) or "abort" (stopped from outside).
    """

    ids: list[int]
    text: str
    finish_reason: str
    usage: Usage
    seed: int
    timings: Seconds
    logprobs: list[TokenLogprob] | None = None
    prompt_logprobs: list[TokenLogprob] | None = None


@dataclass(frozen=True)
class Reply(ParsedReply):
    """An answer: `content`, `tool_calls`, and the generation behind it; `finish_reason` may also be "tool_calls"."""

    generation: Generation | None = None

    @property
    def usage(self) -> Usage | None:
        return None if self.generation is None else self.generation.usage

    @property
    def seed(self) -> int | None:
        """The seed in use; the same seed gives the same text."""
        return None if self.generation is None else self.generation.seed

    @property
    def timings(self) -> Seconds | None:
        return None if self.generation is None else self.generation.timings


class Stream(Generic[P, R]):
    """An iterator of pieces. `stop()` ends it after the current step; `result` is the whole."""

    def __init__(self, make: Callable[[Callable[[], bool]], Generator[P, Any, R]]) -> None:
        """`make` gets a function that returns True once the stream is to stop; it returns the generator of pieces."""
        self._stopped = False
        self._result: R | None = None
        self._pieces = make(lambda: self._stopped)

    def __iter__(self) -> Iterator[P]:
        return self

    def __next__(self) -> P:
        try:
            return next(self._pieces)
        except StopIteration as end:
            if end.value is not None:
                self._result = end.value
            raise StopIteration from None

    def stop(self) -> None:
        """End the answer here; the text so far becomes the result. Safe to call from a signal handler."""
        self._stopped = True

    def close(self) -> None:
        """Abandon the answer: no more is computed, and there is no result."""
        self._pieces.close()

    @property
    def result(self) -> R:
        """The whole; takes the pieces that are left first."""
        for _ in self:
            pass
        if self._result is None:
            raise RuntimeError("the stream was closed before it ended; it has no result")
        return self._result
