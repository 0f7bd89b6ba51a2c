"""A conversation as text that remembers which of its parts are control tokens.

Users of transformers write `prompt = tokenizer.apply_chat_template(messages, tokenize=False)` and give the text to a
tokenizer or a pipeline. In a plain string, control tokens of the chat format and the same characters in a message look
alike: either all of them would be control tokens, or none. A `RenderedText` is a `str` that keeps its segments: those
of the chat format are encoded as control tokens, those of messages as text.

Promises: only control tokens that the chat format wrote are encoded as such; `+`, slices, `strip` and its like, and the
`remove` methods keep the segments. Any other operation gives a plain `str`, which is text throughout.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, SupportsIndex

from phi4mini.chat import Segment


class RenderedText(str):
    """The result of `apply_chat_template(..., tokenize=False)`; the texts of `segments`, joined, are the string."""

    segments: tuple[Segment, ...]

    def __new__(cls, segments: Iterable[Segment]) -> RenderedText:
        """The text of these segments."""
        parts = tuple(segments)
        made = super().__new__(cls, "".join(part.text for part in parts))
        made.segments = parts
        return made

    def __getnewargs__(self) -> tuple[Any]:  # pickle and copy rebuild it from its segments
        return (self.segments,)

    def __add__(self, other: str) -> RenderedText:
        """Append a plain text, which stays text, or another rendered text."""
        if not isinstance(other, str):
            return NotImplemented
        return RenderedText(_joined(self.segments, _segments_of(other)))

    def __radd__(self, other: str) -> RenderedText:
        """Prepend a plain text, which stays text."""
        return RenderedText(_joined(_segments_of(other), self.segments)) if isinstance(other, str) else NotImplemented

    def __getitem__(self, key: SupportsIndex | slice) -> str:  # a slice is rendered too
        if not isinstance(key, slice) or key.step not in (None, 1):
            return super().__getitem__(key)
        start, stop, _ = key.indices(len(self))
        return self._cut(start, stop)

    def _cut(self, start: int, stop: int) -> RenderedText:
        """The characters from start to stop. A part of a control token is text."""
        kept, at = [], 0
        for part in self.segments:
            text = part.text[max(0, start - at) : max(0, stop - at)]
            whole = text == part.text
            if text or (whole and start <= at <= stop):
                kept.append(part if whole else Segment(text, learn=part.learn))
            at += len(part.text)
        return RenderedText(kept)

    def lstrip(self, chars: str | None = None, /) -> RenderedText:
        """As `str` has it; the segments are kept."""
        return self._cut(len(self) - len(super().lstrip(chars)), len(self))

    def rstrip(self, chars: str | None = None, /) -> RenderedText:
        """As `str` has it; the segments are kept."""
        return self._cut(0, len(super().rstrip(chars)))

    def strip(self, chars: str | None = None, /) -> RenderedText:
        """As `str` has it; the segments are kept."""
        return self.lstrip(chars).rstrip(chars)

    def removeprefix(self, prefix: str, /) -> RenderedText:
        """As `str` has it; the segments are kept."""
        return self._cut(len(prefix) if self.startswith(prefix) else 0, len(self))

    def removesuffix(self, suffix: str, /) -> RenderedText:
        """As `str` has it; the segments are kept."""
        return self._cut(0, len(self) - len(suffix) if self.endswith(suffix) else len(self))


def _segments_of(text: str) -> tuple[Segment, ...]:
    return text.segments if isinstance(text, RenderedText) else (Segment(str(text)),)


def _joined(first: tuple[Segment, ...], second: tuple[Segment, ...]) -> list[Segment]:
    """Both in order; two texts that meet become one segment, so that they are encoded together."""
    if first and second and not first[-1].control and not second[0].control:
        middle = Segment(first[-1].text + second[0].text, learn=first[-1].learn)
        return [*first[:-1], middle, *second[1:]]
    return [*first, *second]
