"""BPE of plain text, without added tokens: text to ids, id to vocabulary entry. HF `tokenizers` does the work.

`Phi4Bpe` delays building HF's BPE, which takes 0.25 s for 200,000 tokens: it merges the first 16,384 characters of a
process in Python, by lowest rank, and builds HF's BPE only for more text. Promises that both ways give the same ids.
Knows no control tokens.
"""

from __future__ import annotations

from threading import Lock
from typing import Protocol

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from phi4mini.tokenizer import phi4, ranks

_MOST_CHARACTERS = 16_384  # merged in Python, over all texts, before HF's BPE is built
_LONGEST_HELD = 2_048  # characters; HF encodes a text up to this length without releasing the GIL
_LONGEST_WORD = 256  # bytes; merging in Python takes quadratic time in the length of a word


class PlainBpe(Protocol):
    """What `Tokenizer` needs of a vocabulary."""

    @property
    def backend(self) -> Backend:
        """HF's tokenizer without added tokens."""

    @property
    def normalises(self) -> bool:
        """True if texts are normalised before they are split; reading this builds nothing."""

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. Raises TypeError for a text that is not Unicode."""

    def id_to_token(self, id: int) -> str | None:
        """The vocabulary entry with this id; None if there is none."""

    def token_to_id(self, token: str) -> int | None:
        """The id of this vocabulary entry; None if there is none."""

    def size(self) -> int:
        """Number of entries."""


class BackendBpe:
    """HF's tokenizer, unchanged."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def normalises(self) -> bool:
        return self.backend.normalizer is not None

    def encode(self, text: str) -> list[int]:
        if len(text) <= _LONGEST_HELD:
            return list(self.backend.encode(text, add_special_tokens=False).ids)
        # a batch of one: HF releases the GIL only in its batch calls, so other threads run meanwhile
        return list(self.backend.encode_batch_fast([text], add_special_tokens=False)[0].ids)

    def id_to_token(self, id: int) -> str | None:
        return self.backend.id_to_token(id)

    def token_to_id(self, token: str) -> int | None:
        return self.backend.token_to_id(token)

    def size(self) -> int:
        return self.backend.get_vocab_size()


class Phi4Bpe:
    """The shipped o200k_base vocabulary and Phi's placeholders."""

    def __init__(self) -> None:
        tokens, self._splits = ranks.token_strings()
        self._ids = dict(zip(tokens, range(ranks.COUNT), strict=True)) | phi4.PLACEHOLDERS
        self._tokens = tokens + list(phi4.PLACEHOLDERS)
        self._pre_tokenizer = phi4.pre_tokenizer()
        self._left = _MOST_CHARACTERS
        self._built: BackendBpe | None = None
        self._lock = Lock()

    @property
    def backend(self) -> Backend:
        return self._build().backend

    @property
    def normalises(self) -> bool:
        return False

    def _build(self) -> BackendBpe:
        with self._lock:
            if self._built is not None:
                return self._built
            merges = [(token[:at], token[at:]) for token, at in zip(self._tokens, self._splits, strict=False) if at]
            made = Backend(models.BPE(self._ids, merges))
            made.pre_tokenizer = self._pre_tokenizer
            made.decoder = decoders.ByteLevel()
            self._built = BackendBpe(made)
            # 32 MB that HF's BPE now holds too. Other threads may be reading: they fetch a table first and look at
            # `_built` after it, so `_built` must be set before the tables are emptied.
            self._ids, self._tokens = {}, []
            return self._built

    def encode(self, text: str) -> list[int]:
        """See `PlainBpe`. Merged in Python while texts are short and few, by HF's BPE from then on."""
        ids = self._ids
        if self._built is None and len(text) <= self._left:
            words = [word for word, _ in self._pre_tokenizer.pre_tokenize_str(text)]
            if max(map(len, words), default=0) <= _LONGEST_WORD:
                self._left -= len(text)
                return [id for word in words for id in self._merged(word, ids)]
        return self._build().encode(text)

    @staticmethod
    def _merged(word: str, ids: dict[str, int]) -> list[int]:
        """BPE of one word: merge the neighbours of lowest rank, leftmost first, until no two of them make a token."""
        if word in ids:
            return [ids[word]]
        parts, none = list(word), ranks.COUNT
        while len(parts) > 1:
            rank, at = min((ids.get(parts[i] + parts[i + 1], none), i) for i in range(len(parts) - 1))
            if rank == none:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [ids[part] for part in parts]

    def id_to_token(self, id: int) -> str | None:
        tokens = self._tokens
        if self._built is not None:
            return self._built.id_to_token(id)
        return tokens[id] if 0 <= id < len(tokens) else None

    def token_to_id(self, token: str) -> int | None:
        ids = self._ids
        return ids.get(token) if self._built is None else self._built.token_to_id(token)

    def size(self) -> int:
        return ranks.COUNT + len(phi4.PLACEHOLDERS)
