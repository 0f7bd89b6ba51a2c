"""Log records of all rooms go to stderr, a line each, or a JSON object each where a command logs JSON.

Promises: logging is set up here only, and by commands only: a program that imports phi4mini keeps its own settings,
and has them again when `main` returns. Records of this package are shown from INFO on, or from the level that
PHI4MINI_LOG names; those of libraries from WARNING on. A record is one line with control characters escaped; a
traceback follows on further lines, or inside the JSON object.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from phi4mini.errors import BadInput

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
LEVEL_VARIABLE = "PHI4MINI_LOG"


class Lines(logging.Handler):
    """Writes records to the stderr of the moment."""

    def __init__(self) -> None:
        super().__init__()
        self.as_json = False

    def emit(self, record: logging.LogRecord) -> None:
        """One record. A stderr that nobody reads is no error."""
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
    message = f"{record.name}: {record.getMessage()}" if record.levelno <= logging.DEBUG else record.getMessage()
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
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


def use_level() -> None:
    """Show records of this package from the level on that PHI4MINI_LOG names. Raises `BadInput` for any other word."""
    name = os.environ.get(LEVEL_VARIABLE, "").lower()
    if name and name not in LEVELS:
        raise BadInput(f"{LEVEL_VARIABLE} must be debug, info or warning, not {name!r:.40}")
    logging.getLogger("phi4mini").setLevel(LEVELS.get(name, logging.INFO))


def use_json() -> None:
    """Write every record as a JSON object a line from now on, Python's own warnings among them."""
    logging.captureWarnings(True)
    for handler in _handlers():
        handler.as_json = True


def is_json() -> bool:
    """True if everything on stderr has to be JSON."""
    return any(handler.as_json for handler in _handlers())


def _handlers() -> list[Lines]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, Lines)]
