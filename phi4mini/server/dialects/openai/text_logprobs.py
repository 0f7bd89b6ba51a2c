"""Log-probabilities in the form of the text completions API: parallel lists, with alternatives keyed by their text.

Promises: every alternative has a key of its own, so no alternative is lost. A token that is only part of a character is
keyed by its bytes as OpenAI writes them (`bytes:\\xf0\\x9f`); of two tokens with the same text the less likely one is
keyed by its id (`token_id:17`). `text_offset` counts characters of the text; a split character counts once.
"""

from __future__ import annotations

from collections.abc import Iterable

from phi4mini.llm.results import TokenLogprob
from phi4mini.server.dialects.openai import types
from phi4mini.server.dialects.openai.logprobs import finite
from phi4mini.tokenizer import Tokenizer


class TextLogprobWriter:
    """`write` entries in order, in one or several calls; `part` where another text begins."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._stream = tokenizer, tokenizer.stream()
        self._length = 0  # characters of the text so far

    def skip(self, text: str) -> None:
        """Begin after this text, which has no entries."""
        self._length += len(text)

    def part(self) -> None:
        """Begin another text, appended to the one before: the answer after its prompt."""
        self._length += len(self._stream.flush())

    def write(self, entries: Iterable[TokenLogprob]) -> types.TextLogprobs:
        """Entries for the next tokens."""
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
        """The offset at which the token begins; for the last part of a split character, where that character begins."""
        begin = self._length
        self._length += len(self._stream.push(id))
        text = text_of(self._tokenizer.token_bytes(id))
        return begin if text is None else max(begin, self._length - len(text))


def _likeliest_first(entry: TokenLogprob) -> list[TokenLogprob]:
    """The alternatives and the token itself, without duplicates."""
    return [*entry.top, *([] if any(one.id == entry.id for one in entry.top) else [entry])]


def text_of(spelled: bytes) -> str | None:
    """A token's bytes as text; None if they are not whole characters."""
    try:
        return spelled.decode("utf-8")
    except UnicodeDecodeError:
        return None


def key_of(spelled: bytes) -> str:
    """The name of a token with these bytes: its text, or the bytes as OpenAI writes them."""
    text = text_of(spelled)
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled) if text is None else text
