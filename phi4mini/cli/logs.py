"""Where what the rooms say through `logging` goes: to stderr, a line each, or as JSON where a command logs JSON.

Promises: this is the one place that sets logging up, and only a command does: who imports phi4mini keeps their own
settings, and finds them again when `main` returns. INFO and above of this package is shown, of libraries WARNING and
above. A record is one line, control characters escaped; a traceback follows it, inside the object where it is JSON.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Lines(logging.Handler):
    """Records to whatever stderr is at the time."""

    def __init__(self) -> None:
        super().__init__()
        self.as_json = False

    def emit(self, record: logging.LogRecord) -> None:
        """One record; where nobody reads stderr there is nothing left to do."""
        error = record.exc_info[1] if record.exc_info else None
        trace = "".join(traceback.format_exception(error)).rstrip() if error else None
        with suppress(BrokenPipeError, ValueError):
            print(self._as_json(record, trace) if self.as_json else _plain(record, trace), file=sys.stderr, flush=True)

    @staticmethod
    def _as_json(record: logging.LogRecord, trace: str | None) -> str:
        told = {"time": round(record.created, 3), "event": "log", "level": record.levelname.lower()}
        told |= {"logger": record.name, "message": record.getMessage()}
        return json.dumps(told if trace is None else told | {"traceback": trace})


def _plain(record: logging.LogRecord, trace: str | None) -> str:
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in record.getMessage())
    return shown if trace is None else f"{shown}\n{trace}"


@contextmanager
def to_stderr() -> Iterator[Lines]:
    """Show records while the block runs."""
    lines, ours = Lines(), logging.getLogger("phi4mini")
    before = ours.level
    logging.getLogger().addHandler(lines)
    ours.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        if lines.as_json:
            logging.captureWarnings(False)
        logging.getLogger().removeHandler(lines)
        ours.setLevel(before)


def use_json() -> None:
    """From now on a record is an object a line, Python's own warnings among them."""
    logging.captureWarnings(True)
    for handler in _handlers():
        handler.as_json = True


def is_json() -> bool:
    """Whether everything on stderr has to be JSON."""
    return any(handler.as_json for handler in _handlers())


def _handlers() -> list[Lines]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, Lines)]
