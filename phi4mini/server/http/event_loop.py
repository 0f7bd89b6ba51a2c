"""An event loop whose clock stands still while the process is stopped (SIGSTOP, a frozen container, a paused machine).

Otherwise every deadline that ran out meanwhile would end its request in the moment the process goes on.
"""

from __future__ import annotations

import asyncio
import time

_STOPPED = 2.0  # seconds; uvicorn's own timer asks for the time ten times a second, so a longer silence was not ours


class PatientLoop(asyncio.SelectorEventLoop):
    """`time()` leaves out the spells in which nothing of the process ran."""

    _lost = 0.0
    _seen: float | None = None

    def time(self) -> float:
        """Seconds of the process's own life, by the monotonic clock."""
        now = time.monotonic()
        if self._seen is not None and now - self._seen > _STOPPED:
            self._lost += now - self._seen
        self._seen = now
        return now - self._lost
