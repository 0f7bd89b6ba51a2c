"""A GGUF's vocabulary (lists of tokens, merges and token types) as a tokenizer.

Promises that Phi-4-mini's vocabulary is recognised and replaced by the shipped one, and that a pre-tokenizer which is
not known is refused by name: a wrong split is a wrong tokenizer. Reads no file (`weights/checkpoints/gguf_model.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from phi4mini.errors import BadCheckpoint
from phi4mini.tokenizer import phi4, ranks
from phi4mini.tokenizer.added_token import AddedToken
from phi4mini.tokenizer.plain_bpe import BackendBpe
from phi4mini.tokenizer.shipped import phi4_mini
from phi4mini.tokenizer.tokenizer import Tokenizer

_CONTROL, _USER_DEFINED = 3, 4  # GGUF token types that become added tokens
_UNUSED = 5  # a row without a token; converters name it [PAD7] or similar
_LLAMA3_TOKENS = {"<|begin_of_text|>": 128_000, "<|end_of_text|>": 128_001, "<|eot_id|>": 128_009}
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def from_bpe(
    tokens: Sequence[str],
    merges: Sequence[str],
    token_types: Sequence[int] | None = None,
    *,
    pre: str | None,
    bos_id: int | None = None,
    eos_ids: Sequence[int] = (),
    pad_id: int | None = None,
    rows: int | None = None,
) -> Tokenizer:
    """The tokenizer of a GGUF: `tokens` by id, `merges` as "left right", one of `token_types` for each token.

    Type 3 (control) and type 4 (user-defined) become added tokens, type 5 (unused) a free row. `pre` names the split
    (`tokenizer.ggml.pre`); None is accepted for Phi-4-mini's and Llama 3's vocabularies, which are recognised by their
    tokens. Raises BadCheckpoint when the split is unknown or the lists contradict each other.
    """
    tokens = list(tokens)
    pre = _pre_of(tokens) if pre in (None, "", "default") else pre
    split = _split_named(pre)
    kinds = [1] * len(tokens) if token_types is None else [int(kind) for kind in token_types]
    if len(kinds) != len(tokens):
        raise BadCheckpoint(f"the GGUF has {len(tokens)} tokens but {len(kinds)} token types")
    added = [
        AddedToken(id, token, special=kind == _CONTROL)
        for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    if pre == "gpt-4o" and _has_phi4_tokens(tokens):
        return phi4_mini([token for token in added if token.id >= phi4.FIRST_FREE], rows or phi4.ROWS)
    unused = {id for id, kind in enumerate(kinds) if kind == _UNUSED}
    used = max((id for id in range(len(tokens)) if id not in unused), default=-1) + 1  # the rest are free rows
    backend = Backend(_bpe(tokens[:used], merges, ignore_merges=pre == "llama-bpe"))
    backend.pre_tokenizer, backend.decoder = split, decoders.ByteLevel()
    ids: dict[str, Any] = {"bos_id": bos_id, "eos_ids": eos_ids, "pad_id": pad_id}
    unused = {id for id in unused if id < used}
    return Tokenizer(BackendBpe(backend), added, rows=rows or len(tokens), **ids, unused=unused)


def _pre_of(tokens: list[str]) -> str:
    """The split for a GGUF that names none, told from its vocabulary. Raises BadCheckpoint if unknown."""
    if _has_phi4_tokens(tokens):
        return "gpt-4o"
    if len(tokens) >= 128_256 and all(tokens[id] == text for text, id in _LLAMA3_TOKENS.items()):
        return "llama-bpe"
    raise BadCheckpoint(
        "the GGUF does not name its pre-tokenizer (tokenizer.ggml.pre), and its vocabulary is neither Phi-4-mini's nor "
        "Llama 3's, whose split would be known"
    )


def _bpe(tokens: list[str], merges: Sequence[str], ignore_merges: bool) -> models.BPE:
    vocabulary = {token: id for id, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise BadCheckpoint(f"the GGUF has {len(tokens)} tokens, only {len(vocabulary)} of them different")
    odd = next((merge for merge in merges if merge.count(" ") != 1), None)
    if odd is not None:
        raise BadCheckpoint(f"the GGUF has a merge that is not two tokens: {odd!r}")
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    try:
        return models.BPE(vocabulary, pairs, ignore_merges=ignore_merges)
    except Exception as error:  # the Rust library raises bare Exception
        raise BadCheckpoint(f"the GGUF's merges do not fit its tokens: {str(error)[:200]}") from None


def _has_phi4_tokens(tokens: list[str]) -> bool:
    named = [*phi4.PLACEHOLDERS.items(), *((token.content, token.id) for token in phi4.ADDED)]
    if len(tokens) < phi4.FIRST_FREE or any(tokens[id] != text for text, id in named):
        return False
    return tokens[: ranks.COUNT] == ranks.token_strings()[0]


def _split_named(pre: str) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer behind a GGUF's `tokenizer.ggml.pre`; GPT-2's own regex is inside ByteLevel."""
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    to_chars = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if pre == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    if pre == "gpt-2":
        return gpt2
    if pre == "gpt-4o":
        return phi4.pre_tokenizer()
    if pre == "llama-bpe":
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), "isolated"), to_chars])
    raise BadCheckpoint(f"the GGUF's pre-tokenizer {pre!r} is not supported (known: smollm, gpt-2, gpt-4o, llama-bpe)")
