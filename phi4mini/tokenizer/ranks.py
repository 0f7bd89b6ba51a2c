"""The o200k_base vocabulary shipped inside the package: 199,998 byte strings; the BPE rank of each is its id.

Promises the same strings, in the same order, as OpenAI's `o200k_base.tiktoken` (MIT); `tiktoken_file` writes that file
back byte for byte and a test checks its sha256. The shipped file is xz over three arrays: the length of every token
(1 byte), the length of the left half of the merge that makes it (1 byte, 0 for single bytes), and the tokens' bytes.
These split points cost 78 KB and save 1.3 s at every start: the time to derive 199,742 merges from the ranks.
Knows nothing of Phi's own tokens (`phi4.py`).
"""

from __future__ import annotations

import base64
import lzma
from itertools import accumulate
from pathlib import Path

from phi4mini.tokenizer.bytelevel import to_chars

COUNT = 199_998
SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"  # of o200k_base.tiktoken
PATH = Path(__file__).with_name("o200k_base.xz")


def _arrays() -> tuple[bytes, bytes, bytes]:
    """Lengths (COUNT,), split points (COUNT,) and the tokens' bytes, concatenated."""
    raw = lzma.decompress(PATH.read_bytes())
    return raw[:COUNT], raw[COUNT : 2 * COUNT], raw[2 * COUNT :]


def token_strings() -> tuple[list[str], bytes]:
    """All tokens by id, in the byte-level alphabet, and the split point of each (0: a single byte, no merge)."""
    lengths, splits, body = _arrays()
    text = to_chars(body)
    return [text[end - length : end] for end, length in zip(accumulate(lengths), lengths, strict=True)], splits


def vocabulary_and_merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token to id, and the merges in order of rank, as HF's BPE takes them."""
    tokens, splits = token_strings()
    merges = [(token[:at], token[at:]) for token, at in zip(tokens, splits, strict=True) if at]
    return dict(zip(tokens, range(COUNT), strict=True)), merges


def tiktoken_file() -> bytes:
    """The raw `o200k_base.tiktoken`: for each token a line with its bytes in base64 and its rank."""
    lengths, _, body = _arrays()
    ends = accumulate(lengths)
    return b"".join(
        base64.b64encode(body[end - length : end]) + b" %d\n" % rank
        for rank, (end, length) in enumerate(zip(ends, lengths, strict=True))
    )
