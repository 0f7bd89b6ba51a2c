"""A streamed answer in the terminal: Markdown drawn block by block, or the plain text where that is asked for.

Promises: what has scrolled by is never drawn again, so long answers do not flicker or repeat; `Plain` writes exactly
the model's text. It does not know where text comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from phi4mini.cli.common import colour, put

if TYPE_CHECKING:
    from rich.console import RenderableType

_REDRAWS = 12  # a second


class Printer(Protocol):
    """Pieces of an answer in, then `end`."""

    def add(self, piece: str) -> None: ...
    def end(self) -> None: ...


def printer(markdown: bool) -> Printer:
    """A Markdown printer for a terminal with colours, else a plain one."""
    return Markdown() if markdown and colour() else Plain()


class Plain:
    """The text as it is, and a line end at the end."""

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
    """Finished blocks are printed for good; the block in the making is redrawn in place, as much of it as fits."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=_REDRAWS, transient=True)
        self._live.start()
        self._open = ""  # text of the block in the making

    def add(self, piece: str) -> None:
        """Show more of the answer; blocks that are complete stay as they are from now on."""
        self._open += piece
        at = finished(self._open)
        if at:
            self._live.update("")
            self._console.print(_rendered(self._open[:at]))
            self._open = self._open[at:]
        self._live.update(self._tail())

    def end(self) -> None:
        """The answer is over: print what is still open, and leave the terminal as it was."""
        self._live.update("")
        self._live.stop()
        if self._open.strip():
            self._console.print(_rendered(self._open))
        self._open = ""

    def _tail(self) -> RenderableType:
        """The last lines of the open block: a live region taller than the screen cannot be erased again."""
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
