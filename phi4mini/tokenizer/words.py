"""Added tokens put to work: HF's tokenizer with them, and the words among them that plain text is cut at.

A fine-tune that adds `covid19` has seen one id for it wherever it stood, so plain text must give that id. Promises that
a text without such a word costs a search for it and nothing else. Knows no control tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property

from tokenizers import Tokenizer as Backend

from phi4mini.errors import BadCheckpoint
from phi4mini.tokenizer.added import AddedToken
from phi4mini.tokenizer.core import BackendCore, Core

_MOST_SEARCHED = 64  # words that are searched for one by one; HF's own search is quicker for more


def with_added(plain: Backend, added: Iterable[AddedToken]) -> Backend:
    """HF's tokenizer with the added tokens; it shares the vocabulary with `plain`. Raises BadCheckpoint."""
    made = Backend(plain.model)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if getattr(plain, part) is not None:
            setattr(made, part, getattr(plain, part))
    for token in sorted(added, key=lambda token: token.id):
        made.add_tokens([token.to_backend()])
        if made.token_to_id(token.content) != token.id:
            raise BadCheckpoint(
                f"the added token {token.content!r} has id {token.id}, "
                f"its place in the vocabulary is {made.token_to_id(token.content)}"
            )
    return made


class Words:
    """The vocabulary with those added tokens that plain text is cut at; control tokens in a text stay text."""

    def __init__(self, plain: Core, added: Sequence[AddedToken], control: Collection[int]) -> None:
        """`control`: ids of those among `added` that are no words."""
        self._plain = plain
        # HF leaves alone in a text what is special, if told so; a token that is none keeps its place in the vocabulary
        self._added = [replace(token, special=token.id in control) for token in added]
        words = [token for token in self._added if not token.special]
        changed = plain.normalises and any(token.normalized for token in words)
        self._searched = None if changed or len(words) > _MOST_SEARCHED else [token.content for token in words]

    def may_be_in(self, text: str) -> bool:
        """False only if none of the words is in `text`."""
        return self._searched is None or any(word in text for word in self._searched)

    @cached_property
    def core(self) -> Core:
        """Encodes a text with its words. Raises BadCheckpoint where an added token's id is not its place."""
        made = with_added(self._plain.backend, self._added)
        made.encode_special_tokens = True
        return BackendCore(made)
