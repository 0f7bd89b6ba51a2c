"""A parent process that restarts the server when it dies, and ends when the server ends.

Promises: the parent keeps the listening socket, so that clients wait during a restart instead of being refused; signals
reach the server; when the parent dies, in whatever way, the server dies too. It forks before any heavy import and stays
below 20 MB.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from phi4mini.cli.common import say

MOST_STARTS, WITHIN = 5, 60.0  # restarts, in so many seconds
_FIRST_WAIT = 0.25  # seconds before the first restart; doubled for each further one
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MEANT = (0, 2, 130)  # exit codes after which a restart would change nothing


class Budget:
    """Limits restarts: how long to wait before the next one, and when to give up."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._starts: list[float] = []

    def wait(self) -> float | None:
        """Count one more restart; returns the seconds to wait before it, or None if there were too many."""
        now = self._clock()
        self._starts = [at for at in self._starts if now - at < WITHIN]
        if len(self._starts) >= MOST_STARTS:
            return None
        self._starts.append(now)
        return _FIRST_WAIT * 2.0 ** (len(self._starts) - 1)


def supervise() -> int | None:
    """Fork. Returns None in the child, which then serves; in the parent, at the end, the exit code.

    Call it before any thread exists and before any heavy import.
    """
    return _Watcher().watch()


class _Watcher:
    def __init__(self) -> None:
        self._child = 0
        self._told_to_end = False
        self._alive, self._held = os.pipe()  # the parent keeps the second end open while it lives

    def watch(self) -> int | None:
        budget = Budget()
        for number in _ENDINGS:
            signal.signal(number, self._pass_on)
        while True:
            if self._start():
                return None
            code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
            self._child = 0
            if code in _MEANT:
                return code
            if self._told_to_end:
                return 0 if -code in _ENDINGS else 1  # a signal that came before the server had a handler for it
            say(f"the server {_how(code)}")
            wait = budget.wait()
            if wait is None:
                say(f"that was too often: {MOST_STARTS} starts in {WITHIN:.0f} s; giving up")
                return 1
            if self._ended_while_waiting(wait):
                return 0

    def _start(self) -> bool:
        """Fork; True in the child. Signals are blocked meanwhile: none can come while only one of both would see it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
        sys.stdout.flush()
        sys.stderr.flush()
        self._child = os.fork()
        if self._child:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)
            return False
        os.setpgid(0, 0)  # a terminal's Ctrl-C then reaches the parent only, which passes it on once
        os.close(self._held)
        threading.Thread(target=_die_with_parent, args=(self._alive,), daemon=True).start()
        for number in _ENDINGS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)
        return True

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._told_to_end = True
        if self._child:
            with suppress(ProcessLookupError):
                os.kill(self._child, number)

    def _ended_while_waiting(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._told_to_end:
            time.sleep(0.05)
        return self._told_to_end


def _how(code: int) -> str:
    """How the server ended, as a message."""
    if code >= 0:
        return f"ended with exit code {code}; starting it again"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}; starting it again"


def _die_with_parent(alive: int) -> None:
    """Wait until the parent dies, which closes its end of the pipe; then exit."""
    select.select([alive], [], [])
    os._exit(1)
