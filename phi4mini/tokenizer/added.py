"""One added token: cut out of the text before BPE when specials are parsed, never made from plain text.

Promises HF's meaning of the flags. Knows no vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken as BackendToken

from phi4mini.errors import BadCheckpoint

_FLAGS = ("special", "rstrip", "lstrip", "single_word", "normalized")
MOST_ROWS = 1 << 24  # no vocabulary is that large; ids beyond are lies


@dataclass(frozen=True)
class AddedToken:
    """An id with its text and HF's five flags; `rstrip` swallows the white space to its right."""

    id: int
    content: str
    special: bool = False
    rstrip: bool = False
    lstrip: bool = False
    single_word: bool = False
    normalized: bool = False

    def to_backend(self) -> BackendToken:
        """The same token for HF `tokenizers`."""
        return BackendToken(self.content, **{flag: getattr(self, flag) for flag in _FLAGS})

    def to_json(self) -> dict[str, Any]:
        """As in the `added_tokens` list of a tokenizer.json."""
        return {"id": self.id, "content": self.content, **{flag: getattr(self, flag) for flag in _FLAGS}}

    @classmethod
    def from_json(cls, item: Any) -> AddedToken:
        """From an entry of `added_tokens`. Raises BadCheckpoint when it has no id or text."""
        if not isinstance(item, dict) or type(item.get("id")) is not int or not isinstance(item.get("content"), str):
            raise BadCheckpoint(f"tokenizer: an added token needs an integer id and a text, got {str(item)[:80]!r}")
        text = item["content"]
        if not text or not 0 <= item["id"] < MOST_ROWS or any("\ud800" <= char <= "\udfff" for char in text):
            raise BadCheckpoint(f"tokenizer: the added token {text!r} with id {item['id']} is not possible")
        return cls(item["id"], item["content"], **{flag: bool(item.get(flag, False)) for flag in _FLAGS})


def check_places(
    added: Sequence[AddedToken], entry: Callable[[int], str | None], place: Callable[[str], int | None]
) -> None:
    """Every added token has an id of its own, and one only. Raises BadCheckpoint.

    `entry`: what the vocabulary has at an id; `place`: where it has a text.
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
