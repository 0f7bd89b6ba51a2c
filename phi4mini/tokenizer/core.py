"""The vocabulary proper: plain text to ids and ids to entries, without added tokens. HF `tokenizers` does the work.

`Phi4Core` puts off building HF's BPE (0.25 s for 200,000 tokens): the first few thousand words are merged here, by
lowest rank, which for this vocabulary is the same answer; a process that encodes more builds it.
Promises that both ways give the same ids. Knows no control tokens.
"""

from __future__ import annotations

from threading import Lock
from typing import Protocol

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from phi4mini.tokenizer import phi4, ranks

_MOST_CHARACTERS = 16_384  # of texts altogether before HF's BPE is built
_LONGEST_HERE = 2_048  # characters of a text that HF encodes without letting other threads run
_LONGEST_WORD = 256  # bytes; merging here takes quadratic time in a word


class Core(Protocol):
    """What the tokenizer needs of a vocabulary."""

    @property
    def backend(self) -> Backend:
        """HF's tokenizer without added tokens."""

    @property
    def normalises(self) -> bool:
        """Whether a text is normalised before it is cut; asking builds nothing."""

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. Raises TypeError for a text that is not Unicode."""

    def id_to_token(self, id: int) -> str | None:
        """The entry with this id."""

    def token_to_id(self, token: str) -> int | None:
        """The id of this entry."""

    def size(self) -> int:
        """Number of entries."""


class BackendCore:
    """HF's tokenizer as it is."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def normalises(self) -> bool:
        return self.backend.normalizer is not None

    def encode(self, text: str) -> list[int]:
        if len(text) <= _LONGEST_HERE:
            return list(self.backend.encode(text, add_special_tokens=False).ids)
        # a batch of one: alone among HF's ways it lets other threads run meanwhile
        return list(self.backend.encode_batch_fast([text], add_special_tokens=False)[0].ids)

    def id_to_token(self, id: int) -> str | None:
        return self.backend.id_to_token(id)

    def token_to_id(self, token: str) -> int | None:
        return self.backend.token_to_id(token)

    def size(self) -> int:
        return self.backend.get_vocab_size()


class Phi4Core:
    """The shipped o200k_base vocabulary with Phi's placeholders."""

    def __init__(self) -> None:
        tokens, self._splits = ranks.token_strings()
        self._ids = dict(zip(tokens, range(ranks.COUNT), strict=True)) | phi4.PLACEHOLDERS
        self._tokens = tokens + list(phi4.PLACEHOLDERS)
        self._pre_tokenizer = phi4.pre_tokenizer()
        self._left = _MOST_CHARACTERS
        self._built: BackendCore | None = None
        self._lock = Lock()

    @property
    def backend(self) -> Backend:
        return self._build().backend

    @property
    def normalises(self) -> bool:
        return False

    def _build(self) -> BackendCore:
        with self._lock:
            if self._built is not None:
                return self._built
            merges = [(token[:at], token[at:]) for token, at in zip(self._tokens, self._splits, strict=False) if at]
            made = Backend(models.BPE(self._ids, merges))
            made.pre_tokenizer = self._pre_tokenizer
            made.decoder = decoders.ByteLevel()
            self._built = BackendCore(made)
            self._ids, self._tokens = {}, []  # 32 MB that HF now has too; after `_built`, see below
            return self._built

    # Other threads may be reading: they take the table first and look at `_built` then, so a table seen empty is
    # always one whose successor is seen too.

    def encode(self, text: str) -> list[int]:
        """See `Core`: merged here while texts are short and few, by HF from then on."""
        ids = self._ids
        if self._built is None and len(text) <= self._left:
            words = [word for word, _ in self._pre_tokenizer.pre_tokenize_str(text)]
            if max(map(len, words), default=0) <= _LONGEST_WORD:
                self._left -= len(text)
                return [id for word in words for id in self._merged(word, ids)]
        return self._build().encode(text)

    @staticmethod
    def _merged(word: str, ids: dict[str, int]) -> list[int]:
        """BPE of one word: as long as two neighbours make a token, the pair of lowest rank, leftmost first."""
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
