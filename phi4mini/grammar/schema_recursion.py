"""Recursive schemas: refuse those whose values could never end.

`{"$ref": "#"}` has no value; an object that requires a property of its own kind has only infinite values. Promises to
refuse these with the place, and to accept a tree, whose children are optional or an array that may be empty. A schema
that it cannot resolve (anchors, documents with an `$id`) is accepted, and llguidance decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from phi4mini.errors import BadInput
from phi4mini.grammar.schema_oneof import resolve_pointer

Schema = Mapping[str, Any]

_IN_OBJECT = ("additionalProperties", "items", "additionalItems")
_IN_LIST = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_IN_NAMES = ("properties", "patternProperties")


def check(schema: Schema) -> None:
    """Raises BadInput that names the first place, in order of appearance, whose values cannot end."""
    places, users = _reachable(schema)
    finite: set[int] = set()
    failed: set[int] = set()
    for node, _ in reversed(places.values()):  # parts before the schemas that contain them, except for references back
        todo = [node]
        while todo:
            one = todo.pop()
            if id(one) not in finite and _ends(one, schema, finite):
                finite.add(id(one))
                todo += [user for user in users.get(id(one), ()) if id(user) in failed]
            else:
                failed.add(id(one))
    for node, place in places.values():
        if id(node) not in finite:
            raise BadInput(f"the schema is circular at {place}: its values would have no end")


def _reachable(root: Schema) -> tuple[dict[int, tuple[Schema, str]], dict[int, list[Schema]]]:
    """Every schema reachable from the root with its place, and the schemas that use it; both keyed by `id(schema)`."""
    places: dict[int, tuple[Schema, str]] = {}
    users: dict[int, list[Schema]] = {}
    todo: list[tuple[Any, str]] = [(root, "#")]
    while todo:
        node, place = todo.pop()
        if isinstance(node, Mapping) and id(node) not in places:
            places[id(node)] = (node, place)
            parts = _parts(node, place)
            if isinstance(node.get("$ref"), str):
                parts.insert(0, (resolve_pointer(root, node["$ref"]), node["$ref"]))
            for part, _ in parts:
                users.setdefault(id(part), []).append(node)
            todo += reversed(parts)
    return places, users


def _parts(node: Schema, place: str) -> list[tuple[Any, str]]:
    parts = [(node.get(key), f"{place}/{key}") for key in _IN_OBJECT]
    for key in _IN_LIST:
        if isinstance(node.get(key), list):
            parts += [(part, f"{place}/{key}/{i}") for i, part in enumerate(node[key])]
    for key in _IN_NAMES:
        if isinstance(node.get(key), Mapping):
            parts += [(part, f"{place}/{key}/{name}") for name, part in node[key].items()]
    return parts


def _ends(node: Schema, root: Schema, finite: set[int]) -> bool:
    """True if the schema has a finite value, given the schemas (`finite`, by id) already known to have one."""

    def known(part: Any) -> bool:
        return not isinstance(part, Mapping) or id(part) in finite

    if isinstance(node.get("$ref"), str) and not known(resolve_pointer(root, node["$ref"])):
        return False
    if isinstance(node.get("allOf"), list) and not all(map(known, node["allOf"])):
        return False
    for key in ("anyOf", "oneOf"):
        options = node.get(key)
        if isinstance(options, list) and options and not any(map(known, options)):
            return False
    types = node.get("type")
    types = {types} if isinstance(types, str) else set(map(str, types)) if isinstance(types, list) else set()
    if "const" in node or "enum" in node or not types or types - {"object", "array"}:
        return True
    return ("object" in types and _object_ends(node, known)) or ("array" in types and _array_ends(node, known))


def _object_ends(node: Schema, known: Callable[[Any], bool]) -> bool:
    properties = node.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    required = node.get("required")
    names = required if isinstance(required, list) else []
    return all(known(properties.get(name, node.get("additionalProperties"))) for name in map(str, names))


def _array_ends(node: Schema, known: Callable[[Any], bool]) -> bool:
    least = node.get("minItems")
    least = least if isinstance(least, int) else 0
    items = node.get("items")
    first = node.get("prefixItems", items)
    first = first if isinstance(first, list) else []
    rest = node.get("additionalItems") if isinstance(items, list) else items
    return all(map(known, first[:least])) and (least <= len(first) or known(rest))
