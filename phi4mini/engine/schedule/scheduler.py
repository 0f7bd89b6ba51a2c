"""Which requests take part in the next pass, and with how many rows: continuous batching with chunked prefill.

A request is waiting or running. Every running request takes part in every pass, as far as the pass has rows. First come
the requests that draw a token: one row each, or a few where a constraint forced tokens. The rows left go to prompts,
cut into chunks, but no more of them than keep the pass short for the requests that draw (pace.py). Owners share places
and prompt rows round-robin, so a caller with many requests does not hold up another (turns.py).

Where pages of the KV cache run out, the request that joined last is preempted: it loses its pages, waits again and is
computed again later. Its tokens do not depend on that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from phi4mini.engine.cache.pages import Pages, pages_for
from phi4mini.engine.cache.seat import Seat
from phi4mini.engine.collate import Chosen
from phi4mini.engine.compute.buffers import MAX_OUTPUTS, rows_that_fit
from phi4mini.engine.guess.guesser import MOST
from phi4mini.engine.request import Request
from phi4mini.engine.schedule.pace import LEAST, Pace
from phi4mini.engine.schedule.prefix import Prefix
from phi4mini.engine.schedule.turns import Turns, Waiting
from phi4mini.errors import NoSpace
from phi4mini.kernels.matmul import FEW
from phi4mini.model.config import Config


@dataclass
class _Room:
    """What a pass can still take."""

    rows: int
    outputs: int  # rows of logits


class Scheduler:
    """Two queues and three verbs: add, schedule, remove. `rows_that_fit(longest)`: rows that a pass may have when its
    longest sequence has `longest` tokens.
    """

    def __init__(
        self,
        config: Config,
        pages: Pages,
        ctx: int,
        speculate: bool = True,
        most_running: int = MAX_OUTPUTS,
        prefix: Prefix | None = None,
        pace: Pace | None = None,
        rows_that_fit: Callable[[int], int] = rows_that_fit,
    ) -> None:
        self.config, self.pages, self.ctx, self.most_running = config, pages, ctx, most_running
        self.speculate, self.prefix, self.pace, self.rows_that_fit = speculate, prefix, pace or Pace(), rows_that_fit
        self.waiting = Waiting()
        self.running: list[Request] = []  # in the order of joining, which decides who is preempted
        self.drawing_rows = self.prompt_rows = 0  # of the latest pass
        self.preemptions = self.passes = self.cached_tokens = 0
        self._prompts = Turns()

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        self.waiting.add(request)

    def remove(self, request: Request) -> None:
        """Forget a request and free its pages."""
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)
        self._free(request)

    def schedule(self) -> Chosen:
        """The next pass as (request, rows): first the requests that draw, then chunks of prompts."""
        self._join()
        for request in self.running:
            self._choose_rope(request)
            request.guess = []  # left from a pass that was interrupted
        if self.prefix:
            self.prefix.new_pass()
        # those whose last pass is longest ago first: where a pass has fewer rows than they need, they take turns
        drawing = sorted((r for r in self.running if r.pending <= FEW), key=lambda r: r.last_pass)
        prompts = self._round_robin([r for r in self.running if r.pending > FEW])
        rows = self.rows_that_fit(max((len(r.ids) for r in self.running), default=0))
        kept = min(LEAST, rows // 2) if prompts else 0  # for prompts, however many requests draw
        chosen: Chosen = []
        room = self._fill(drawing, _Room(rows - kept, MAX_OUTPUTS), chosen)
        self.drawing_rows = sum(rows for _, rows in chosen)
        room.rows += kept
        if chosen:
            room.rows = min(room.rows, self.pace.rows(self.drawing_rows))
        self._fill(prompts, room, chosen)
        self.prompt_rows = sum(rows for _, rows in chosen) - self.drawing_rows
        return self._noted(self._guess(chosen) if self.speculate else chosen)

    def preempt(self, request: Request) -> None:
        """Take a running request's pages and place; it waits again, before all others of its owner."""
        self.preemptions += bool(request.seat.table)
        self.running.remove(request)
        self._free(request)
        self.waiting.put_back(request)

    def keep(self, request: Request) -> None:
        """Let other requests begin with the pages that this one has computed."""
        if self.prefix:
            self.prefix.keep(request)

    def disown(self, request: Request) -> list[int]:
        """After a numerical error: let no other request begin with its pages. Returns the pages that only it holds."""
        return self.prefix.disown(request) if self.prefix else list(request.seat.table)

    # the rows of a pass ----------------------------------------------------------------------------------------------

    def _round_robin(self, prompts: list[Request]) -> list[Request]:
        """The first prompt of each owner, then the second of each; owners in the order of their last turns, the longest
        ago first.
        """
        nth: Counter[Hashable] = Counter()
        keys = {}
        for request in prompts:
            keys[id(request)] = (nth[request.owner], self._prompts.last(request.owner))
            nth[request.owner] += 1
        return sorted(prompts, key=lambda r: keys[id(r)])

    def _fill(self, requests: list[Request], room: _Room, chosen: Chosen) -> _Room:
        """Choose requests in this order for as long as there is room; returns the room left."""
        for request in requests:
            # getting pages for one request may preempt others of this list: they are no longer running
            if not (room.rows and room.outputs and request in self.running and self._attach(request)):
                continue
            rows = min(request.pending, room.rows, room.outputs if request.wants_prompt_logprobs else room.rows)
            if self._grow(request, rows, chosen):
                chosen.append((request, rows))
                room.rows -= rows
                room.outputs -= rows if request.wants_prompt_logprobs else 1
        return room

    def _noted(self, chosen: Chosen) -> Chosen:
        """Count the pass, and the turns of the owners whose prompts have rows in it."""
        if chosen:
            self.passes += 1
        for request, rows in chosen:
            if not request.started:
                request.begin()
                self.cached_tokens += request.cached_tokens
            request.last_pass = self.passes
            if rows > FEW or rows < request.pending:
                self._prompts.note(request.owner)
        return chosen

    def _attach(self, request: Request) -> bool:
        """Begin with the pages that earlier requests have computed. False while they are still being read from disk.

        A request that wants prompt log-probabilities cannot reuse cached pages: those hold K and V, and no logits.
        """
        seat = request.seat
        if not seat.attached:
            computes = request.wants_prompt_logprobs or len(seat.table) > seat.shared
            seat.attached = computes or not self.prefix or self.prefix.attach(request)
        return seat.attached

    def _choose_rope(self, request: Request) -> None:
        """Where a request crosses LongRoPE's boundary all its tokens are computed again. Shared pages stay as they are
        for the other requests, so this one then needs pages of its own.
        """
        if request.choose_rope(self.config) and request.seat.shared:
            chosen = request.seat.rope_set
            self._free(request)
            request.seat.rope_set = chosen

    def _guess(self, chosen: Chosen) -> Chosen:
        """Fill a pass of a few rows with guessed tokens: up to 8 rows cost little more than one. A pass with part of a
        prompt has no rows to spare.
        """
        spare = FEW - sum(rows for _, rows in chosen)
        if spare <= 0 or any(rows < request.pending or request.wants_prompt_logprobs for request, rows in chosen):
            return chosen
        widened = []
        for request, rows in chosen:
            request.guess_next(min(spare, MOST), self.config, self.ctx)
            if request.guess and not self._can_hold(request, rows + len(request.guess)):
                request.guess = []
            spare -= len(request.guess)
            self.drawing_rows += len(request.guess)
            widened.append((request, rows + len(request.guess)))
        return widened

    def _can_hold(self, request: Request, rows: int) -> bool:
        """Get pages for guessed rows if there are free ones: no request is preempted for a guess."""
        try:
            self.pages.grow(request.seat.table, request.cached + rows)
        except NoSpace:
            return False
        return True

    # places and pages ------------------------------------------------------------------------------------------------

    def _join(self) -> None:
        """Give places to waiting requests; an owner below its share may take one from an owner above it."""
        while request := self.waiting.next(running := Counter(r.owner for r in self.running)):
            while self._short_for(request) and (victim := self._victim(request.owner, running)):
                running[victim.owner] -= 1
                self.preempt(victim)
            if len(self.running) >= self.most_running:
                return
            self.waiting.take(request)
            self.running.append(request)

    def _short_for(self, request: Request) -> bool:
        """True if no place is free, or fewer pages than the request needs."""
        return len(self.running) >= self.most_running or pages_for(len(request.ids)) > self.pages.free

    def _victim(self, owner: Hashable, running: Counter[Hashable]) -> Request | None:
        """The request to preempt for `owner`: of the owner with the most running requests, the one that joined last.

        None unless `owner` is below the equal share, the other above it, and the other has at least two more: with a
        difference of one the two owners would take the same place from each other for ever.
        """
        most = max(running.values(), default=0)
        share = running.total() / len({*running, *self.waiting.owners})
        if most - running[owner] < 2 or not running[owner] < share < most:
            return None
        return next(r for r in reversed(self.running) if running[r.owner] == most)

    def _grow(self, request: Request, rows: int, chosen: Chosen) -> bool:
        """Get pages for a request's next rows. Where none are free, preempt requests that joined after it, the latest
        first. False if the request must wait.

        A request that is already in this pass keeps its pages, since its rows are counted. Of several requests that
        hold pages the oldest never gives up its own; it waits. So one request always moves on, and the others follow.
        """
        while True:
            try:
                self.pages.grow(request.seat.table, request.cached + rows)
                return True
            except NoSpace:
                later = [r for r in self.running[self.running.index(request) + 1 :] if r.seat.table]
                free = [r for r in later if all(r is not c for c, _ in chosen)]
                if not later:  # it is the youngest that holds pages, so it is the one to give way
                    self.preempt(request)
                if not free:
                    return False
                self.preempt(free[-1])

    def _free(self, request: Request) -> None:
        """Free a request's pages: nothing of it is cached any more."""
        self.pages.release(request.seat.table)
        request.seat = Seat()
