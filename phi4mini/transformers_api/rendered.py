"""A conversation as text that remembers which of its parts are control tokens, so that it can be given back.

transformers' users write `prompt = tokenizer.apply_chat_template(messages, tokenize=False)` and hand the text to a
tokenizer or a pipeline. As plain text it would lose its control tokens, or any user could write some. A `RenderedText`
is a `str` whose parts are known: what the chat format wrote is a control token again, what a message said is text.

Promises: nothing but the chat format's own control tokens is ever one; `+`, slices, `strip` and its like, and the
`remove` methods keep the memory. Every other operation gives a plain `str`, which has none: it is text throughout.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, SupportsIndex

from phi4mini.chat import Segment


class RenderedText(str):
    """What `apply_chat_template(..., tokenize=False)` gives. `segments` spell it."""

    segments: tuple[Segment, ...]

    def __new__(cls, segments: Iterable[Segment]) -> RenderedText:
        """The text of these segments."""
        parts = tuple(segments)
        made = super().__new__(cls, "".join(part.text for part in parts))
        made.segments = parts
        return made

    def __getnewargs__(self) -> tuple[Any]:  # pickle and copy make it from its segments
        return (self.segments,)

    def __add__(self, other: str) -> RenderedText:
        """With text put after it, which is text, or with another rendered text."""
        if not isinstance(other, str):
            return NotImplemented
        return RenderedText(_joined(self.segments, _segments_of(other)))

    def __radd__(self, other: str) -> RenderedText:
        """With text put before it, which is text."""
        return RenderedText(_joined(_segments_of(other), self.segments)) if isinstance(other, str) else NotImplemented

    def __getitem__(self, key: SupportsIndex | slice) -> str:  # a slice is rendered too
        if not isinstance(key, slice) or key.step not in (None, 1):
            return super().__getitem__(key)
        start, stop, _ = key.indices(len(self))
        return self._cut(start, stop)

    def _cut(self, start: int, stop: int) -> RenderedText:
        """The characters from start to stop. A control token that is cut through is text."""
        kept, at = [], 0
        for part in self.segments:
            text = part.text[max(0, start - at) : max(0, stop - at)]
            whole = text == part.text
            if text or (whole and start <= at <= stop):
                kept.append(part if whole else Segment(text, learn=part.learn))
            at += len(part.text)
        return RenderedText(kept)

    def lstrip(self, chars: str | None = None, /) -> RenderedText:
        """As of str."""
        return self._cut(len(self) - len(super().lstrip(chars)), len(self))

    def rstrip(self, chars: str | None = None, /) -> RenderedText:
        """As of str."""
        return self._cut(0, len(super().rstrip(chars)))

    def strip(self, chars: str | None = None, /) -> RenderedText:
        """As of str."""
        return self.lstrip(chars).rstrip(chars)

    def removeprefix(self, prefix: str, /) -> RenderedText:
        """As of str."""
        return self._cut(len(prefix) if self.startswith(prefix) else 0, len(self))

    def removesuffix(self, suffix: str, /) -> RenderedText:
        """As of str."""
        return self._cut(0, len(self) - len(suffix) if self.endswith(suffix) else len(self))


def _segments_of(text: str) -> tuple[Segment, ...]:
    return text.segments if isinstance(text, RenderedText) else (Segment(str(text)),)


def _joined(first: tuple[Segment, ...], second: tuple[Segment, ...]) -> list[Segment]:
    """One after the other; text that follows text becomes one with it, as it is in the string."""
    if first and second and not first[-1].control and not second[0].control:
        middle = Segment(first[-1].text + second[0].text, learn=first[-1].learn)
        return [*first[:-1], middle, *second[1:]]
    return [*first, *second]
