"""Finds the tool calls in a reply: the state machine behind `ReplyReader` and `parse_reply`.

The input is text and marks (control tokens that open or close a call); the output is text and call events. Calls are:
- a native call between marks (the closing mark may be missing): a list, an object, or several in a row, with or without
  brackets and with or without `functools` in front;
- `functools[...]` at the start of a reply, and later in it if the function names are known;
- a bare list or object at the start of a reply, if the function names are known and it has arguments.
`call_json.py` reads the JSON of one call.

Promises that nothing is lost: text that only looks like a call, and a call that breaks off or is malformed, comes out
as text. Knows no ids (`reply_reader.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from phi4mini.chat.call_json import CallScanner, NotACall
from phi4mini.chat.messages import ToolCall

_FUNCTOOLS = "functools["
_MOST_HELD = 256  # characters held back outside an object: more than any tag or gap between calls has


@dataclass(frozen=True)
class TextDelta:
    """More text of the answer."""

    text: str


@dataclass(frozen=True)
class CallStart:
    """A call of the function `name` begins; its arguments follow."""

    index: int
    name: str
    id: str


@dataclass(frozen=True)
class CallArguments:
    """A piece of the arguments' JSON; the deltas of a call that ended, joined, are valid JSON."""

    index: int
    delta: str


@dataclass(frozen=True)
class CallEnd:
    """The call is complete and well-formed."""

    index: int
    call: ToolCall


@dataclass(frozen=True)
class CallBroken:
    """The call that began (CallStart) broke off or is malformed; its whole text follows as TextDelta."""

    index: int


Event = TextDelta | CallStart | CallArguments | CallEnd | CallBroken


class CallParser:
    """Feed it with `text`, `open_mark`, `close_mark` and `end`; each returns the events that are now certain."""

    def __init__(self, names: Collection[str], tags: tuple[str, str] | None, new_id: Callable[[], str]) -> None:
        """`names`: known functions; `tags`: text that opens and closes a call in formats without tokens for that."""
        self._names = names
        self._tags = tags
        self._new_id = new_id
        self._events: list[Event] = []
        self._shown: list[str] = []  # text of the next TextDelta
        self._raw = ""
        self._count = 0
        self._fresh = True  # only whitespace so far
        self._to_plain()

    # ---- input

    def text(self, text: str) -> list[Event]:
        """More text."""
        for char in text:
            if self.inside_object:
                self._body.append(char)
            else:
                self._raw += char
            self._state(char)
            if len(self._raw) - self._prefix > _MOST_HELD:
                self._fail()
        return self._take()

    def open_mark(self) -> list[Event]:
        """The token that opens a native call."""
        self._close()
        self._begin("native", "")
        return self._take()

    def close_mark(self) -> list[Event]:
        """A token that ends the call or text being read: the closing mark, or the end of the turn."""
        self._close()
        return self._take()

    def end(self) -> list[Event]:
        """The reply is over."""
        self._close()
        return self._take()

    @property
    def inside_object(self) -> bool:
        """True while a call's object is read; a tag spelled there is data."""
        return self._state == self._object

    # ---- output

    def _take(self) -> list[Event]:
        self._settle()
        events, self._events = self._events, []
        return events

    def _settle(self) -> None:
        if self._shown:
            self._events.append(TextDelta("".join(self._shown)))
            self._shown = []

    def _emit(self, event: Event) -> None:
        self._settle()
        self._events.append(event)

    def _release(self, size: int | None = None) -> None:
        """Hand out the first `size` held characters as text; None: all of them."""
        out, self._raw = (self._raw, "") if size is None else (self._raw[:size], self._raw[size:])
        if out:
            self._shown.append(out)
            self._fresh = self._fresh and out.isspace()

    # ---- outside a call: `_raw` holds text that may be the beginning of a call

    def _to_plain(self) -> None:
        self._state: Callable[[str], None] = self._plain
        self._raw = ""
        self._body: list[str] = []  # of the object being read, after its first bracket
        self._prefix = 0

    def _plain(self, char: str) -> None:
        while self._raw:
            probe = self._raw.lstrip() if self._fresh else self._raw
            if not probe:
                return
            if self._tags and probe == self._tags[0]:
                return self._begin("tag", self._raw)
            if probe == _FUNCTOOLS and (self._fresh or self._names):
                return self._begin("functools" if self._fresh else "known", self._raw, bracket=True)
            if probe in ("[", "{") and self._fresh and self._names:
                raw, self._raw = self._raw, ""
                self._begin("bare", raw[:-1])
                self._raw = raw
                return self._before(probe)
            if any(trigger.startswith(probe) for trigger in self._triggers()):
                return
            self._release(len(self._raw) - len(probe) + 1)

    def _triggers(self) -> list[str]:
        tag = [self._tags[0]] if self._tags else []
        return [*tag, _FUNCTOOLS] if self._fresh or self._names else tag

    # ---- inside a call: `_raw` holds text that has not become a call yet and comes out as text if it never does

    def _begin(self, kind: str, raw: str, bracket: bool = False) -> None:
        """`kind`: "native" and "tag" may hold several lists; "known" and "bare" must name known functions."""
        self._kind, self._bracket, self._raw = kind, bracket, raw
        self._prefix = len(raw)  # characters of the opening in `_raw`
        self._fresh = False
        self._state = self._before

    def _before(self, char: str) -> None:
        seen = self._raw[self._prefix :].strip()
        if not seen or (not self._bracket and _FUNCTOOLS.startswith(seen) and seen != _FUNCTOOLS):
            return
        if char == "[" and not self._bracket and seen in ("[", _FUNCTOOLS):
            self._bracket, self._prefix = True, len(self._raw)
        elif char == "{":
            self._start_object()
        elif char == "]" and self._bracket and self._kind in ("native", "tag"):
            self._end_list()
        elif not self._closing_tag(seen):
            self._fail()

    def _start_object(self) -> None:
        self._scanner = CallScanner(self._names)
        self._call_id: str | None = None
        self._state = self._object
        self._object("{")

    def _object(self, char: str) -> None:
        scanner = self._scanner
        try:
            scanner.feed(char)
        except NotACall:
            return self._fail()
        if self._kind in ("known", "bare") and scanner.name is not None and scanner.name not in self._names:
            return self._fail()
        if self._kind == "bare" and scanner.done and not scanner.given:
            return self._fail()  # a list of named things, such as the tools themselves, is no call
        if scanner.started and scanner.name is not None:
            if self._call_id is None:
                self._call_id = self._new_id()
                self._emit(CallStart(self._count, scanner.name, self._call_id))
            if delta := scanner.take():
                self._emit(CallArguments(self._count, delta))
            if scanner.done:
                self._end_object(scanner.name)

    def _end_object(self, name: str) -> None:
        scanner = self._scanner
        call = ToolCall(self._call_id or "", name, scanner.arguments or {}, scanner.text)
        self._emit(CallEnd(self._count, call))
        self._count += 1
        self._raw, self._body, self._prefix, self._call_id = "", [], 0, None
        self._state = self._between

    def _between(self, char: str) -> None:
        seen = self._raw.strip()
        if char == "{":
            self._start_object()
        elif char == "]" and self._bracket and seen in ("]", ",]"):
            self._end_list()
        elif seen not in ("", ",") and not self._closing_tag(seen):
            self._fail()

    def _end_list(self) -> None:
        self._raw, self._prefix = "", 0
        self._bracket = False
        self._state = self._after

    def _after(self, char: str) -> None:
        seen = self._raw.strip()
        if char in "[{" and self._kind in ("native", "tag") and seen in ("[", "{", ",[", ",{"):
            self._prefix = len(self._raw) - 1
            self._state = self._before
            self._before(char)
        elif seen not in ("", ",") and not self._closing_tag(seen):
            self._fail()

    def _closing_tag(self, seen: str) -> bool:
        """True if `seen` is the closing tag or a beginning of it; the complete tag ends the call."""
        if self._kind != "tag" or self._tags is None or not self._tags[1].startswith(seen):
            return False
        if seen == self._tags[1]:
            self._to_plain()
        return True

    def _fail(self) -> None:
        if self.inside_object and self._call_id is not None:
            self._emit(CallBroken(self._count))
            self._count += 1
        self._raw += "".join(self._body)
        self._release()
        self._to_plain()

    def _close(self) -> None:
        """End the call or text that is being read."""
        if self._state == self._plain:
            self._release()
        elif self._unfinished():
            self._fail()
        self._to_plain()

    def _unfinished(self) -> bool:
        """True if more is held than the whitespace and comma between calls, or if a call was opened and never began."""
        if self.inside_object or self._raw[self._prefix :].strip() not in ("", ","):
            return True
        return self._state == self._before and self._kind != "native"
