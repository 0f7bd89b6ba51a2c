"""Phi-4-mini's own tokenizer, made from the vocabulary shipped inside the package.

Promises the ids of Phi-4-mini's tokenizer.json without reading a file; tokens that a fine-tune added are accepted only
in the free rows of the embedding. Knows no file format (`tokenizer_json.py`, `gguf_bpe.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from phi4mini.errors import BadCheckpoint
from phi4mini.tokenizer import phi4
from phi4mini.tokenizer.added_token import AddedToken
from phi4mini.tokenizer.plain_bpe import Phi4Bpe
from phi4mini.tokenizer.tokenizer import Tokenizer
from phi4mini.tokenizer.tokenizer_config import with_flags


def phi4_mini(extra: Sequence[AddedToken] = (), rows: int = phi4.ROWS) -> Tokenizer:
    """Phi-4-mini's own tokenizer; needs no file and no network.

    `extra`: tokens added to the free rows; one with the id of Phi's own added token replaces that token's flags.
    """
    added = {token.id: token for token in (*phi4.ADDED, *extra)}
    return Tokenizer(
        Phi4Bpe(),
        tuple(added.values()),
        rows=rows,
        bos_id=phi4.ENDOFTEXT,
        eos_ids=(phi4.END, phi4.ENDOFTEXT),
        pad_id=phi4.ENDOFTEXT,
        is_phi4=True,
    )


def phi4_mini_with(config: dict[str, Any], rows: int) -> Tokenizer:
    """The shipped tokenizer and the tokens that tokenizer_config.json adds, for a folder without tokenizer.json.

    Raises BadCheckpoint for a listed token whose id is neither Phi's own for that token nor the next free row.
    """
    extra = phi4.extra(with_flags(list(phi4.ADDED), config))
    taken = {token.content: token.id for token in phi4.ADDED} | phi4.PLACEHOLDERS
    for token in extra:
        if taken.get(token.content) != token.id and not phi4.FIRST_FREE <= token.id < rows:
            raise BadCheckpoint(
                f"the added token {token.content!r} has id {token.id}; "
                f"free are {phi4.FIRST_FREE} to {rows - 1} of Phi-4-mini's vocabulary"
            )
    new = [token for token in extra if token.content not in taken]
    for next_free, token in enumerate(new, phi4.FIRST_FREE):
        if token.id != next_free:  # HF numbers added tokens consecutively, whatever ids the file gives
            raise BadCheckpoint(
                f"the added token {token.content!r} has id {token.id}, the next free row is {next_free}"
            )
    return phi4_mini(extra, rows)
