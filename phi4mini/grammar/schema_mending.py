"""A schema that is not meant strictly: what cannot be followed is left out, as little of it as possible, and named.

First single keywords, then that the options of a oneOf exclude each other, then whole properties, at last all of it.
Promises that what is no JSON schema, and what nothing can satisfy, is still refused, and that nothing is left out in
silence. A schema that can be followed comes out as if it were meant strictly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from phi4mini.errors import BadInput
from phi4mini.grammar import schema

Compiles = Callable[[Mapping[str, Any]], object]  # raises Unfollowed for a prepared schema


class Unfollowed(BadInput):
    """A prepared schema that llguidance cannot follow."""


_MOST_TRIALS = 64  # properties that are tried alone, each some milliseconds; a schema with more is left out whole


def mended(given: object, compiles: Compiles, dropped: list[str]) -> dict[str, Any]:
    """The schema without what cannot be followed, whose places are added to `dropped`.

    Raises BadInput for what is no schema, and Unfollowed where nothing of it can be held.
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


def culprits(made: Mapping[str, Any], compiles: Compiles) -> list[str]:
    """The properties of a prepared schema that cannot be followed even alone."""
    properties = made.get("properties") or {}
    rest = {key: value for key, value in made.items() if key not in ("minProperties", "maxProperties")}
    return [
        name
        for name, part in properties.items()
        if not works({**rest, "properties": {name: part}, "required": [name]}, compiles)
    ]


def works(made: Mapping[str, Any], compiles: Compiles) -> bool:
    """Whether a prepared schema can be followed."""
    try:
        compiles(made)
    except BadInput:
        return False
    return True


def _within(place: str, names: Sequence[str]) -> bool:
    return any(f"{place}.".startswith(f"properties.{name}.") for name in names)
