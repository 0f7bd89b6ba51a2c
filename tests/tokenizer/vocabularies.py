"""Small vocabularies for tests: every byte, a few merges, control tokens; nothing to download."""

from __future__ import annotations

from phi4mini.tokenizer import Tokenizer, from_bpe
from phi4mini.tokenizer.bytelevel import CHARS

CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("h e", "l l", "he ll", "hell o", "Ġ w")


def small(pre: str = "gpt-2", control: tuple[str, ...] = CHATML, merges: tuple[str, ...] = MERGES) -> Tokenizer:
    """The 256 bytes at ids 0 to 255, then what the merges make, then the control tokens."""
    tokens = [*CHARS, *(merge.replace(" ", "") for merge in merges), *control]
    types = [1] * (len(tokens) - len(control)) + [3] * len(control)
    return from_bpe(tokens, merges, types, pre=pre)
