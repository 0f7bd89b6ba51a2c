"""One added token: an id outside the BPE vocabulary, with its text and HF's five flags.

HF cuts added tokens out of a text before BPE. Promises HF's meaning of the flags. Knows no vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken as BackendToken

from phi4mini.errors import BadCheckpoint

_FLAGS = ("special", "rstrip", "lstrip", "single_word", "normalized")
MOST_ROWS = 1 << 24  # no real vocabulary is that large; a larger id is an error in the file


@dataclass(frozen=True)
class AddedToken:
    """An id with its text and HF's five flags; `rstrip` also takes the whitespace to the right of the token."""

    id: int
    content: str
    special: bool = False
    rstrip: bool = False
    lstrip: bool = False
    single_word: bool = False
    normalized: bool = False

    def to_backend(self) -> BackendToken:
        """The same token as an object of HF `tokenizers`."""
        return BackendToken(self.content, **{flag: getattr(self, flag) for flag in _FLAGS})

    def to_json(self) -> dict[str, Any]:
        """The entry of a tokenizer.json's `added_tokens` list."""
        return {"id": self.id, "content": self.content, **{flag: getattr(self, flag) for flag in _FLAGS}}

    @classmethod
    def from_json(cls, item: Any) -> AddedToken:
        """Read an entry of `added_tokens`. Raises BadCheckpoint for an entry without a possible id or text."""
        if not isinstance(item, dict) or type(item.get("id")) is not int or not isinstance(item.get("content"), str):
            raise BadCheckpoint(f"tokenizer: an added token needs an integer id and a text, got {str(item)[:80]!r}")
        text = item["content"]
        if not text or not 0 <= item["id"] < MOST_ROWS or any("\ud800" <= char <= "\udfff" for char in text):
            raise BadCheckpoint(f"tokenizer: the added token {text!r} with id {item['id']} is not possible")
        return cls(item["id"], item["content"], **{flag: bool(item.get(flag, False)) for flag in _FLAGS})


def check_places(
    added: Sequence[AddedToken], entry: Callable[[int], str | None], place: Callable[[str], int | None]
) -> None:
    """Check that each added token has one id and shares it with no other token. Raises BadCheckpoint.

    `entry` gives the vocabulary's token of an id; `place` the vocabulary's id of a token.
    """
    by_id: dict[int, str] = {}
    for token in added:
        there = by_id.get(token.id, entry(token.id))
        if there is not None and there != token.content:
            raise BadCheckpoint(f"the added token {token.content!r} has id {token.id}, which is that of {there!r}")
        own = place(token.content)
        if own is not None and own != token.id:
            raise BadCheckpoint(
                f"the added token {token.content!r} has id {token.id}, its place in the vocabulary is {own}"
            )
        by_id[token.id] = token.content
