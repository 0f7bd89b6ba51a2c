"""Text to ids and back: `Tokenizer`, the functions that make one, and `TextStream`, the streaming decoder.

`phi4_mini()` needs no file; `from_json` reads a checkpoint's tokenizer.json, `from_bpe` the lists of a GGUF,
`from_bytes` the blob that `to_bytes` made.
"""

from __future__ import annotations

from phi4mini.tokenizer.added_token import AddedToken
from phi4mini.tokenizer.gguf_bpe import from_bpe
from phi4mini.tokenizer.serialize import from_bytes, to_bytes
from phi4mini.tokenizer.shipped import phi4_mini
from phi4mini.tokenizer.text_stream import TextStream
from phi4mini.tokenizer.tokenizer import WHITE_SPACE, Tokenizer
from phi4mini.tokenizer.tokenizer_json import from_json

__all__ = [
    "WHITE_SPACE",
    "AddedToken",
    "TextStream",
    "Tokenizer",
    "from_bpe",
    "from_bytes",
    "from_json",
    "phi4_mini",
    "to_bytes",
]
