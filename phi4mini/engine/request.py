"""One request: its tokens and its arithmetic. Knows neither the batch it is in nor any text."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from phi4mini.engine.guess.lookup import Guesser
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.engine.sample.sampling import History
from phi4mini.model.config import Config, RopeMode, RopeSet

if TYPE_CHECKING:
    from phi4mini.engine.cache.pages import Node
    from phi4mini.engine.sample.constraint import Constraint

Finish = Literal["stop", "length", "abort", "error"]
TopLogprobs = list[tuple[int, float]]


@dataclass(frozen=True)
class PromptLogprob:
    """What the model thought of one token of the prompt, given all before it; the first token has none."""

    id: int
    logprob: float
    top: TopLogprobs


@dataclass
class Timings:
    """Seconds by the monotonic clock; a request's time includes that of the batch it shared."""

    added: float = field(default_factory=time.monotonic)
    started: float | None = None  # its first pass
    first_token: float | None = None
    finished: float | None = None

    @property
    def prefill_seconds(self) -> float:
        """From being added to the first token."""
        return (self.first_token or time.monotonic()) - self.added

    @property
    def decode_seconds(self) -> float:
        """From the first token to the last."""
        return 0.0 if self.first_token is None else (self.finished or time.monotonic()) - self.first_token


class Request:
    """A prompt on its way to an answer. `ids` is the prompt, then what was generated. Requests of different `salt`
    never take up each other's prompts, so that none can tell by the time it takes what another one asked.
    `constraint`: what the answer may be, used by no other request. `owner`: who asked; owners take turns.
    """

    def __init__(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        rope: RopeMode = "auto",
        salt: str | None = None,
        constraint: Constraint | None = None,
        owner: Hashable = None,
    ) -> None:
        self.ids = [int(i) for i in prompt_ids]
        self.num_prompt = len(self.ids)
        self.params = params.with_seed()
        self.rope, self.salt, self.constraint, self.owner = rope, salt, constraint, owner
        self.rope_set: RopeSet | None = None  # of what the cache holds
        self.cached = 0  # leading tokens whose K and V are in the cache
        self.cached_tokens = 0  # of the prompt, those that an earlier request had left there
        self.started = False  # has been in a pass
        self.last_pass = 0  # number of the latest
        self.table: list[int] = []  # pages, in the order of the tokens
        self.shared = 0  # leading pages that others may hold too
        self.node: Node | None = None  # the last one's
        self.attached = False  # all pages are there that earlier requests had left
        self.shareable = True  # more of its pages may become known
        self.history = History(self.ids)
        self.guesser = Guesser()
        self.guess: list[int] = []  # tokens that the next pass verifies beside the certain ones
        self.forced: list[int] = []  # ids that its constraint wants next and that were not taken yet
        self.prompt_logprobs: list[PromptLogprob | None] | None = None if params.prompt_logprobs is None else [None]
        self.finish_reason: Finish | None = None
        self.error: Exception | None = None
        self.timings = Timings()

    @property
    def seed(self) -> int:
        """The seed in use, given or drawn."""
        assert self.params.seed is not None  # with_seed saw to it
        return self.params.seed

    @property
    def generated(self) -> list[int]:
        return self.ids[self.num_prompt :]

    @property
    def pending(self) -> int:
        """Tokens still to be computed before the next one can be drawn."""
        return len(self.ids) - self.cached

    @property
    def wants_prompt_logprobs(self) -> bool:
        return self.prompt_logprobs is not None and len(self.prompt_logprobs) < self.num_prompt

    def choose_rope(self, config: Config) -> bool:
        """LongRoPE's rule: the factors follow the length; where they change, all that is cached is computed again.
        Returns whether they did.
        """
        wanted = config.rope_set(len(self.ids), self.rope)
        changed = wanted != self.rope_set
        if changed:
            self.rope_set, self.cached = wanted, 0
        return changed

    def start_over(self) -> None:
        """Nothing is cached any more; the pages were given back."""
        self.cached, self.rope_set = 0, None
        self.shared, self.node, self.attached, self.shareable = 0, None, False, True

    def begin(self) -> None:
        """Note, at its first pass, how much of the prompt was there before."""
        self.started, self.cached_tokens = True, min(self.cached, self.num_prompt)
        self.timings.started = self.timings.started or time.monotonic()

    def guess_next(self, limit: int, config: Config, ctx: int) -> None:
        """Guess at most `limit` tokens, none beyond what the request may still have nor across LongRoPE's boundary."""
        room = ctx - len(self.ids) - 1
        if self.params.max_new_tokens is not None:
            room = min(room, self.params.max_new_tokens - (len(self.ids) - self.num_prompt) - 1)
        boundary = config.rope_boundary
        if self.rope == "auto" and boundary is not None and len(self.ids) <= boundary:
            room = min(room, boundary - len(self.ids))
        self.guess = self.guesser.guess(self.ids, min(limit, room)) if min(limit, room) > 0 else []

    def next_ids(self, count: int) -> np.ndarray:
        """The tokens of the next pass: those not yet computed, then the guess. int64 (count,)."""
        ids = [*self.ids[self.cached : self.cached + count], *self.guess]
        return np.array(ids[:count], np.int64)

    def next_positions(self, count: int) -> np.ndarray:
        """Their places in the sequence, int64 (count,)."""
        return np.arange(self.cached, self.cached + count)

    def take(self, token: int, config: Config, ctx: int) -> Finish | None:
        """Append a drawn token; returns why the request ends with it, if it does."""
        self.ids.append(token)
        self.history.append(token)
        if self.timings.first_token is None:
            self.timings.first_token = time.monotonic()
        new, p = len(self.ids) - self.num_prompt, self.params
        ends = () if p.ignore_eos else config.eos_token_ids
        if token in ends or token in p.stop_ids:
            return "stop"
        if (p.max_new_tokens is not None and new >= p.max_new_tokens) or len(self.ids) >= ctx:
            return "length"
        return None

    def finish(self, reason: Finish, error: Exception | None = None) -> None:
        self.finish_reason, self.error = reason, error
        self.timings.finished = time.monotonic()


@dataclass(frozen=True)
class Token:
    """One token of one request; the last one carries why the request ended. `complete`: its constraint ended it with
    this token, which is part of the answer; otherwise an id that stops a request is not.
    """

    request: Request
    id: int
    logprob: float | None
    top: TopLogprobs | None
    finish: Finish | None
    complete: bool = False
