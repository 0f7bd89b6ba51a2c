"""The constants of Phi-4-mini's tokenizer: the o200k split, the twelve added tokens, the placeholders, the free rows.

Promises the ids and flags of the model's own tokenizer_config.json. Encodes nothing (`tokenizer.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, pre_tokenizers

from phi4mini.tokenizer.added_token import AddedToken

ROWS = 200_064  # rows of the embedding table
FIRST_FREE = 200_029  # the last 35 rows belong to no token
ENDOFTEXT, END = 199_999, 200_020

# The split of o200k_base: a word with at most one leading sign, up to three digits, signs, line ends, whitespace.
SPLIT = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)

_ROLE_TOKENS = ("<|assistant|>", "<|end|>", "<|user|>", "<|system|>")
_TOOL_TOKENS = ("<|tool|>", "<|/tool|>", "<|tool_call|>", "<|/tool_call|>", "<|tool_response|>")

# The five tool tokens are special=False: they survive skip_special_tokens, as in HF.
ADDED = (
    AddedToken(ENDOFTEXT, "<|endoftext|>", special=True),
    AddedToken(200_018, "<|endofprompt|>", special=True),
    *(AddedToken(200_019 + i, text, special=True, rstrip=True) for i, text in enumerate(_ROLE_TOKENS)),
    *(AddedToken(200_023 + i, text, special=False, rstrip=True) for i, text in enumerate(_TOOL_TOKENS)),
    AddedToken(200_028, "<|tag|>", special=True, rstrip=True),
)

# In the vocabulary, and decoded to their text, but no merge makes them: no text encodes to one of these ids.
PLACEHOLDERS = {
    "<|endoftext98|>": 199_998,
    "<|endoftext|>": ENDOFTEXT,
    **{f"<|endoftext{i:02}|>": 200_000 + i for i in range(18)},
    "<|endofprompt|>": 200_018,
}


def extra(added: Iterable[AddedToken]) -> list[AddedToken]:
    """The tokens of `added` that are not Phi-4-mini's own: those of a user or a fine-tune."""
    return [token for token in added if token not in ADDED]


def pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """HF's pre-tokenizer: the o200k split, then bytes to the byte-level alphabet."""
    split = pre_tokenizers.Split(Regex(SPLIT), "removed", invert=True)
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
