"""One request: its tokens, and the arithmetic on their number. It knows neither the batch it is in nor any text.

What it holds in the KV cache is its `seat` (cache/seat.py), which the scheduler and the cache manage.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from phi4mini.engine.cache.seat import Seat
from phi4mini.engine.guess.guesser import Guesser
from phi4mini.engine.guess.lookup import Lookup
from phi4mini.engine.sample.constraint import Constraint
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.engine.sample.sampling import History
from phi4mini.model.config import Config
from phi4mini.model.longrope import RopeMode

Finish = Literal["stop", "length", "abort", "error"]
TopLogprobs = list[tuple[int, float]]


@dataclass(frozen=True)
class PromptLogprob:
    """The log-probability of one token of the prompt given all tokens before it, and the most probable alternatives."""

    id: int
    logprob: float
    top: TopLogprobs


@dataclass
class Timings:
    """Times of one request by the monotonic clock, in seconds. A pass that several requests share counts for each."""

    added: float = field(default_factory=time.monotonic)
    started: float | None = None  # when its first pass was scheduled
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
    """A prompt on its way to an answer. `ids` is the prompt, then the generated tokens.

    `salt`: requests of different salts never share cached pages, so a caller cannot find out from the time to the first
    token what another caller asked. `adapter`: identity of the adapter to compute with; None is the model itself, and
    no engine accepts another one yet. `constraint`: which ids may come next; an object for this request alone. `owner`:
    the caller, any hashable value; the scheduler serves owners round-robin. `guesser`: guesses the next tokens; changes
    the speed, never the answer.
    """

    def __init__(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        rope: RopeMode = "auto",
        salt: str | None = None,
        constraint: Constraint | None = None,
        owner: Hashable = None,
        adapter: str | None = None,
        guesser: Guesser | None = None,
    ) -> None:
        self.ids = [int(i) for i in prompt_ids]
        self.num_prompt = len(self.ids)
        self.params = params.with_seed()
        self.rope, self.salt, self.constraint, self.owner, self.adapter = rope, salt, constraint, owner, adapter
        self.seat = Seat()  # its place in the KV cache
        self.cached_tokens = 0  # prompt tokens that an earlier request had left in the cache
        self.started = False  # has been in a pass
        self.last_pass = 0  # number of the latest pass it was in
        self.history = History(self.ids)
        self.guesser: Guesser = guesser or Lookup()
        self.guess: list[int] = []  # guessed tokens that the next pass verifies, behind the known ones
        self.forced: list[int] = []  # ids that the constraint demands next and that are not yet in `ids`
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
    def cached(self) -> int:
        """Leading tokens whose K and V are in the cache."""
        return self.seat.cached

    @property
    def pending(self) -> int:
        """Tokens that must be computed before the next one can be drawn."""
        return len(self.ids) - self.cached

    @property
    def wants_prompt_logprobs(self) -> bool:
        return self.prompt_logprobs is not None and len(self.prompt_logprobs) < self.num_prompt

    def choose_rope(self, config: Config) -> bool:
        """Choose LongRoPE's factors by the present length, or those the request fixes. Returns true if they changed:
        the K in the cache were rotated by the other factors, so all tokens are computed again.
        """
        wanted = config.rope_set(len(self.ids), self.rope)
        changed = wanted != self.seat.rope_set
        if changed:
            self.seat.rope_set, self.seat.cached = wanted, 0
        return changed

    def begin(self) -> None:
        """Note at the first pass how much of the prompt came from the prefix cache."""
        self.started, self.cached_tokens = True, min(self.cached, self.num_prompt)
        self.timings.started = self.timings.started or time.monotonic()

    def guess_next(self, limit: int, config: Config, ctx: int) -> None:
        """Guess at most `limit` tokens, none beyond the request's own limits. A guess ends at LongRoPE's boundary:
        behind it every token is computed with other factors, which the rows of one pass cannot mix.
        """
        room = ctx - len(self.ids) - 1
        if self.params.max_new_tokens is not None:
            room = min(room, self.params.max_new_tokens - (len(self.ids) - self.num_prompt) - 1)
        boundary = config.rope_boundary
        if self.rope == "auto" and boundary is not None and len(self.ids) <= boundary:
            room = min(room, boundary - len(self.ids))
        self.guess = self.guesser.guess(self.ids, min(limit, room)) if min(limit, room) > 0 else []

    def next_ids(self, count: int) -> np.ndarray:
        """The first `count` tokens not yet computed, then the guess. int64 (count,)."""
        ids = [*self.ids[self.cached : self.cached + count], *self.guess]
        return np.array(ids[:count], np.int64)

    def next_positions(self, count: int) -> np.ndarray:
        """The positions of `next_ids` in the sequence, int64 (count,)."""
        return np.arange(self.cached, self.cached + count)

    def take(self, token: int, config: Config, ctx: int) -> Finish | None:
        """Append a drawn token. Returns why the request ends with it, None if it goes on."""
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
    """One token of one request. `finish` of the last one says why the request ended. An id that stops a request is not
    part of the answer, unless `complete`: then the constraint was satisfied with this id.
    """

    request: Request
    id: int
    logprob: float | None
    top: TopLogprobs | None
    finish: Finish | None
    complete: bool = False
