"""JSON that keeps its spelling: a number remembers its text, and the value of a key is cut out as text.

Clients send back the arguments that a model wrote, and these must become the same tokens again for the prefix cache to
hit: `1.50` must not turn into `1.5`, nor `1e400`, which no float holds, into `Infinity`. Knows nothing of calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from phi4mini.errors import BadInput

_SPACE = re.compile(r"[ \t\n\r]*")
_decoder = json.JSONDecoder()


class Number(float):
    """A float that remembers how it was written (`text`)."""

    text: str


def number(text: str) -> float:
    """The value of a JSON number with a point or an exponent; a `Number` if Python would spell it differently."""
    value = float(text)
    if repr(value) == text:
        return value
    kept = Number(value)
    kept.text = text
    return kept


def plain(value: Any) -> Any:
    """`value` with each `Number` replaced by an ordinary float."""
    match value:
        case Number():
            return float(value)
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
        case list():
            return [plain(inner) for inner in value]
    return value


def to_json(value: Any) -> str:
    """JSON as the model card writes it: ", " and ": " as separators, non-ASCII unescaped, each `Number` by its text.

    Raises BadInput for a value that is not JSON.
    """
    try:
        text = _spelled(value) if _keeps_text(value) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"a tool or a call cannot be written as JSON: {str(error)[:200]}") from None
    return text


def member(text: str, name: str) -> str | None:
    """The spelling of the value of key `name` in the JSON object `text`; None if the key is missing."""
    found, at = None, text.index("{") + 1
    while text[at := _skip(text, at)] == '"':
        key, at = _decoder.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)  # beyond the colon
        _, end = _decoder.raw_decode(text, start)
        if key == name:
            found = text[start:end]
        at = _skip(text, end)
        if text[at] == ",":
            at += 1
    return found


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _keeps_text(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return any(map(_keeps_text, value))
    return isinstance(value, Number)


def _spelled(value: Any) -> str:
    match value:
        case Number():
            return value.text
        case dict():
            return (
                "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)}: {_spelled(v)}" for k, v in value.items()) + "}"
            )
        case list() | tuple():
            return "[" + ", ".join(map(_spelled, value)) + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
