"""An event loop whose clock stands still while the process is stopped (SIGSTOP, a frozen container, a paused machine).

Promise: no deadline passes while the process is stopped; with the plain clock, every request whose deadline passed
meanwhile would end as soon as the process goes on.
"""

from __future__ import annotations

import asyncio
import time

_STOPPED = 2.0  # seconds; uvicorn asks for the time ten times a second, so the process was stopped in a longer gap


class PatientLoop(asyncio.SelectorEventLoop):
    """`time()` leaves out the time in which the process was stopped."""

    _lost = 0.0
    _seen: float | None = None

    def time(self) -> float:
        """Seconds on the monotonic clock, less the time in which the process was stopped."""
        now = time.monotonic()
        if self._seen is not None and now - self._seen > _STOPPED:
            self._lost += now - self._seen
        self._seen = now
        return now - self._lost
