"""Streaming decoder: ids to text one id at a time, each character as soon as it is complete.

Promises that the pieces joined, `flush()` included, equal `decode` of all ids, broken UTF-8 included, and that no piece
ends inside a character. Knows the bytes or the piece of an id, no vocabulary.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Protocol


class TextStream(Protocol):
    """A decoder that holds an incomplete character until its last byte arrives."""

    def push(self, id: int) -> str:
        """The text that this id completes; empty while a character is incomplete."""

    def flush(self) -> str:
        """The rest of the text, U+FFFD for an incomplete character; the stream can then be used for a new text."""


class ByteStream:
    """For byte-level vocabularies: the bytes of the ids joined and read as UTF-8, U+FFFD for each broken part."""

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
    """For SentencePiece vocabularies: `<0xNN>` is a byte, other pieces are text; one leading space is dropped.

    As HF's ByteFallback decoder: a run of byte pieces is text if the whole run is UTF-8, else one U+FFFD for each byte.
    A run is therefore held until it ends.
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
