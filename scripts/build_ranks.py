"""Rebuild the packed vocabulary of the package from OpenAI's `o200k_base.tiktoken` (raw or .xz).

    python scripts/build_ranks.py SOURCE [TARGET]

Promises to write only what it has verified: the source's sha256, and that every token has exactly one merge that makes
it at its rank, which is what turns ranks into BPE merges. Knows the layout of `phi4mini/tokenizer/ranks.py`, no model.
"""

from __future__ import annotations

import base64
import hashlib
import lzma
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from phi4mini.tokenizer import ranks


def read_tokens(source: Path) -> list[bytes]:
    """Tokens by rank. Exits with one line when the file is not the o200k_base that we ship."""
    raw = source.read_bytes()
    raw = lzma.decompress(raw) if source.suffix == ".xz" else raw
    digest = hashlib.sha256(raw).hexdigest()
    if digest != ranks.SHA256:
        sys.exit(f"{source}: sha256 is {digest}, o200k_base.tiktoken has {ranks.SHA256}")
    return [base64.b64decode(line.split()[0]) for line in raw.splitlines()]


def split_point(token: bytes, rank: int, rank_of: dict[bytes, int]) -> int:
    """Length of the left half of the last merge: BPE of the token with the lower ranks only leaves two parts."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [(rank_of.get(parts[i] + parts[i + 1], rank), i) for i in range(len(parts) - 1)]
        best, i = min(pairs)
        if best >= rank:
            sys.exit(f"token {rank} {token!r} cannot be made by merging tokens of lower rank")
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return len(parts[0]) if len(parts) == 2 else 0


def pack(tokens: list[bytes]) -> bytes:
    """The packed file: xz over lengths, split points and bytes."""
    rank_of = {token: rank for rank, token in enumerate(tokens)}
    splits = bytes(split_point(token, rank, rank_of) for rank, token in enumerate(tokens))
    raw = bytes(map(len, tokens)) + splits + b"".join(tokens)
    # lc=4, pb=0: bytes of text depend on the byte before, not on their position; 2 % smaller than the preset
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]
    return lzma.compress(raw, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=filters)


def main(arguments: list[str]) -> None:
    """Command line: SOURCE, and TARGET when it is not the package's own file."""
    if len(arguments) not in (1, 2):
        sys.exit("usage: build_ranks.py SOURCE [TARGET]")
    target = Path(arguments[1]) if len(arguments) == 2 else ranks.PATH
    packed = pack(read_tokens(Path(arguments[0])))
    target.write_bytes(packed)
    print(f"{target}: {len(packed)} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
