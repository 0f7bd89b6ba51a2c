"""JSON schemas before llguidance compiles them: bounds on their size, and the spacing of the JSON.

Promises that a schema within the bounds compiles in under a second and that any other is a `BadInput` naming the bound;
that nothing is fetched; that a schema with only infinite values is refused (`schema_recursion.py`). llguidance defines
what keywords mean, after `schema_keywords.py` has rewritten them; an unknown keyword is an annotation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import gcd, lcm
from typing import Any

from phi4mini.chat.verbatim_json import to_json
from phi4mini.errors import BadInput
from phi4mini.grammar import schema_recursion
from phi4mini.grammar.schema_keywords import KeywordRewriter

MOST_BYTES = 256 << 10
MOST_PATTERN = 4096  # characters of one regular expression
_MOST_DEPTH = 64  # brackets within brackets, the same bound as for arguments in `chat/call_json.py`
_MOST = {  # counted over the whole schema
    "objects": 5_000,
    "properties": 1_000,
    "required names": 1_000,
    "patterns of properties": 64,  # llguidance compares every pair
    "enum values": 10_000,
    "references": 500,  # llguidance resolves them recursively; some thousand in a row overflow the stack
    "formats": 500,
    "characters of patterns": 16_384,
}
_COUNTED = {
    "properties": "properties",
    "required": "required names",
    "patternProperties": "patterns of properties",
    "enum": "enum values",
}
_MOST_REMAINDERS = 50_000  # states of the automaton that enforces multipleOf

# One space where models write one, no other whitespace: a weak model emits optional whitespace in an endless loop.
SPACING = {
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,
    "lenient": False,
    "coerce_one_of": False,
}
# A property name spelled "\\u0061b" escapes llguidance's check of the pattern ^a, so \\u escapes are forbidden there.
_ONE_SPELLING = {"json_allowed_escapes": 'nrbtf\\"'}


@dataclass
class _Seen:
    """Counts of a walk over a schema."""

    size: int = 0  # lower bound of the JSON's size in bytes
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_MOST, 0))
    multiples: set[Fraction] = field(default_factory=set)

    def add(self, what: str, amount: int) -> None:
        self.counts[what] += amount
        if self.counts[what] > _MOST[what]:
            raise BadInput(f"the schema has more than {_MOST[what]} {what}")


def prepared(schema: object, dropped: list[str] | None = None, exclusive: bool = True) -> dict[str, Any]:
    """The schema, checked and rewritten, with our spacing. Raises BadInput that names the fault.

    A keyword that cannot be enforced is refused if `dropped` is None, else left out and its place added to `dropped`.
    `exclusive=False` treats oneOf as anyOf and adds its place to `dropped`.
    """
    if schema is True:
        schema = {}
    if schema is False:
        raise BadInput("the schema is false: nothing can satisfy it")
    if not isinstance(schema, Mapping):
        raise BadInput(f"the schema must be an object or a boolean, got {type(schema).__name__}")
    if "x-guidance" in schema:
        raise BadInput("the schema sets x-guidance; how JSON is spaced is not for a schema to say")
    check_bounds(schema)
    size = len(to_json(dict(schema)).encode())
    if size > MOST_BYTES:
        raise BadInput(f"the schema has {size} bytes; at most {MOST_BYTES} are possible")
    walk = KeywordRewriter(schema, dropped, exclusive)
    followed = walk.followed()
    schema_recursion.check(followed)
    return {**followed, "x-guidance": {**SPACING, **(_ONE_SPELLING if walk.names_by_pattern else {})}}


def check_bounds(schema: object) -> None:
    """Check depth, size and counts of a schema or a list of schemas. Raises BadInput that names the bound.

    Iterative and bounded, so that it ends soon on any input, a schema that contains itself included.
    """
    seen = _Seen()
    todo: list[tuple[Any, int]] = [(schema, 1)]
    while todo:
        value, depth = todo.pop()
        if isinstance(value, (Mapping, list, tuple)):
            if depth > _MOST_DEPTH:
                raise BadInput(f"the schema is more than {_MOST_DEPTH} brackets deep")
            inside = list(value.values()) if isinstance(value, Mapping) else value
            todo += [(part, depth + 1) for part in inside]
            seen.size += 2 + 2 * len(inside)
            if isinstance(value, Mapping):
                _count(value, seen)
        elif isinstance(value, str):
            seen.size += len(value)
        if seen.size > MOST_BYTES:
            raise BadInput(f"the schema has more than {MOST_BYTES} bytes")
    _check_multiples(seen.multiples)


def _count(value: Mapping[Any, Any], seen: _Seen) -> None:
    """Count one object. Data in `enum` and the object under `properties` look like schemas and are counted too."""
    wrong = next((key for key in value if not isinstance(key, str)), None)
    if wrong is not None:
        raise BadInput(f"the schema has the key {wrong!r:.80}, which is no string")
    seen.size += sum(map(len, value))
    seen.add("objects", 1)
    for key, what in _COUNTED.items():
        if isinstance(value.get(key), (Mapping, list)):
            seen.add(what, len(value[key]))
    seen.add("references", isinstance(value.get("$ref"), str))
    seen.add("formats", isinstance(value.get("format"), str))
    patterns = value.get("patternProperties")
    for pattern in (value.get("pattern"), *(patterns if isinstance(patterns, Mapping) else ())):
        if isinstance(pattern, str):
            if len(pattern) > MOST_PATTERN:
                raise BadInput(f"the schema has a pattern of {len(pattern)} characters; the most is {MOST_PATTERN}")
            seen.add("characters of patterns", len(pattern))
    step = value.get("multipleOf")
    if isinstance(step, (int, float)) and not isinstance(step, bool) and 0 < step < float("inf"):
        seen.multiples.add(Fraction(str(step)))


def _check_multiples(steps: set[Fraction]) -> None:
    """Check that each multipleOf, and their common multiple, has few remainders. Raises BadInput."""
    values = ", ".join(f"{float(step):.17g}" for step in sorted(steps)[:4])
    if any(_remainders(step) > _MOST_REMAINDERS for step in steps) or (
        steps and _remainders(_common(steps)) > _MOST_REMAINDERS
    ):
        raise BadInput(f"the schema's multipleOf ({values}) has more than {_MOST_REMAINDERS} remainders to tell apart")


def _common(steps: set[Fraction]) -> Fraction:
    return Fraction(lcm(*(step.numerator for step in steps)), gcd(*(step.denominator for step in steps)))


def _remainders(step: Fraction) -> int:
    """The step scaled to an integer: the number of remainders that a digit-by-digit check distinguishes."""
    scale = 1
    while scale < _MOST_REMAINDERS and scale * step % 1:
        scale *= 10
    return int(scale * step)
