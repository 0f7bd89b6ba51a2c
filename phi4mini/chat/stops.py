"""Stop strings in streamed text: hold back text that may begin a stop string, cut exactly where one begins.

Promises the same output however the text is cut into pieces. The stop string that is complete first wins; if two are
complete at the same character, the longer wins. Knows no tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from phi4mini.errors import BadInput


class StopMatcher:
    """`push` text and get the text that may be shown. Once a stop string is `matched`, later text is dropped."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Raises BadInput for an empty stop string or one that is not text."""
        if isinstance(stops, str):
            stops = [stops]
        bad = [stop for stop in stops if not isinstance(stop, str) or not stop]
        if bad:
            raise BadInput(f"stop strings must be non-empty text, got {bad[0]!r}")
        self._stops = tuple(stops)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """The text that certainly comes before any stop string."""
        if self.matched is not None:
            return ""
        text = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            _, at, self.matched = min(found)
            self._held = ""
            return text[:at]
        keep = self._longest_beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """At the end of the text: the text that was held back."""
        held, self._held = self._held, ""
        return held

    def _longest_beginning(self, text: str) -> int:
        """Length of the longest suffix of `text` that is a prefix of a stop string."""
        longest = min(len(text), max(map(len, self._stops), default=1) - 1)
        sizes = range(longest, 0, -1)
        return next((n for n in sizes if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)
