"""From an answer's events to its parts, a row of texts and calls, as Anthropic's and OpenAI's Responses API have them.

Promises: the parts of a stream, joined, are those of the whole answer; whitespace alone beside calls is no part; a call
that breaks off is closed as broken, and all of its text follows as a part of its own. It knows no dialect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from phi4mini.chat import CallArguments, CallBroken, CallEnd, CallStart, Event, TextDelta, ToolCall


@dataclass(frozen=True)
class Opened:
    """A part begins: a call, or a text if `call` is None."""

    index: int
    call: CallStart | None


@dataclass(frozen=True)
class Grown:
    """A part grows: more of its text, or of its arguments' JSON."""

    index: int
    delta: str
    of_call: bool = False


@dataclass(frozen=True)
class Closed:
    """A part ends. `text`: all of it, of a call the arguments as written. A broken call is no part of the answer."""

    index: int
    text: str
    call: ToolCall | None = None
    broken: bool = False


Step = Opened | Grown | Closed


class Parts:
    """`push` events, then `finish`; each returns the steps that the parts take."""

    def __init__(self) -> None:
        self._index = -1  # of the current part
        self._open = False
        self._text = ""
        self._held = ""  # whitespace before a text; beside calls it is dropped
        self._calls = 0  # complete ones
        self._in_call = False

    def push(self, event: Event) -> list[Step]:
        """The steps that become certain with this event."""
        match event:
            case TextDelta():
                return self._more_text(event.text)
            case CallStart():
                return [*self._close(), *self._begin(event)]
            case CallArguments():
                return self._grow(event.delta)
            case CallEnd():
                self._calls += 1
                return self._close(event.call)
            case CallBroken():
                return self._close(broken=True)

    def finish(self) -> list[Step]:
        """The last steps: the answer is over."""
        held, self._held = self._held, ""
        if held and not self._calls:
            return [*self._begin(None), *self._grow(held), *self._close()]
        return self._close()

    def _more_text(self, text: str) -> list[Step]:
        if self._open:
            return self._grow(text)
        self._held += text
        if self._held.isspace() or not self._held:
            return []
        held, self._held = self._held, ""
        return [*self._begin(None), *self._grow(held)]

    def _begin(self, call: CallStart | None) -> list[Step]:
        self._held, self._text, self._open, self._in_call = "", "", True, call is not None
        self._index += 1
        return [Opened(self._index, call)]

    def _grow(self, delta: str) -> list[Step]:
        self._text += delta
        return [Grown(self._index, delta, self._in_call)]

    def _close(self, call: ToolCall | None = None, broken: bool = False) -> list[Step]:
        if not self._open:
            return []
        self._open = False
        return [Closed(self._index, self._text, call, broken)]


def joined(events: Iterable[Event]) -> list[Event]:
    """The events with neighbouring pieces of one call's arguments joined: they come character by character."""
    made: list[Event] = []
    for event in events:
        last = made[-1] if made else None
        if isinstance(event, CallArguments) and isinstance(last, CallArguments) and last.index == event.index:
            made[-1] = CallArguments(event.index, last.delta + event.delta)
        else:
            made.append(event)
    return made


def closed_parts(events: Iterable[Event]) -> list[Closed]:
    """The parts of a whole answer, without broken calls."""
    parts = Parts()
    steps = [step for event in events for step in parts.push(event)] + parts.finish()
    return [step for step in steps if isinstance(step, Closed) and not step.broken]
