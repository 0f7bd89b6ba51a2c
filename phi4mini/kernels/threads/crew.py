"""The number of threads of the next pass: all of them, or fewer while a neighbour holds one of the cores.

The operations of a small pass (0.1 to 0.5 ms) are far shorter than a scheduler's slice, so one thread that has lost its
core holds up every barrier: with one of two cores taken, one thread was faster than two (13.2 against 8.2 tokens a
second). While all is well nothing is spent: only when passes take much longer than the same passes took lately is one
thread fewer tried, and from time to time one more. The number of threads changes no bit of a result, so the clock may
decide it.

A chunk of a prompt has no crew: its tiles are handed out by ticket, and a slow thread simply takes fewer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)
_SLOW = 1.3  # times the usual: a lost core costs more than this, slow phases of a shared memory mostly less
_TRIALS = 3  # passes in a row that must be slow, and passes of a trial, whose best counts
_RETRY_SECONDS = (1.0, 30.0)  # time until a reduced crew tries one thread more: from the first, doubling to the second
_DRIFT = 1.002  # factor by which the usual time may grow with each pass: contexts get longer


class Crew:
    """The choice for one kind of pass, by the clock: `size()` before a pass, `note(seconds)` after it."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self._size = most
        self._usual: dict[int, float] = {}
        self._trial: list[float] | None = None
        self._home = most  # the size to go back to if a trial does not pay
        self._clock = clock
        self._wait, self._retry_at = _RETRY_SECONDS[0], 0.0
        self._slow_in_a_row = 0

    def size(self) -> int:
        """Threads for the next pass."""
        return self._size

    def note(self, seconds: float) -> None:
        """Learn how long a pass of `size()` threads took."""
        if self.most == 1:
            return
        if self._trial is not None:
            self._trial.append(seconds)
            if len(self._trial) == _TRIALS:
                self._decide()
            return
        usual = self._usual.get(self._size, seconds) * _DRIFT
        self._slow_in_a_row = self._slow_in_a_row + 1 if seconds > _SLOW * usual else 0
        self._usual[self._size] = min(usual, seconds)
        if self._slow_in_a_row >= _TRIALS and self._size > 1:
            self._usual[self._size] = seconds
            self._wait = _RETRY_SECONDS[0]
            self._try(self._size - 1)
        elif self._size < self.most and self._clock() >= self._retry_at:
            self._usual[self._size] = seconds
            self._try(self._size + 1)

    def _try(self, size: int) -> None:
        _log.debug("trying %d threads instead of %d", size, self._size)
        self._home, self._size, self._trial, self._slow_in_a_row = self._size, size, [], 0
        self._retry_at = self._clock() + self._wait

    def _decide(self) -> None:
        best = min(self._trial or [0.0])
        self._trial = None
        if best < 0.95 * self._usual[self._home]:  # less is noise
            self._usual[self._size] = best
            _log.debug("staying with %d threads: %.1f ms a pass", self._size, 1e3 * best)
            return
        if self._size > self._home:
            self._wait = min(2 * self._wait, _RETRY_SECONDS[1])
            self._retry_at = self._clock() + self._wait
        self._size = self._home
