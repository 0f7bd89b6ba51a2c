"""Regular expressions and Lark grammars, checked against bounds and written as llguidance's Lark.

Promises that a grammar too large to compile in a second is a `BadInput` that names the bound, that schemas inside a
Lark grammar obey the same rules as schemas alone, and that options which the engine ignores are refused.
"""

from __future__ import annotations

import json
import re

from phi4mini.errors import BadInput
from phi4mini.grammar import schema

_MOST_GRAMMAR = 16_384  # characters outside %json; 32,768 hostile ones take a second
_MOST_RULES = 500  # llguidance resolves rules recursively; some thousand in a row overflow the stack
_JSON = re.compile(r"%json\s*(?=[{\[tf\"0-9-])")
_UNFOLLOWED = re.compile(r"^[ \t]*[\w-]+\[[^\]\n]*\b(temperature|max_tokens|stop)\b", re.MULTILINE)


def _text(value: object, what: str, most: int) -> str:
    if not isinstance(value, str) or not value:
        raise BadInput(f"{what} must be a non-empty text, got {type(value).__name__}")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise BadInput(f"{what} is not Unicode: it has a lone surrogate")
    if len(value) > most:
        raise BadInput(f"{what} has {len(value)} characters; at most {most} are possible")
    return value


def regex(pattern: str) -> str:
    """The Lark grammar of texts that the whole pattern matches. Raises BadInput for an empty or too long pattern."""
    text = _text(pattern, "the pattern", schema.MOST_PATTERN)
    from llguidance import LLMatcher

    return str(json.loads(LLMatcher.grammar_from_regex(text))["grammars"][0]["lark_grammar"])


def lark(grammar: str) -> str:
    """The grammar with each `%json` schema checked and given our spacing. Raises BadInput."""
    text = _text(grammar, "the grammar", schema.MOST_BYTES)
    pieces, at = [], 0
    for found in _JSON.finditer(text):
        if found.start() >= at:
            document, end = _document(text, found.end())
            pieces += [text[at : found.start()], f"%json {json.dumps(schema.prepared(document))}"]
            at = end
    pieces.append(text[at:])
    _check(pieces[::2])
    return "".join(pieces)


def _document(text: str, start: int) -> tuple[object, int]:
    try:
        return json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        line = text.count("\n", 0, start) + 1
        raise BadInput(f"the grammar's %json in line {line} is not JSON: {str(error)[:100]}") from None


def _check(written: list[str]) -> None:
    """Check size, number of rules and options of the grammar; `written` are its pieces without the schemas."""
    size, rules = sum(map(len, written)), sum(piece.count(":") for piece in written)
    if size > _MOST_GRAMMAR:
        raise BadInput(f"the grammar has {size} characters outside %json; at most {_MOST_GRAMMAR} are possible")
    if rules > _MOST_RULES:
        raise BadInput(f"the grammar has {rules} colons; at most {_MOST_RULES} rules are possible")
    for piece in written:
        if found := _UNFOLLOWED.search(piece):
            raise BadInput(f"the grammar sets {found[1]}, which is not followed inside a grammar")
