"""Added words: added tokens that are no control tokens and are recognised in plain text too.

A fine-tune that added `covid19` saw one id for it in every text, so plain text must give that id as well. Promises that
a text without an added word costs one search for each word and nothing else. Does not decide which tokens are control
tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property

from tokenizers import Tokenizer as Backend

from phi4mini.errors import BadCheckpoint
from phi4mini.tokenizer.added_token import AddedToken
from phi4mini.tokenizer.plain_bpe import BackendBpe, PlainBpe

_MOST_SEARCHED = 64  # words searched for one by one; with more, HF's own search (Aho-Corasick) is quicker


def with_added(plain: Backend, added: Iterable[AddedToken]) -> Backend:
    """HF's tokenizer with the added tokens; shares the vocabulary of `plain`.

    Raises BadCheckpoint if HF would give one of them another id.
    """
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


class AddedWords:
    """The vocabulary with the added words; control tokens spelled in a text stay text."""

    def __init__(self, plain: PlainBpe, added: Sequence[AddedToken], control: Collection[int]) -> None:
        """`added`: all added tokens; `control`: ids of the control tokens among them."""
        self._plain = plain
        # With encode_special_tokens HF leaves special tokens in a text unparsed, so control tokens are marked special.
        # They are kept rather than left out, because HF numbers added tokens consecutively.
        self._added = [replace(token, special=token.id in control) for token in added]
        words = [token for token in self._added if not token.special]
        changed = plain.normalises and any(token.normalized for token in words)
        self._searched = None if changed or len(words) > _MOST_SEARCHED else [token.content for token in words]

    def may_be_in(self, text: str) -> bool:
        """False only if no added word is in `text`."""
        return self._searched is None or any(word in text for word in self._searched)

    @cached_property
    def bpe(self) -> PlainBpe:
        """Encodes a text that has added words. Raises BadCheckpoint if HF gives an added token another id."""
        made = with_added(self._plain.backend, self._added)
        made.encode_special_tokens = True
        return BackendBpe(made)
