"""Who runs in the next pass, and with how many rows. Waiting requests join in the order they came; all running ones
move each pass.

A request that can draw its next token takes one row; what is left of the pass goes to prompts, cut into chunks. Where
pages run out, the request that joined last steps back and is computed again later: its tokens do not depend on it.
"""

from __future__ import annotations

from collections import deque

from phi4mini.config import Config
from phi4mini.engine.buffers import MAX_OUTPUTS, rows_that_fit
from phi4mini.engine.cache import Pages, Prefix
from phi4mini.engine.request import Request
from phi4mini.engine.speculate import MOST
from phi4mini.errors import NoSpace
from phi4mini.kernels.matmul import FEW


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
    ) -> None:
        self.config, self.pages, self.ctx, self.most_running = config, pages, ctx, most_running
        self.speculate, self.prefix = speculate, prefix
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """Forget a request and take its pages back."""
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)
        self._take_back(request)

    def schedule(self) -> list[tuple[Request, int]]:
        """The next pass as (request, rows): single rows first, then chunks of prompts."""
        self._join()
        for request in self.running:
            self._choose_rope(request)
            request.guess = []  # of a pass that was interrupted
        if self.prefix:
            self.prefix.new_pass()
        budget, outputs = rows_that_fit(max((len(r.ids) for r in self.running), default=0)), MAX_OUTPUTS
        chosen: list[tuple[Request, int]] = []
        for request in sorted(self.running, key=lambda r: r.pending > 1):  # stable: order of joining within each kind
            if not (budget and outputs and request in self.running and self._attach(request)):
                continue
            rows = min(request.pending, budget, outputs if request.wants_prompt_logprobs else budget)
            if self._hold(request, rows, chosen):
                request.begin()
                chosen.append((request, rows))
                budget -= rows
                outputs -= rows if request.wants_prompt_logprobs else 1
        return self._guess(chosen) if self.speculate else chosen

    def keep(self, request: Request) -> None:
        """Let others begin with what a request has computed."""
        if self.prefix:
            self.prefix.keep(request)

    def disown(self, request: Request) -> list[int]:
        """After a numerical error: let nobody begin with it. Returns the pages that nobody else holds."""
        return self.prefix.disown(request) if self.prefix else list(request.table)

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

    def _take_back(self, request: Request) -> None:
        self.pages.release(request.table)
        request.start_over()

    def _guess(self, chosen: list[tuple[Request, int]]) -> list[tuple[Request, int]]:
        """Fill a pass of a few single rows with guesses: up to 8 rows cost little more than one."""
        if any(rows > 1 or request.pending > 1 for request, rows in chosen):
            return chosen
        spare = FEW - len(chosen)
        widened = []
        for request, rows in chosen:
            request.guess_next(min(spare, MOST), self.config, self.ctx)
            if request.guess and not self._can_hold(request, rows + len(request.guess)):
                request.guess = []
            spare -= len(request.guess)
            widened.append((request, rows + len(request.guess)))
        return widened

    def _can_hold(self, request: Request, rows: int) -> bool:
        """Whether a guess fits without taking pages from anyone."""
        try:
            self.pages.grow(request.table, request.cached + rows)
        except NoSpace:
            return False
        return True

    def _join(self) -> None:
        while self.waiting and len(self.running) < self.most_running:
            self.running.append(self.waiting.popleft())

    def _hold(self, request: Request, rows: int, chosen: list[tuple[Request, int]]) -> bool:
        """Get pages for a request's next rows, if need be from those that joined after it and are not in this pass
        yet.
        """
        while True:
            try:
                self.pages.grow(request.table, request.cached + rows)
                return True
            except NoSpace:
                later = [
                    r
                    for r in self.running[self.running.index(request) + 1 :]
                    if r.table and all(r is not c for c, _ in chosen)
                ]
                if not later:
                    self._step_back(request)
                    return False
                self._step_back(later[-1])

    def _step_back(self, request: Request) -> None:
        self.running.remove(request)
        self._take_back(request)
        self.waiting.appendleft(request)
