"""Log-probabilities as the text completions API spells them: parallel lists, alternatives by the text of their token.

Promises: every alternative has a key of its own. A token that is no text by itself, being a part of a character, is
keyed by its bytes as OpenAI writes them (`bytes:\\xf0\\x9f`); of two tokens with one text the less likely is keyed by
its id (`token_id:17`). Programs that look for the best alternative see every one there is. `text_offset` counts
characters of the text, in which the parts of a character are one.
"""

from __future__ import annotations

from collections.abc import Iterable

from phi4mini.llm.results import TokenLogprob
from phi4mini.server.dialects.openai import types
from phi4mini.server.dialects.openai.logprobs import finite
from phi4mini.tokenizer import Tokenizer


class TextLogprobWriter:
    """`write` entries in order, in as many pieces as they come; `part` where a text of its own begins."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._stream = tokenizer, tokenizer.stream()
        self._length = 0  # characters so far

    def skip(self, text: str) -> None:
        """This text comes first, of which nothing is written."""
        self._length += len(text)

    def part(self) -> None:
        """What follows is another text, joined to the one before: an answer to a prompt."""
        self._length += len(self._stream.flush())

    def write(self, entries: Iterable[TokenLogprob]) -> types.TextLogprobs:
        """The next tokens."""
        noted = types.TextLogprobs([], [], [], [])
        for entry in entries:
            keys = self._keys(entry)
            top = {keys[one.id]: finite(one.logprob) for one in _likeliest_first(entry)}
            noted.tokens.append(keys[entry.id])
            noted.token_logprobs.append(None if entry.logprob is None else finite(entry.logprob))
            noted.top_logprobs.append(None if entry.logprob is None else top)
            noted.text_offset.append(self._offset(entry.id))
        return noted

    def _keys(self, entry: TokenLogprob) -> dict[int, str]:
        keys: dict[int, str] = {}
        for one in _likeliest_first(entry):
            name = key_of(self._tokenizer.token_bytes(one.id))
            keys[one.id] = f"token_id:{one.id}" if name in keys.values() else name
        return keys

    def _offset(self, id: int) -> int:
        """Where in the text the token begins; of one that ends a character, where what it completes begins."""
        begin = self._length
        self._length += len(self._stream.push(id))
        text = text_of(self._tokenizer.token_bytes(id))
        return begin if text is None else max(begin, self._length - len(text))


def _likeliest_first(entry: TokenLogprob) -> list[TokenLogprob]:
    """The alternatives and the token itself, each once."""
    return [*entry.top, *([] if any(one.id == entry.id for one in entry.top) else [entry])]


def text_of(spelled: bytes) -> str | None:
    """What a token's bytes are as text; None where they are no whole characters."""
    try:
        return spelled.decode("utf-8")
    except UnicodeDecodeError:
        return None


def key_of(spelled: bytes) -> str:
    """The name of a token with these bytes: its text, or the bytes as OpenAI writes them."""
    text = text_of(spelled)
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled) if text is None else text
