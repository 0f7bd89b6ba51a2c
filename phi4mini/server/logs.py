"""What the server says on stderr: a line a request, for people or as JSON. Never a prompt, an answer, or a key.

Promise: whatever a client sends, a line stays a line: control characters are escaped and long values cut.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from contextlib import suppress
from typing import Any

_MOST = 200  # characters of one value
_MOST_TRACE = 20_000  # of a traceback, from its end


class Trace(str):
    """A traceback as a value of a line: JSON escapes its line ends, and it may be longer than other values."""


class Log:
    """Where lines go. `as_json`: one object a line."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    def event(self, name: str, **values: Any) -> None:
        """One line: what happened, and the figures of it."""
        known = {key: _plain(value) for key, value in values.items() if value is not None}
        now = time.time()
        if self.as_json:
            line = json.dumps({"time": round(now, 3), "event": name, **known}, ensure_ascii=True)
        else:
            clock = time.strftime("%H:%M:%S", time.localtime(now))
            line = " ".join([clock, name, *(f"{key}={value}" for key, value in known.items())])
        _put(line)

    def say(self, name: str, text: str, **values: Any) -> None:
        """The same in words of our own, where people read it."""
        if self.as_json:
            self.event(name, **values)
        else:
            _put(text)

    def fault(self, where: str, error: BaseException) -> None:
        """A fault of ours: the traceback with the request's id or the thread, for whoever will mend it."""
        trace = "".join(traceback.format_exception(error)).rstrip()
        told = {"where": where, "error": type(error).__name__, "message": str(error)}
        self.event("fault", **told, traceback=Trace(trace) if self.as_json else None)
        if not self.as_json:
            _put(trace)


def _plain(value: Any) -> Any:
    """A number as it is, a text on one line and not longer than a line should be."""
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, Trace):
        return value[-_MOST_TRACE:]
    if isinstance(value, float):
        return round(value, 4)
    text = str(value).encode("unicode_escape").decode("ascii")
    return text if len(text) <= _MOST else text[:_MOST] + "..."


def _put(line: str) -> None:
    """To stderr; where nobody reads it there is nothing left to do."""
    with suppress(BrokenPipeError, ValueError):
        print(line, file=sys.stderr, flush=True)
