"""GPT-2's byte-level alphabet: one printable character for each of the 256 bytes, to write byte strings as text.

Promises that `CHARS[b]` is the character of byte b and `BYTES[c]` the byte of character c, one to one.
Knows no vocabulary and no model.
"""

from __future__ import annotations

import codecs


def _alphabet() -> str:
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    shifted = iter(range(0x100, 0x200))  # bytes without a printable form take the next free code point, in order
    return "".join(chr(b if b in printable else next(shifted)) for b in range(256))


CHARS = _alphabet()
BYTES = {char: byte for byte, char in enumerate(CHARS)}


def to_chars(data: bytes) -> str:
    """`data` in the byte-level alphabet, one character for each byte."""
    return codecs.charmap_decode(data, "strict", CHARS)[0]


def to_bytes(token: str) -> bytes:
    """Bytes of a vocabulary entry; an entry with characters outside the alphabet (a space, say) is encoded as UTF-8."""
    try:
        return bytes([BYTES[char] for char in token])
    except KeyError:
        return token.encode("utf-8", "replace")
