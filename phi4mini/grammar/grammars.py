"""One model's grammars: a JSON schema, any object, a regular expression, a Lark grammar or tools, to a constraint.

Promises a fresh constraint each time, compiled for it alone: llguidance's copies share one lexer, whose growing tables
and limits would let one request decide about another. Nothing is kept between calls but the vocabulary's trie, built
once; what compiles is imported then. The first mask is computed inside the call, so that a grammar which fails there
is a `BadInput` of the call.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from phi4mini.errors import BadInput
from phi4mini.grammar.answer_form import BadForm, Form

if TYPE_CHECKING:
    import numpy as np
    from llguidance import LLTokenizer

    from phi4mini.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


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
        return self.answer(Form("json_schema", schema))

    def json_object(self) -> Constraint:
        """Any JSON object."""
        return self.json_schema({"type": "object"})

    def regex(self, pattern: str) -> Constraint:
        """A text that the whole pattern matches (Rust's regex syntax). Raises BadInput."""
        return self.answer(Form("regex", pattern))

    def lark(self, grammar: str) -> Constraint:
        """A text of a grammar in llguidance's dialect of Lark, `%json {...}` included. Raises BadInput."""
        return self.answer(Form("lark", grammar))

    def answer(self, form: Form, dropped: list[str] | None = None) -> Constraint:
        """A text of this form. Raises BadInput; for what is left out of a schema see `tool_calls`."""
        for follow in (_hope, self._follow):
            places: list[str] = []
            source = json.dumps({"grammars": [form.part(follow, places)]})
            try:
                made = self._compiled(source, form.what)
                break
            except BadInput:
                if form.strict or follow is not _hope:
                    raise
        _tell(form.what, places, dropped)
        return made

    def tool_calls(
        self,
        tools: Sequence[Mapping[str, Any]],
        chat_format: str,
        *,
        required: bool | str,
        parallel: bool,
        text: Form | None = None,
        dropped: list[str] | None = None,
    ) -> Constraint:
        """Calls of `tools` as `chat_format` writes them, arguments after each function's schema.

        `required`: True for a call and nothing else, a name for one call of that function, False for free text that may
        end in a call, or, given `text`, for either a call or a text of that form. `parallel` allows several, but of a
        named function. What cannot be followed in the schema of a function that is not `strict` is left out: its place,
        `name.properties.x.uniqueItems`, is added to `dropped`, or logged where there is no such list. Raises BadInput:
        no tools, a name that is not among them, a format without tools, a strict schema that cannot be followed.
        """
        from phi4mini.grammar import tool_calls

        functions = tool_calls.chosen(tools, required)
        asked: dict[str, Any] = {"required": required, "parallel": parallel}
        for follow in (_hope, self._follow):  # together, which is quick; if that fails, each alone before
            places: list[str] = []
            arguments = [function.arguments(follow, places) for function in functions]
            asked["text"] = held = _part(text, follow, places) if text and required is False else None
            try:
                made = self._calls(functions, arguments, chat_format, **asked)
                break
            except BadInput as error:
                failed = error
        else:  # too much together: what is not strict gives way
            if text is not None and held is not None:
                self._part_alone(text, held)
            if all(function.strict for function in functions):
                raise failed
            places += [function.name for function in functions if not function.strict]
            arguments = [one if f.strict else tool_calls.FREE for f, one in zip(functions, arguments, strict=True)]
            made = self._calls(functions, arguments, chat_format, **asked)
        _tell("the tools' schemas", places, dropped)
        return made

    def _part_alone(self, text: Form, held: Mapping[str, Any]) -> None:
        """Raises BadForm where it is to blame."""
        try:
            self._compiled(json.dumps({"grammars": [held]}), text.what)
        except BadInput as error:
            raise BadForm(str(error)) from None

    def _calls(self, functions: Any, arguments: Any, chat_format: str, **asked: Any) -> Constraint:
        from phi4mini.grammar import schema, tool_calls

        schema.check_bounds(arguments)  # each has been seen alone
        source = tool_calls.grammar(self._tokenizer, functions, arguments, chat_format, **asked)
        return self._compiled(source, "the tools' schemas")

    def _follow(self, prepared: Mapping[str, Any]) -> None:
        """Raises `Unfollowed` for a schema that llguidance does not compile."""
        from phi4mini.grammar.schema_mending import Unfollowed

        try:
            self._compiled(json.dumps({"grammars": [{"json_schema": prepared}]}), "the schema")
        except BadInput as error:
            raise Unfollowed(str(error)) from None

    def _built(self) -> LLTokenizer:
        with self._lock:
            if self._trie is None:
                from phi4mini.grammar import vocabulary

                self._trie = vocabulary.build(self._tokenizer, self._vocab_size, self._end_ids)
            return self._trie

    def _compiled(self, source: str, what: str) -> Constraint:
        trie = self._built()
        from phi4mini.grammar import constraint

        return constraint.compiled(trie, source, what, self._end_ids)


def _hope(prepared: Mapping[str, Any]) -> None:
    """A schema is taken to be one that llguidance compiles."""


def _part(text: Form, follow: Callable[[Mapping[str, Any]], None], places: list[str]) -> Mapping[str, Any]:
    try:
        return text.part(follow, places)
    except BadInput as error:
        raise BadForm(str(error)) from None


def _tell(what: str, places: Sequence[str], dropped: list[str] | None) -> None:
    """What was left out is for the caller to say; the log has it in any case."""
    if places:
        level = logging.WARNING if dropped is None else logging.DEBUG
        _log.log(level, "%s: not followed, and left out: %s", what, ", ".join(places)[:4000])
    if dropped is not None:
        dropped += places
