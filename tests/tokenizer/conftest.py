"""Tokenizers shared by the tests of this room: ours, and HF's own built apart from it as the reference."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from phi4mini.tokenizer import Tokenizer, phi4_mini, ranks
from phi4mini.tokenizer.bytelevel import to_chars
from scripts.build_ranks import split_point

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """Vectors made with HF tokenizers from the model's own files."""
    return json.loads((HERE / "golden.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def config() -> dict[str, Any]:
    """The model's own tokenizer_config.json."""
    return json.loads((HERE / "tokenizer_config.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def shared_phi() -> Tokenizer:
    """Phi-4-mini's tokenizer; do not add tokens to it."""
    return phi4_mini()


@pytest.fixture
def phi() -> Tokenizer:
    """One of its own for tests that change it."""
    return phi4_mini()


@pytest.fixture(scope="session")
def reference(golden: dict[str, Any], config: dict[str, Any]) -> tokenizers.Tokenizer:
    """HF's tokenizer from the raw ranks, merges derived anew, added tokens as tokenizer_config.json has them."""
    tokens = [base64.b64decode(line.split()[0]) for line in ranks.tiktoken_file().splitlines()]
    rank_of = {token: rank for rank, token in enumerate(tokens)}
    merges = []
    for rank, token in enumerate(tokens):
        if at := split_point(token, rank, rank_of):
            merges.append((to_chars(token[:at]), to_chars(token[at:])))
    vocabulary = {to_chars(token): rank for rank, token in enumerate(tokens)}
    names = ["<|endoftext98|>", "<|endoftext|>", *(f"<|endoftext{i:02}|>" for i in range(18)), "<|endofprompt|>"]
    vocabulary |= {name: ranks.COUNT + i for i, name in enumerate(names)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(golden["pattern"]), "removed", invert=True)
    to_bytes = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, to_bytes])
    made.decoder = tokenizers.decoders.ByteLevel()
    for entry in config["added_tokens_decoder"].values():
        made.add_tokens([tokenizers.AddedToken(entry["content"], **{k: v for k, v in entry.items() if k != "content"})])
    return made
