"""Who runs in the next pass, and with how many rows. The owners of waiting requests take turns to have one join; all
running ones move each pass, or where a pass has fewer rows than they need, in turns too.

A request that can draw its next token takes one row, or a few that are forced; what is left of the pass goes to
prompts, cut into chunks, and no more of it than keeps pace for those who draw. Where pages run out, the request that
joined last steps back and is computed again later: its tokens do not depend on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from phi4mini.engine.batch import Chosen
from phi4mini.engine.cache.pages import Pages, Prefix, pages_for
from phi4mini.engine.compute.buffers import MAX_OUTPUTS, rows_that_fit
from phi4mini.engine.guess.lookup import MOST
from phi4mini.engine.request import Request
from phi4mini.engine.schedule.pace import LEAST, Pace
from phi4mini.engine.schedule.turns import Turns, Waiting
from phi4mini.errors import NoSpace
from phi4mini.kernels.matmul import FEW
from phi4mini.model.config import Config


@dataclass
class _Room:
    """What a pass can still take."""

    rows: int
    outputs: int


class Scheduler:
    """Two queues and three verbs: add, schedule, remove."""

    def __init__(
        self,
        config: Config,
        pages: Pages,
        ctx: int,
        speculate: bool = True,
        most_running: int = MAX_OUTPUTS,
        prefix: Prefix | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.config, self.pages, self.ctx, self.most_running = config, pages, ctx, most_running
        self.speculate, self.prefix, self.pace = speculate, prefix, pace or Pace()
        self.waiting = Waiting()
        self.running: list[Request] = []  # in the order of joining
        self.drawing_rows = self.prompt_rows = 0  # of the latest pass
        self.preemptions = self.passes = self.cached_tokens = 0
        self._prompts = Turns()

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        self.waiting.add(request)

    def remove(self, request: Request) -> None:
        """Forget a request and take its pages back."""
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)
        self._take_back(request)

    def schedule(self) -> Chosen:
        """The next pass as (request, rows): those who draw first, then chunks of prompts."""
        self._join()
        for request in self.running:
            self._choose_rope(request)
            request.guess = []  # of a pass that was interrupted
        if self.prefix:
            self.prefix.new_pass()
        drawing = sorted((r for r in self.running if r.pending <= FEW), key=lambda r: r.last_pass)
        prompts = self._in_turns([r for r in self.running if r.pending > FEW])
        rows = rows_that_fit(max((len(r.ids) for r in self.running), default=0))
        kept = min(LEAST, rows // 2) if prompts else 0  # for prompts, however many draw
        chosen: Chosen = []
        room = self._fill(drawing, _Room(rows - kept, MAX_OUTPUTS), chosen)
        self.drawing_rows = sum(rows for _, rows in chosen)
        room.rows += kept
        if chosen:
            room.rows = min(room.rows, self.pace.rows(self.drawing_rows))
        self._fill(prompts, room, chosen)
        self.prompt_rows = sum(rows for _, rows in chosen) - self.drawing_rows
        return self._counted(self._guess(chosen) if self.speculate else chosen)

    def keep(self, request: Request) -> None:
        """Let others begin with what a request has computed."""
        if self.prefix:
            self.prefix.keep(request)

    def disown(self, request: Request) -> list[int]:
        """After a numerical error: let nobody begin with it. Returns the pages that nobody else holds."""
        return self.prefix.disown(request) if self.prefix else list(request.table)

    # the rows of a pass ----------------------------------------------------------------------------------------------

    def _in_turns(self, prompts: list[Request]) -> list[Request]:
        """The first prompt of each owner, then the second of each, owners by how long theirs have waited."""
        nth: Counter[Hashable] = Counter()
        keys = {}
        for request in prompts:
            keys[id(request)] = (nth[request.owner], self._prompts.last(request.owner))
            nth[request.owner] += 1
        return sorted(prompts, key=lambda r: keys[id(r)])

    def _fill(self, requests: list[Request], room: _Room, chosen: Chosen) -> _Room:
        """Choose requests in this order for as long as there is room; returns what is left of it."""
        for request in requests:
            if not (room.rows and room.outputs and request in self.running and self._attach(request)):
                continue
            rows = min(request.pending, room.rows, room.outputs if request.wants_prompt_logprobs else room.rows)
            if self._hold(request, rows, chosen):
                chosen.append((request, rows))
                room.rows -= rows
                room.outputs -= rows if request.wants_prompt_logprobs else 1
        return room

    def _counted(self, chosen: Chosen) -> Chosen:
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
        """Begin with what earlier requests have computed. False while it is being read. Who wants the log-probabilities
        of its prompt computes it.
        """
        if not request.attached:
            computes = request.wants_prompt_logprobs or len(request.table) > request.shared
            request.attached = computes or not self.prefix or self.prefix.attach(request)
        return request.attached

    def _choose_rope(self, request: Request) -> None:
        """Where the factors change, shared pages are left to the others as they are."""
        if request.choose_rope(self.config) and request.shared:
            chosen = request.rope_set
            self._take_back(request)
            request.rope_set = chosen

    def _guess(self, chosen: Chosen) -> Chosen:
        """Fill a pass of a few rows with guesses: up to 8 rows cost little more than one."""
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
        """Whether a guess fits without taking pages from anyone."""
        try:
            self.pages.grow(request.table, request.cached + rows)
        except NoSpace:
            return False
        return True

    # places and pages ------------------------------------------------------------------------------------------------

    def _join(self) -> None:
        """Give places to those who wait, if need be one that another owner has too many of."""
        while request := self.waiting.next(running := Counter(r.owner for r in self.running)):
            while self._short_for(request) and (giver := self._giver(request.owner, running)):
                running[giver.owner] -= 1
                self._step_back(giver)
            if len(self.running) >= self.most_running:
                return
            self.waiting.take(request)
            self.running.append(request)

    def _short_for(self, request: Request) -> bool:
        return len(self.running) >= self.most_running or pages_for(len(request.ids)) > self.pages.free

    def _giver(self, owner: Hashable, running: Counter[Hashable]) -> Request | None:
        """The request to step back in favour of an owner below its share: the last to join of the owner with the most,
        if that one is above its own and has two more, so that they do not swap for ever.
        """
        most = max(running.values(), default=0)
        share = running.total() / len({*running, *self.waiting.owners})
        if most - running[owner] < 2 or not running[owner] < share < most:
            return None
        return next(r for r in reversed(self.running) if running[r.owner] == most)

    def _hold(self, request: Request, rows: int, chosen: Chosen) -> bool:
        """Get pages for a request's next rows, if need be from those that joined after it and are not in this pass
        yet. Who joined before all others that have pages waits rather than give up its own.
        """
        while True:
            try:
                self.pages.grow(request.table, request.cached + rows)
                return True
            except NoSpace:
                later = [r for r in self.running[self.running.index(request) + 1 :] if r.table]
                free = [r for r in later if all(r is not c for c, _ in chosen)]
                if not later:
                    self._step_back(request)
                if not free:
                    return False
                self._step_back(free[-1])

    def _step_back(self, request: Request) -> None:
        self.preemptions += bool(request.table)
        self.running.remove(request)
        self._take_back(request)
        self.waiting.put_back(request)

    def _take_back(self, request: Request) -> None:
        self.pages.release(request.table)
        request.start_over()
