"""Ids to text, one id at a time: what is pushed comes out as soon as its characters are whole.

Promises that the pieces joined, `flush()` included, are exactly `decode` of all ids, broken UTF-8 included, and that no
piece holds half a character. `decode` itself runs on these classes, so there is one definition.
Knows tokens as bytes or pieces, no vocabulary.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Protocol


class TextStream(Protocol):
    """A decoder with memory."""

    def push(self, id: int) -> str:
        """Text that became whole with this id; often empty inside a character."""

    def flush(self) -> str:
        """What is left, as U+FFFD where a character was never finished; the stream starts anew."""


class ByteStream:
    """Byte-level vocabularies: the ids' bytes on end, read as UTF-8, each broken part one U+FFFD."""

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        return self._utf8.decode(self._bytes_of(id))

    def flush(self) -> str:
        rest = self._utf8.decode(b"", True)
        self._utf8.reset()
        return rest


class PieceStream:
    """SentencePiece vocabularies: pieces with U+2581 for a space, `<0xNN>` for a byte, one space cut at the start.

    As HF's ByteFallback decoder: a run of byte pieces is text when the whole run is UTF-8, else one U+FFFD a byte. So a
    run is held until it ends.
    """

    def __init__(self, piece_of: Callable[[int], str | bytes]) -> None:
        self._piece_of = piece_of
        self._run = bytearray()
        self._at_start = True

    def push(self, id: int) -> str:
        piece = self._piece_of(id)
        if isinstance(piece, bytes):
            self._run += piece
            return ""
        return self._first_space_cut(self._end_run() + piece)

    def flush(self) -> str:
        rest = self._first_space_cut(self._end_run())
        self._at_start = True
        return rest

    def _end_run(self) -> str:
        run, self._run = bytes(self._run), bytearray()
        try:
            return run.decode("utf-8")
        except UnicodeDecodeError:
            return "\ufffd" * len(run)

    def _first_space_cut(self, text: str) -> str:
        if self._at_start and text:
            self._at_start = False
            return text.removeprefix(" ")
        return text
