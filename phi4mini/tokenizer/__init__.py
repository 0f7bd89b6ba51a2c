"""Text to ids and back: `Tokenizer`, and `TextStream`, its streaming decoder."""

from __future__ import annotations

from phi4mini.tokenizer.added import AddedToken
from phi4mini.tokenizer.stream import TextStream
from phi4mini.tokenizer.tokenizer import WHITE_SPACE, Tokenizer

__all__ = ["WHITE_SPACE", "AddedToken", "TextStream", "Tokenizer"]
