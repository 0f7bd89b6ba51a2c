"""A schema that is not strict: parts that cannot be enforced are left out, as few as possible, and reported.

First single keywords are left out, then the exclusiveness of oneOf, then whole properties, at last the whole schema.
Promises that an invalid JSON schema, and one that nothing satisfies, is still refused, and that every place left out is
reported. A schema that can be enforced comes out the same as in strict mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from phi4mini.errors import BadInput
from phi4mini.grammar import schema

CheckCompiles = Callable[[Mapping[str, Any]], object]  # raises UnsupportedSchema if llguidance refuses the schema


class UnsupportedSchema(BadInput):
    """llguidance cannot enforce a prepared schema."""


_MOST_TRIALS = 64  # properties tried one by one, some milliseconds each; a schema with more is left out whole


def lenient(given: object, compiles: CheckCompiles, dropped: list[str]) -> dict[str, Any]:
    """The schema without the parts that cannot be enforced; their places are added to `dropped`.

    Raises BadInput for an invalid schema, and UnsupportedSchema if nothing of it can be enforced.
    """
    for exclusive in (True, False):
        places: list[str] = []
        made = schema.prepared(given, places, exclusive)
        if works(made, compiles):
            dropped += places
            return made
    names = culprits(made, compiles) if len(made.get("properties") or ()) <= _MOST_TRIALS else []
    freed = {name: {} if name in names else part for name, part in (made.get("properties") or {}).items()}
    made = {**made, "properties": freed} if names else made
    compiles(made)
    dropped += [place for place in places if not _within(place, names)]
    dropped += [f"properties.{name}" for name in names]
    return made


def culprits(made: Mapping[str, Any], compiles: CheckCompiles) -> list[str]:
    """The properties of a prepared schema that cannot be enforced even alone."""
    properties = made.get("properties") or {}
    rest = {key: value for key, value in made.items() if key not in ("minProperties", "maxProperties")}
    return [
        name
        for name, part in properties.items()
        if not works({**rest, "properties": {name: part}, "required": [name]}, compiles)
    ]


def works(made: Mapping[str, Any], compiles: CheckCompiles) -> bool:
    """True if a prepared schema can be enforced."""
    try:
        compiles(made)
    except BadInput:
        return False
    return True


def _within(place: str, names: Sequence[str]) -> bool:
    return any(f"{place}.".startswith(f"properties.{name}.") for name in names)
