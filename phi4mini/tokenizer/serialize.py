"""A tokenizer as bytes and back: the blob inside our model file.

Promises that `from_bytes(to_bytes(t))` encodes and decodes as `t`; that Phi-4-mini's blob names the shipped vocabulary
by its sha256 and holds only the tokens added to it; that a blob made with another vocabulary is refused. Knows nothing
of the file around the blob.
"""

from __future__ import annotations

import json
from typing import Any

from phi4mini.errors import BadCheckpoint
from phi4mini.tokenizer import phi4, ranks
from phi4mini.tokenizer.added_token import AddedToken
from phi4mini.tokenizer.shipped import phi4_mini
from phi4mini.tokenizer.tokenizer import Tokenizer
from phi4mini.tokenizer.tokenizer_json import from_json

_VERSION = 1


def to_bytes(tokenizer: Tokenizer) -> bytes:
    """One self-contained blob for a model file: 150 bytes for Phi-4-mini, else the whole vocabulary."""
    head: dict[str, Any] = {"version": _VERSION, "rows": tokenizer.vocab_size}
    if tokenizer.is_phi4:
        extra = [token.to_json() for token in phi4.extra(tokenizer.added_tokens)]
        return json.dumps({**head, "kind": "phi4_mini", "ranks_sha256": ranks.SHA256, "added": extra}).encode()
    head |= {"unused": sorted(tokenizer.unused_ids)} if tokenizer.unused_ids else {}
    ids = {"bos_id": tokenizer.bos_id, "eos_ids": list(tokenizer.eos_ids), "pad_id": tokenizer.pad_id}
    return json.dumps({**head, "kind": "json", **ids, "tokenizer": json.loads(tokenizer.to_json())}).encode()


def from_bytes(data: bytes) -> Tokenizer:
    """The tokenizer that `to_bytes` wrote. Raises BadCheckpoint for a damaged blob or another vocabulary."""
    try:
        tree = json.loads(data)
        kind, version, rows = tree["kind"], tree["version"], tree["rows"]
        if version != _VERSION:
            raise BadCheckpoint(f"the stored tokenizer has version {version}, this program reads {_VERSION}")
        return _from_phi4(tree, rows) if kind == "phi4_mini" else _from_tree(tree, rows)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadCheckpoint(f"the stored tokenizer is damaged: {type(error).__name__} {str(error)[:100]}") from None


def _from_phi4(tree: dict[str, Any], rows: int) -> Tokenizer:
    if tree["ranks_sha256"] != ranks.SHA256:
        raise BadCheckpoint("the stored tokenizer was made with another o200k_base vocabulary than the shipped one")
    return phi4_mini([AddedToken.from_json(item) for item in tree["added"]], rows)


def _from_tree(tree: dict[str, Any], rows: int) -> Tokenizer:
    made = from_json(tree["tokenizer"], None, rows)
    made.unused_ids = frozenset(tree.get("unused", ()))
    made.bos_id, made.eos_ids, made.pad_id = tree["bos_id"], tuple(tree["eos_ids"]), tree["pad_id"]
    return made
