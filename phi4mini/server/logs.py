"""The server's log on stderr: one line for each request, for people or as JSON; never a prompt, an answer, or a key.

Promise: whatever a client sends, an entry is one line: control characters are escaped and long values cut.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from contextlib import suppress
from typing import Any

_MOST = 200  # characters of one value
_MOST_TRACE = 20_000  # characters of a traceback, counted from its end


class Trace(str):
    """A traceback as a value of a line: JSON escapes its line ends, and it may be longer than other values."""


class Log:
    """Writes the lines. `as_json`: each line is a JSON object."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    def event(self, name: str, **values: Any) -> None:
        """One line: the event's name and its values; those that are None are left out."""
        known = {key: _plain(value) for key, value in values.items() if value is not None}
        now = time.time()
        if self.as_json:
            line = json.dumps({"time": round(now, 3), "event": name, **known}, ensure_ascii=True)
        else:
            clock = time.strftime("%H:%M:%S", time.localtime(now))
            line = " ".join([clock, name, *(f"{key}={value}" for key, value in known.items())])
        _put(line)

    def say(self, name: str, text: str, **values: Any) -> None:
        """The event as a sentence where people read the log, as `event` writes it otherwise."""
        if self.as_json:
            self.event(name, **values)
        else:
            _put(text)

    def fault(self, where: str, error: BaseException) -> None:
        """A fault of the server with its traceback. `where`: the request's id, or the thread."""
        trace = "".join(traceback.format_exception(error)).rstrip()
        told = {"where": where, "error": type(error).__name__, "message": str(error)}
        self.event("fault", **told, traceback=Trace(trace) if self.as_json else None)
        if not self.as_json:
            _put(trace)


def _plain(value: Any) -> Any:
    """A number unchanged; any other value as text on one line, cut at _MOST characters."""
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, Trace):
        return value[-_MOST_TRACE:]
    if isinstance(value, float):
        return round(value, 4)
    text = str(value).encode("unicode_escape").decode("ascii")
    return text if len(text) <= _MOST else text[:_MOST] + "..."


def _put(line: str) -> None:
    """Write to stderr; a closed stderr is no error."""
    with suppress(BrokenPipeError, ValueError):
        print(line, file=sys.stderr, flush=True)
