"""Compiles schemas, regular expressions, Lark grammars and tools to constraints, for one model's vocabulary.

Promises that each constraint is compiled for itself: copies made by llguidance share one lexer, whose growing tables
and limits would let one request affect another. Only the vocabulary's trie is kept between calls; it is built once.
The first mask is computed inside the call, so that a grammar which fails there is a `BadInput` of the call.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from phi4mini.errors import BadInput
from phi4mini.grammar.answer_form import BadForm, Form

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from phi4mini.grammar.llguidance_matcher import GrammarConstraint
    from phi4mini.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


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

        Raises BadInput if `end_ids` is empty or has an id outside the logits.
        """
        wrong = [id for id in end_ids if not 0 <= id < vocab_size]
        if wrong or not end_ids:
            raise BadInput(f"structured output needs end ids from 0 to {vocab_size - 1}, got {wrong or 'none'}")
        return cls(tokenizer, vocab_size, end_ids)

    def build(self) -> None:
        """Build the vocabulary's trie now (about a second for 200,000 tokens) instead of during the first request.

        Raises BadInput when llguidance is not installed or the tokens do not spell text exactly.
        """
        self._built()

    def json_schema(self, schema: Mapping[str, Any] | bool) -> GrammarConstraint:
        """A JSON document that fits the schema. Raises BadInput that names the fault of the schema."""
        return self.answer(Form("json_schema", schema))

    def json_object(self) -> GrammarConstraint:
        """Any JSON object."""
        return self.json_schema({"type": "object"})

    def regex(self, pattern: str) -> GrammarConstraint:
        """A text that the whole pattern matches (Rust's regex syntax). Raises BadInput."""
        return self.answer(Form("regex", pattern))

    def lark(self, grammar: str) -> GrammarConstraint:
        """A text of a grammar in llguidance's dialect of Lark, `%json {...}` included. Raises BadInput."""
        return self.answer(Form("lark", grammar))

    def answer(self, form: Form, dropped: list[str] | None = None) -> GrammarConstraint:
        """A text of this form. Raises BadInput; `dropped` as in `tool_calls`."""
        for compiles in (_assume_compiles, self._check_compiles):
            places: list[str] = []
            source = json.dumps({"grammars": [form.part(compiles, places)]})
            try:
                made = self._compiled(source, form.what)
                break
            except BadInput:
                if form.strict or compiles is not _assume_compiles:
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
    ) -> GrammarConstraint:
        """Calls of `tools` as `chat_format` writes them, arguments after each function's schema.

        `required`: True for a call and nothing else; a name for one call of that function; False for free text that may
        end in a call or, if `text` is given, for either a call or a text of that form. `parallel` allows several calls,
        except of a named function. If a function is not `strict`, the parts of its schema that cannot be enforced are
        left out: their places, such as `name.properties.x.uniqueItems`, are added to `dropped`, or logged if `dropped`
        is None. Raises BadInput for no tools, an unknown name, a format without tools, or a strict schema that cannot
        be enforced.
        """
        from phi4mini.grammar import tool_calls

        functions = tool_calls.chosen(tools, required)
        asked: dict[str, Any] = {"required": required, "parallel": parallel}
        for compiles in (_assume_compiles, self._check_compiles):  # quick: all at once; if that fails, each alone first
            places: list[str] = []
            arguments = [function.arguments(compiles, places) for function in functions]
            asked["text"] = held = _part(text, compiles, places) if text and required is False else None
            try:
                made = self._calls(functions, arguments, chat_format, **asked)
                break
            except BadInput as error:
                failed = error
        else:  # each compiles alone but not together: schemas that are not strict are left out
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
        """Raises BadForm if the form of the answer does not compile alone."""
        try:
            self._compiled(json.dumps({"grammars": [held]}), text.what)
        except BadInput as error:
            raise BadForm(str(error)) from None

    def _calls(self, functions: Any, arguments: Any, chat_format: str, **asked: Any) -> GrammarConstraint:
        from phi4mini.grammar import schema, tool_calls

        schema.check_bounds(arguments)  # each was checked alone, not yet all together
        source = tool_calls.grammar(self._tokenizer, functions, arguments, chat_format, **asked)
        return self._compiled(source, "the tools' schemas")

    def _check_compiles(self, prepared: Mapping[str, Any]) -> None:
        """Raises `UnsupportedSchema` if llguidance does not compile the schema."""
        from phi4mini.grammar.schema_lenient import UnsupportedSchema

        try:
            self._compiled(json.dumps({"grammars": [{"json_schema": prepared}]}), "the schema")
        except BadInput as error:
            raise UnsupportedSchema(str(error)) from None

    def _built(self) -> LLTokenizer:
        with self._lock:
            if self._trie is None:
                from phi4mini.grammar import token_trie

                self._trie = token_trie.build(self._tokenizer, self._vocab_size, self._end_ids)
            return self._trie

    def _compiled(self, source: str, what: str) -> GrammarConstraint:
        trie = self._built()
        from phi4mini.grammar import llguidance_matcher

        return llguidance_matcher.compiled(trie, source, what, self._end_ids)


def _assume_compiles(prepared: Mapping[str, Any]) -> None:
    """The optimistic check: accept every schema."""


def _part(text: Form, compiles: Callable[[Mapping[str, Any]], None], places: list[str]) -> Mapping[str, Any]:
    try:
        return text.part(compiles, places)
    except BadInput as error:
        raise BadForm(str(error)) from None


def _tell(what: str, places: Sequence[str], dropped: list[str] | None) -> None:
    """Add the places left out to `dropped`; a warning in the log if the caller gave no list, else a debug line."""
    if places:
        level = logging.WARNING if dropped is None else logging.DEBUG
        _log.log(level, "%s: not followed, and left out: %s", what, ", ".join(places)[:4000])
    if dropped is not None:
        dropped += places
