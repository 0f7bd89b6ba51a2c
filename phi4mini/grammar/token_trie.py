"""The vocabulary as llguidance's trie: the bytes of every id, control tokens apart.

Promises that ids to which no text encodes (free rows, placeholders) can never be chosen, and that forced text is
tokenised as the model's tokenizer does it. Knows no grammar.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from phi4mini.errors import BadInput
from phi4mini.tokenizer import Tokenizer
from phi4mini.tokenizer.phi4 import PLACEHOLDERS

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_PROBE = '{"a": [1, "b c"]}' * 200  # long enough that the tokenizer builds HF's BPE now and not during a request


class _Adapter:
    """The interface that llguidance's TokenizerWrapper expects of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_id: int) -> None:
        out_of_reach = set(PLACEHOLDERS.values()) if tokenizer.is_phi4 else set()
        out_of_reach -= {token.id for token in tokenizer.added_tokens}
        known = range(min(vocab_size, tokenizer.vocab_size))
        self.tokens = [b"" if id in out_of_reach else tokenizer.token_bytes(id) for id in known]
        self.tokens += [b""] * (vocab_size - len(self.tokens))
        self.special_token_ids = sorted(id for id in tokenizer.control_ids if id < vocab_size)
        self.eos_token_id = end_id
        self.bos_token_id = None
        self._encode = tokenizer.encode

    def __call__(self, text: bytes | str) -> list[int]:
        return self._encode(text.decode("utf-8") if isinstance(text, bytes) else text)


def build(tokenizer: Tokenizer, vocab_size: int, end_ids: Sequence[int]) -> LLTokenizer:
    """Build the trie. Raises BadInput if llguidance is not installed, or if decoding does not give the text back."""
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ModuleNotFoundError:
        raise BadInput("structured output needs llguidance: pip install 'phi4mini[serve]'") from None
    if b"".join(map(tokenizer.token_bytes, tokenizer.encode(_PROBE))) != _PROBE.encode():
        raise BadInput("structured output needs tokens that spell text exactly; this model's tokenizer adds to it")
    adapter = TokenizerWrapper(_Adapter(tokenizer, vocab_size, end_ids[0]))
    return LLTokenizer(adapter, vocab_size, list(end_ids), LLTokenizer.json_slices())
