"""What the waist hands out: generations, replies, and streams of their pieces. Plain data; it computes nothing.

Promises: a `Stream` that has ended, or was stopped, has a `result`; joining its text gives the text of that result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from phi4mini.chat import ParsedReply

Piece = TypeVar("Piece")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Usage:
    """Tokens of one request; `cached_tokens` of the prompt were not computed again."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Timings:
    """Seconds spent on the prompt and on the answer."""

    prefill_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class TokenLogprob:
    """One token, its natural log-probability (None for the first of a prompt), and the most probable, best first."""

    id: int
    token: str
    logprob: float | None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Generation:
    """A continuation of ids. `ids`: the new ones, the id that ended it included; `text`: theirs, cut at a stop string.

    `finish_reason`: "stop", "length" (max_new_tokens or the context's end) or "abort" (stopped from outside).
    """

    ids: list[int]
    text: str
    finish_reason: str
    usage: Usage
    seed: int
    timings: Timings
    logprobs: list[TokenLogprob] | None = None
    prompt_logprobs: list[TokenLogprob] | None = None


@dataclass(frozen=True)
class Reply(ParsedReply):
    """An answer: `content`, `tool_calls`, and the generation it was read from; `finish_reason` may be "tool_calls"."""

    generation: Generation | None = None

    @property
    def usage(self) -> Usage | None:
        return None if self.generation is None else self.generation.usage

    @property
    def seed(self) -> int | None:
        """The seed in use: give it again for the same text."""
        return None if self.generation is None else self.generation.seed

    @property
    def timings(self) -> Timings | None:
        return None if self.generation is None else self.generation.timings


class Stream(Generic[Piece, Result]):
    """An iterator of pieces. `stop()` ends it after the current step; `result` is what they add up to."""

    def __init__(self, make: Callable[[Callable[[], bool]], Generator[Piece, Any, Result]]) -> None:
        """`make` gets a function that tells whether to stop, and returns the generator of pieces."""
        self._stopped = False
        self._result: Result | None = None
        self._pieces = make(lambda: self._stopped)

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        try:
            return next(self._pieces)
        except StopIteration as end:
            if end.value is not None:
                self._result = end.value
            raise StopIteration from None

    def stop(self) -> None:
        """End the answer here; what has been said so far becomes the result. Safe from a signal handler."""
        self._stopped = True

    def close(self) -> None:
        """Give the answer up: nothing more is computed, there is no result."""
        self._pieces.close()

    @property
    def result(self) -> Result:
        """What all pieces make up; takes the rest of them first."""
        for _ in self:
            pass
        if self._result is None:
            raise RuntimeError("the stream was closed before it ended; it has no result")
        return self._result
