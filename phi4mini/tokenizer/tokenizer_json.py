"""A checkpoint's tokenizer.json, read.

Promises that Phi-4-mini's own vocabulary is recognised and replaced by the shipped one (a blob of 150 bytes in a model
file instead of 6 MB), that flags in tokenizer_config.json override those in tokenizer.json as in HF transformers, and
that a model type or decoder which would be tokenised wrongly is refused by name. Encodes no text itself.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import models

from phi4mini.errors import BadCheckpoint
from phi4mini.tokenizer import phi4, ranks
from phi4mini.tokenizer.added_token import AddedToken
from phi4mini.tokenizer.plain_bpe import BackendBpe
from phi4mini.tokenizer.shipped import phi4_mini
from phi4mini.tokenizer.tokenizer import Tokenizer
from phi4mini.tokenizer.tokenizer_config import with_flags

_BPE_OPTIONS = (
    *("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"),
    *("fuse_unk", "byte_fallback", "ignore_merges"),
)


def from_json(
    data: bytes | str | dict[str, Any], config: dict[str, Any] | None = None, rows: int | None = None
) -> Tokenizer:
    """The tokenizer of a checkpoint: its tokenizer.json and, where it has one, tokenizer_config.json.

    `config` gives flags and the BOS, EOS and pad tokens; `rows` is the model's vocab_size, by default the number of
    tokens. Raises BadCheckpoint.
    """
    tree = _parse(data)
    config = config or {}
    added = with_flags(added_tokens(tree), config)
    if _is_phi4(tree, added):
        return phi4_mini(phi4.extra(added), rows or phi4.ROWS)
    backend = _backend_of(tree)
    ids = {token.content: token.id for token in added}

    def named(key: str) -> int | None:
        token = config.get(key)
        text = token.get("content") if isinstance(token, dict) else token
        return None if not isinstance(text, str) else ids.get(text, backend.token_to_id(text))

    eos = named("eos_token")
    return Tokenizer(
        BackendBpe(backend),
        added,
        rows=rows or max([backend.get_vocab_size() - 1, *ids.values()]) + 1,
        bos_id=named("bos_token"),
        eos_ids=() if eos is None else (eos,),
        pad_id=named("pad_token"),
        byte_level=is_byte_level(tree),
    )


def _parse(data: bytes | str | dict[str, Any]) -> dict[str, Any]:
    if not isinstance(data, dict):
        try:
            data = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadCheckpoint(f"tokenizer.json is not JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise BadCheckpoint("tokenizer.json has no model")
    kind = data["model"].get("type", "BPE")
    if kind != "BPE":
        raise BadCheckpoint(f"tokenizer.json: model type {kind!r} is not supported, only BPE")
    return data


def added_tokens(tree: dict[str, Any]) -> list[AddedToken]:
    """The added tokens of a parsed tokenizer.json. Raises BadCheckpoint."""
    items = tree.get("added_tokens") or []
    if not isinstance(items, list):
        raise BadCheckpoint("tokenizer.json: added_tokens must be a list")
    return [AddedToken.from_json(item) for item in items]


def _backend_of(tree: dict[str, Any]) -> Backend:
    """HF's tokenizer without the added tokens and without a template that would add BOS or EOS."""
    # passing the vocabulary as Python objects takes half the time of writing it as JSON a second time
    empty = {**tree["model"], "vocab": {}, "merges": [], "unk_token": None}
    bare = {**tree, "model": empty, "added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    try:
        backend = Backend.from_str(json.dumps(bare))
        options = {key: tree["model"][key] for key in _BPE_OPTIONS if tree["model"].get(key) is not None}
        merges = [_pair(merge) for merge in tree["model"].get("merges") or ()]
        backend.model = models.BPE(tree["model"]["vocab"], merges, **options)
        return backend
    except Exception as error:  # the Rust library raises bare Exception
        raise BadCheckpoint(f"tokenizer.json cannot be used: {str(error)[:200]}") from None


def is_byte_level(tree: dict[str, Any]) -> bool:
    """True for byte-level, False for SentencePiece with byte fallback. Raises BadCheckpoint for another decoder."""
    decoder = tree.get("decoder") or {}
    steps = decoder.get("decoders", [decoder]) if decoder.get("type") == "Sequence" else [decoder]
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        return True
    if kinds == ["Replace", "ByteFallback", "Fuse", "Strip"]:
        return False
    raise BadCheckpoint(f"tokenizer.json: decoder {kinds} is not supported, only ByteLevel and SentencePiece's")


def _is_phi4(tree: dict[str, Any], added: list[AddedToken]) -> bool:
    """True if this is Phi-4-mini's own tokenizer, entry by entry; tokens in its free rows are allowed."""
    model, patterns = tree["model"], _patterns(tree.get("pre_tokenizer"))
    if tree.get("normalizer") or model.get("ignore_merges") or phi4.SPLIT not in patterns:
        return False
    if not set(phi4.ADDED) <= set(added):
        return False
    vocabulary, merges = ranks.vocabulary_and_merges()
    known = vocabulary | phi4.PLACEHOLDERS | {token.content: token.id for token in phi4.ADDED}
    given, listed = model.get("vocab"), model.get("merges")
    if not isinstance(given, dict) or not isinstance(listed, list):
        return False
    if not vocabulary.items() <= given.items() <= (known | {token.content: token.id for token in added}).items():
        return False
    return [_pair(merge) for merge in listed] == merges


def _pair(merge: Any) -> Any:
    """A merge of a tokenizer.json as a pair: old files write "left right", new ones a list of two."""
    return tuple(merge.split(" ") if isinstance(merge, str) else merge) if isinstance(merge, (str, list)) else None


def _patterns(pre_tokenizer: Any) -> list[str]:
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer]) if isinstance(pre_tokenizer, dict) else []
    patterns = [step.get("pattern") for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    return [pattern["Regex"] for pattern in patterns if isinstance(pattern, dict) and "Regex" in pattern]
