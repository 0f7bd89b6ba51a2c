"""The tokenizer: text to ids and ids to text, equal to HF `tokenizers` on every string.

Promises: plain text never yields a control id, whatever it spells; in all else, added words included, its ids are HF's.
`encode(text, parse_special=True)` equals HF, the `rstrip` rule included. `decode` equals HF's and equals the streamed
pieces joined. New tokens take the free rows of the embedding, never more than the model has. A text that cannot be
encoded is a `BadInput` that names the place.
Does not know conversations, roles or templates (`phi4mini.chat`), nor where a vocabulary comes from (`shipped.py`,
`tokenizer_json.py`, `gguf_bpe.py` and `serialize.py` make tokenizers).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from os import PathLike
from typing import Any

from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from phi4mini.errors import BadCheckpoint, BadInput
from phi4mini.files import atomic_write
from phi4mini.tokenizer import phi4
from phi4mini.tokenizer.added_token import MOST_ROWS, AddedToken, check_places
from phi4mini.tokenizer.added_words import AddedWords, with_added
from phi4mini.tokenizer.bytelevel import to_bytes as bytes_of_token
from phi4mini.tokenizer.plain_bpe import PlainBpe
from phi4mini.tokenizer.text_stream import ByteStream, PieceStream, TextStream

# Unicode's White_Space, which is what `\s` means in HF's rstrip rule. str.lstrip() would also take U+001C to U+001F.
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"

_SPACE_MARK = "\u2581"  # SentencePiece's visible space


class _Table(dict[int, Any]):
    """Id to bytes (byte-level) or piece (SentencePiece), filled on first use; a free row is empty.

    An id outside the rows raises BadInput.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __missing__(self, id: int) -> Any:
        self[id] = value = self._tokenizer._look_up(id)
        return value


@contextmanager
def _unicode(text: str) -> Iterator[None]:
    """Turn HF's TypeError for a text it cannot encode into a BadInput that names the character."""
    try:
        yield
    except TypeError:
        if not isinstance(text, str):
            raise BadInput(f"text to encode must be str, got {type(text).__name__}") from None
        at = next((i for i, char in enumerate(text) if "\ud800" <= char <= "\udfff"), None)
        if at is None:
            raise
        code = ord(text[at])
        raise BadInput(f"the text is not Unicode: lone surrogate U+{code:04X} at character {at}") from None


class Tokenizer:
    """One model's tokenizer; made by `phi4_mini`, `from_json`, `from_bpe` or `from_bytes` of `phi4mini.tokenizer`."""

    def __init__(
        self,
        plain: PlainBpe,
        added: Sequence[AddedToken],
        *,
        rows: int,
        bos_id: int | None = None,
        eos_ids: Sequence[int] = (),
        pad_id: int | None = None,
        byte_level: bool = True,
        is_phi4: bool = False,
        unused: Iterable[int] = (),
    ) -> None:
        """`plain`: the vocabulary without added tokens; `rows`: rows of the model's embedding, the limit of all ids;
        `byte_level`: False for SentencePiece; `unused`: ids that the vocabulary names but no text has.
        """
        self._plain = plain
        self._added = tuple(added)
        self._byte_level = byte_level
        self.is_phi4 = is_phi4
        self.vocab_size = rows
        self.bos_id = bos_id
        self.eos_ids = tuple(eos_ids)
        self.pad_id = pad_id
        self.unused_ids = frozenset(unused)
        self._kept_out = frozenset(token.content for token in phi4.ADDED)
        self._check_ids()

    # ---- text to ids

    def encode(self, text: str, parse_special: bool = False) -> list[int]:
        """Ids of `text`, without BOS or EOS. `parse_special=True`: control tokens spelled in the text become their ids.

        Added tokens that are not control tokens, such as a fine-tune's words, are recognised either way, as in HF.
        Raises BadInput for a lone surrogate.
        """
        if parse_special:
            return self._parse(text).ids
        with _unicode(text):
            words = self._words
            bpe = words.bpe if words is not None and words.may_be_in(text) else self._plain
            return self._without_control(bpe.encode(text))

    def encode_spans(self, text: str) -> tuple[list[int], list[int]]:
        """The ids of `encode(text, parse_special=True)`, and for each the index of its first character."""
        encoding = self._parse(text)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def _parse(self, text: str) -> Encoding:
        with _unicode(text):
            return self.parsing_backend.encode(text, add_special_tokens=False)

    def _without_control(self, ids: list[int]) -> list[int]:
        """`ids`, each control id replaced by its parts: in some vocabularies merges spell a control token."""
        if self.control_ids.isdisjoint(ids):
            return ids
        return [part for id in ids for part in (self._in_parts(id) if id in self.control_ids else (id,))]

    def _in_parts(self, id: int) -> list[int]:
        """The control token's text encoded in two pieces, so that no merge spans the cut. Raises BadInput."""
        token, model = self._plain.id_to_token(id) or "", self._plain.backend.model
        if len(token) < 2:
            raise BadInput(f"the text spells the control token {token!r}, which this vocabulary cannot write otherwise")
        halves = [model.tokenize(token[:1]), model.tokenize(token[1:])]
        return self._without_control([part.id for half in halves for part in half])

    # ---- ids to text

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """Text of `ids`: broken UTF-8 becomes U+FFFD, a free row nothing. `skip_special_tokens` omits special tokens.

        As in HF, Phi's five tool tokens are not special and stay. Raises BadInput for an id outside the vocabulary.
        """
        kept = [id for id in ids if id not in self._special_ids] if skip_special_tokens else ids
        if self._byte_level:
            return b"".join(map(self._table.__getitem__, kept)).decode("utf-8", "replace")
        stream = self.stream()
        return "".join(map(stream.push, kept)) + stream.flush()

    def stream(self) -> TextStream:
        """A new streaming decoder."""
        lookup = self._table.__getitem__
        return ByteStream(lookup) if self._byte_level else PieceStream(lookup)

    def token_bytes(self, id: int) -> bytes:
        """The bytes this id stands for inside a text; empty for a free row."""
        value = self._table[id]
        return value if isinstance(value, bytes) else value.encode("utf-8")

    def token_text(self, id: int) -> str:
        """The text of this id decoded alone; an incomplete character becomes U+FFFD."""
        return self.token_bytes(id).decode("utf-8", "replace")

    def _look_up(self, id: int) -> bytes | str:
        if not 0 <= id < self.vocab_size:
            raise BadInput(f"token id {id} is outside the vocabulary (0 to {self.vocab_size - 1})")
        added = self._added_by_id.get(id)
        known = None if id in self.unused_ids else self._plain.id_to_token(id)
        token = added.content if added else known or ""
        if self._byte_level:
            return token.encode("utf-8") if added else bytes_of_token(token)
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return token.replace(_SPACE_MARK, " ")

    # ---- as HF's file

    def to_json(self) -> str:
        """The text of a tokenizer.json that HF `tokenizers` reads, added tokens included."""
        return self.parsing_backend.to_str()

    def save_json(self, path: str | PathLike[str]) -> None:
        """Write a tokenizer.json that HF `tokenizers` reads, atomically."""
        with atomic_write(path) as file:
            file.write(self.to_json().encode("utf-8"))

    # ---- names and ids

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Ids that plain text never becomes: special tokens and the tokens of the chat format (see `keep_out`)."""
        return frozenset(token.id for token in self._added if token.special or token.content in self._kept_out)

    def keep_out(self, tokens: Iterable[str]) -> None:
        """Make these added tokens control tokens although they are not special: a chat format writes them."""
        more = frozenset(tokens) - self._kept_out
        if any(token in self._added_by_content for token in more):
            self._kept_out |= more
            self._forget("control_ids", "_words")

    @property
    def added_tokens(self) -> tuple[AddedToken, ...]:
        """All added tokens with their flags."""
        return self._added

    def id_of(self, token: str) -> int | None:
        """Id of a token spelled as in the vocabulary (byte-level alphabet); None if there is no such token."""
        added = self._added_by_content.get(token)
        found = added.id if added else self._plain.token_to_id(token)
        return found if found is None or found < self.vocab_size else None

    def added_token(self, token: str) -> AddedToken | None:
        """The added token with this text; None if there is none."""
        return self._added_by_content.get(token)

    def __len__(self) -> int:
        """The highest id that has a token, plus one: the next free row."""
        return max([self._plain.size() - 1, *self._added_by_id]) + 1

    def add_tokens(self, tokens: Sequence[str], special: bool = False) -> list[int]:
        """Add tokens, each in the next free row, and return the ids of all; a token that exists keeps its id.

        Adds all tokens or none: raises BadInput when too few rows are free, or for an empty or blank token.
        """
        if isinstance(tokens, str):
            raise BadInput("add_tokens takes a list of tokens, not one string")
        bad = [token for token in tokens if not isinstance(token, str) or not token.strip()]
        if bad:
            raise BadInput(f"cannot add the token {bad[0]!r}: it must be text with something to see")
        new = [token for token in dict.fromkeys(tokens) if self.id_of(token) is None]
        hidden = [token for token in dict.fromkeys(tokens) if self._is_out_of_reach(token)]
        first, free = len(self), self.vocab_size - len(self)
        if len(new) > free:
            raise BadInput(
                f"no free row for the token {new[free]!r}: the model has {self.vocab_size} rows, {len(self)} are taken"
            )
        named = [(self.id_of(token), token) for token in hidden] + list(enumerate(new, first))
        self._extend([AddedToken(id, token, special=special) for id, token in named if id is not None])
        return [id for token in tokens if (id := self.id_of(token)) is not None]

    def _is_out_of_reach(self, token: str) -> bool:
        """True if the token has an id that its text does not encode to and is no added token: Phi's placeholders."""
        id = self.id_of(token)
        return id is not None and id not in self._added_by_id and self.encode(token) != [id]

    def _extend(self, tokens: Sequence[AddedToken]) -> None:
        self._added += tuple(tokens)
        self._forget("parsing_backend", "_table", "_special_ids", "_added_by_id", "_added_by_content")
        self._forget("control_ids", "_words")
        self._check_ids()

    def _forget(self, *derived: str) -> None:
        for name in derived:
            self.__dict__.pop(name, None)

    def _check_ids(self) -> None:
        if type(self.vocab_size) is not int or not 0 < self.vocab_size <= MOST_ROWS:
            raise BadCheckpoint(f"a tokenizer for {self.vocab_size!r} rows is not possible")
        if len(self) > self.vocab_size:
            raise BadCheckpoint(f"the tokenizer has {len(self)} ids but the model only {self.vocab_size} rows")
        check_places(self._added, self._plain.id_to_token, self._plain.token_to_id)

    # ---- derived, made on first use

    @cached_property
    def parsing_backend(self) -> Backend:
        """HF's tokenizer with the added tokens; it shares the vocabulary with the plain one."""
        return with_added(self._plain.backend, self._added)

    @cached_property
    def _words(self) -> AddedWords | None:
        """The added tokens that are recognised in plain text too; None if all added tokens are control tokens."""
        if all(id in self.control_ids for id in self._added_by_id):
            return None
        return AddedWords(self._plain, self._added, self.control_ids)

    @cached_property
    def _table(self) -> _Table:
        return _Table(self)

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(token.id for token in self._added if token.special)

    @cached_property
    def _added_by_id(self) -> dict[int, AddedToken]:
        return {token.id: token for token in self._added}

    @cached_property
    def _added_by_content(self) -> dict[str, AddedToken]:
        return {token.content: token for token in self._added}
