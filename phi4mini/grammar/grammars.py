"""One model's grammars: a JSON schema, any object, a regular expression, a Lark grammar or tools, to a constraint.

Promises a fresh constraint each time, compiled for it alone: llguidance's copies share one lexer, whose growing tables
and limits would let one request decide about another. Nothing is kept between calls but the vocabulary's trie, built
once; what compiles is imported then. The first mask is computed inside the call, so that a grammar which fails there
is a `BadInput` of the call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from phi4mini.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from llguidance import LLTokenizer

    from phi4mini.tokenizer import Tokenizer


class Constraint(Protocol):
    """What may come next in one answer. The first three raise BadInput when a step exceeds the grammar's bounds."""

    def mask(self) -> np.ndarray:
        """uint32 of ceil(vocabulary / 32) words; bit i % 32 of word i // 32 is set when id i may come next."""

    def accept(self, id: int) -> None:
        """Id was chosen. Raises BadInput when it may not come next."""

    def forced(self) -> list[int]:
        """Ids that must follow now, one after the other; empty when there is a choice. Changes nothing."""

    @property
    def done(self) -> bool:
        """The answer is complete and nothing but an end id may follow."""


class Grammars:
    """Made by `Grammars.of`; may be used from several threads."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._end_ids = tuple(end_ids)
        self._trie: LLTokenizer | None = None
        self._lock = Lock()

    @classmethod
    def of(cls, tokenizer: Tokenizer, vocab_size: int, end_ids: Sequence[int]) -> Grammars:
        """For a model with `vocab_size` logits whose turn ends with one of `end_ids`.

        Raises BadInput for ids it lacks.
        """
        wrong = [id for id in end_ids if not 0 <= id < vocab_size]
        if wrong or not end_ids:
            raise BadInput(f"structured output needs end ids from 0 to {vocab_size - 1}, got {wrong or 'none'}")
        return cls(tokenizer, vocab_size, end_ids)

    def build(self) -> None:
        """Build the trie of the vocabulary now (about a second for 200,000 tokens) and not with the first request.

        Raises BadInput when llguidance is not installed or the tokens do not spell text exactly.
        """
        self._built()

    def json_schema(self, schema: Mapping[str, Any] | bool) -> Constraint:
        """A JSON document that fits the schema. Raises BadInput naming what is wrong with it."""
        from phi4mini.grammar.schema import prepared

        return self._compiled(json.dumps({"grammars": [{"json_schema": prepared(schema)}]}), "the schema")

    def json_object(self) -> Constraint:
        """Any JSON object."""
        return self.json_schema({"type": "object"})

    def regex(self, pattern: str) -> Constraint:
        """A text that the whole pattern matches (Rust's regex syntax). Raises BadInput."""
        from phi4mini.grammar import sources

        return self._compiled(sources.regex(pattern), "the pattern")

    def lark(self, grammar: str) -> Constraint:
        """A text of a grammar in llguidance's dialect of Lark, `%json {...}` included. Raises BadInput."""
        from phi4mini.grammar import sources

        return self._compiled(sources.lark(grammar), "the grammar")

    def tool_calls(
        self, tools: Sequence[Mapping[str, Any]], chat_format: str, *, required: bool | str, parallel: bool
    ) -> Constraint:
        """Calls of `tools` as `chat_format` writes them, arguments after each function's schema.

        `required`: True for a call and nothing else, a name for one call of that function, False for free text that may
        end in a call. `parallel` allows several, but of a named function. Raises BadInput: no tools, a name that is not
        among them, a format without tools, a schema that cannot be followed.
        """
        from phi4mini.grammar import calls

        source = calls.grammar(self._tokenizer, tools, chat_format, required=required, parallel=parallel)
        return self._compiled(source, "the tools' schemas")

    def _built(self) -> LLTokenizer:
        with self._lock:
            if self._trie is None:
                from phi4mini.grammar import trie

                self._trie = trie.build(self._tokenizer, self._vocab_size, self._end_ids)
            return self._trie

    def _compiled(self, source: str, what: str) -> Constraint:
        trie = self._built()
        from phi4mini.grammar import matching

        return matching.compiled(trie, source, what, self._end_ids)
