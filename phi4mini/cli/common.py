"""Helpers of all commands: open a model, read text, print, show progress.

Promises: text that is not UTF-8 is an error that names the offset of its first bad byte, and is never repaired; status
goes to stderr. It does not know what a command does.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi4mini.cli.logs import is_json
from phi4mini.errors import BadInput, NotFound

if TYPE_CHECKING:
    from phi4mini.llm.model import Model

_log = logging.getLogger(__name__)


def open_model(values: Mapping[str, Any]) -> Model:
    """The model that the values of `engine_options` name, with progress on stderr."""
    from phi4mini.llm.model import load

    note_threads(values["threads"])
    with ProgressLine() as progress:
        return load(
            values["model"],
            quant=values["quant"],
            kv=values["kv"],
            threads=values["threads"],
            ctx=values["ctx_size"],
            offline=values["offline"],
            progress=progress,
            chat_format=values["chat_format"],
        )


def note_threads(asked: int | None) -> None:
    """One line if fewer threads are used than were asked for."""
    from phi4mini.kernels.threads.count import thread_note

    if note := thread_note(asked):
        say(note)


# ---- text in


def argument_text(text: str, what: str) -> str:
    """A command-line argument as given. Raises `BadInput` where its bytes are not UTF-8."""
    return decode(os.fsencode(text), what)


def decode(data: bytes, what: str) -> str:
    """UTF-8 as it is. Raises `BadInput` with the offset of the first byte that is not."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{what} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}") from None


def read_text(path: str) -> str:
    """A file's text; "-" is stdin. Raises `NotFound` or `BadInput`."""
    if path == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise BadInput("stdin is closed: there is nothing to read")
        if sys.stdin.isatty():
            say("(reading what you type; Ctrl-D ends it)")
        return decode(sys.stdin.buffer.read(), "stdin")
    try:
        return decode(Path(path).read_bytes(), path)
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror}") from error


def read_json(path: str) -> Any:
    """A file's JSON; "-" is stdin. Raises `NotFound` or `BadInput` naming line and column."""
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = "stdin" if path == "-" else path
        raise BadInput(f"{where} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise BadInput(f"{path} is nested too deep for JSON") from None


def piped() -> bool:
    """True if stdin is a pipe or a file; False for a terminal, /dev/null, or a closed stdin."""
    if sys.stdin is None or sys.stdin.closed:
        return False
    mode = os.fstat(sys.stdin.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


# ---- text out


def say(text: str = "") -> None:
    """A line of status to stderr, or a record where the command logs JSON."""
    if not is_json():
        print(text, file=sys.stderr, flush=True)
    elif text:
        _log.info("%s", text)


def put(text: str) -> None:
    """A piece of text to stdout, flushed."""
    sys.stdout.write(text)
    sys.stdout.flush()


def put_json(value: Any, indent: int | None = 2) -> None:
    """One JSON value and a line end to stdout."""
    put(json.dumps(value, ensure_ascii=False, indent=indent) + "\n")


def put_table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Rows as a table to stdout; the first row is the head, columns in `right` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = enumerate(zip(row, widths, strict=True))
        put("  ".join(text.rjust(w) if i in right else text.ljust(w) for i, (text, w) in cells).rstrip() + "\n")


def colour(stream: Any = None) -> bool:
    """True if the stream is a terminal that shows colours and NO_COLOR is not set."""
    stream = stream or sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def size(count: float) -> str:
    """Bytes for people, in powers of ten as disks and bandwidths are: 2.32 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:  # three digits, rounded, never 1e+03
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


class ProgressLine:
    """Progress of a download or conversion on stderr: in a terminal one line, rewritten; elsewhere a line each 10 %."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty() and not is_json()
        self._shown: tuple[str, int] | None = None
        self._open = False

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            say()

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` bytes of `what` are done. Total 0: `what` is a message."""
        if not total:
            say(what)
            return
        percent = 100 * done // total
        step = percent if self._live else percent // 10
        if self._shown == (what, step):
            return
        self._shown = (what, step)
        line = f"{what}: {percent:3d} % of {size(total)}"
        if not self._live:
            say(line)
            return
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
        self._open = done < total
        if not self._open:
            say()
