"""A streamed answer in the terminal: Markdown rendered block by block, or plain text.

Promises: lines that have scrolled off are never redrawn, so long answers neither flicker nor repeat; `Plain` writes
exactly the model's text. It does not know where the text comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from phi4mini.cli.common import colour, put

if TYPE_CHECKING:
    from rich.console import RenderableType

_REDRAWS = 12  # a second


class Printer(Protocol):
    """Takes the pieces of an answer, then `end`."""

    def add(self, piece: str) -> None: ...
    def end(self) -> None: ...


def printer(markdown: bool) -> Printer:
    """A Markdown printer for a terminal with colours, else a plain one."""
    return Markdown() if markdown and colour() else Plain()


class Plain:
    """Prints the text unchanged, and a line end after it."""

    def __init__(self) -> None:
        self._last = "\n"

    def add(self, piece: str) -> None:
        if piece:
            put(piece)
            self._last = piece[-1]

    def end(self) -> None:
        if self._last != "\n":
            put("\n")


class Markdown:
    """Prints each finished block once; the unfinished block is redrawn in place, as much of it as the screen holds."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=_REDRAWS, transient=True)
        self._live.start()
        self._open = ""  # text of the unfinished block

    def add(self, piece: str) -> None:
        """Show more of the answer; a block that is complete is printed for good."""
        self._open += piece
        at = finished(self._open)
        if at:
            self._live.update("")
            self._console.print(_rendered(self._open[:at]))
            self._open = self._open[at:]
        self._live.update(self._tail())

    def end(self) -> None:
        """The answer is over: print the last block and restore the terminal."""
        self._live.update("")
        self._live.stop()
        if self._open.strip():
            self._console.print(_rendered(self._open))
        self._open = ""

    def _tail(self) -> RenderableType:
        """The last lines of the unfinished block: a live region taller than the screen cannot be erased."""
        lines = self._open.split("\n")
        room = max(self._console.size.height - 3, 3)
        return _rendered("\n".join(lines[-room:])) if len(lines) <= room else "\n".join(lines[-room:])


def finished(text: str) -> int:
    """Length of the part of a Markdown text that further text cannot change: up to a blank line outside code."""
    end, at, fence = 0, 0, ""
    for line in text.splitlines(keepends=True):
        at += len(line)
        bare = line.strip()
        if fence:
            fence = "" if bare.startswith(fence) and not bare.strip(fence[0]) else fence
        elif bare.startswith(("```", "~~~")):
            fence = bare[: len(bare) - len(bare.lstrip(bare[0]))]
        if not bare and not fence and line.endswith("\n"):
            end = at
    return end


def _rendered(text: str) -> Any:
    from rich.markdown import Markdown as Rendered

    return Rendered(text, code_theme="ansi_dark")
