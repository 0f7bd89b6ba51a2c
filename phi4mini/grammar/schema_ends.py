"""Whether every part of a schema has a value that ends: a reference to itself must leave a way out.

`{"$ref": "#"}` has no value at all; an object whose required property is such an object again has only endless ones.
Promises to refuse those, naming the place, and to let a tree pass, whose children are optional or may be an empty
list. Where it cannot tell (anchors, documents with an `$id`), it says yes and llguidance decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from phi4mini.errors import BadInput
from phi4mini.grammar.schema_unions import target

Schema = Mapping[str, Any]

_IN_OBJECT = ("additionalProperties", "items", "additionalItems")
_IN_LIST = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_IN_NAMES = ("properties", "patternProperties")


def check(schema: Schema) -> None:
    """Raises BadInput naming the first place, in order of appearance, whose values cannot end."""
    places, users = _reachable(schema)
    finite: set[int] = set()
    failed: set[int] = set()
    for node, _ in reversed(places.values()):  # parts come before what they are parts of, but for references back
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
    """Every schema that can be met from the root, with its place, and which schemas use it; both by identity."""
    places: dict[int, tuple[Schema, str]] = {}
    users: dict[int, list[Schema]] = {}
    todo: list[tuple[Any, str]] = [(root, "#")]
    while todo:
        node, place = todo.pop()
        if isinstance(node, Mapping) and id(node) not in places:
            places[id(node)] = (node, place)
            parts = _parts(node, place)
            if isinstance(node.get("$ref"), str):
                parts.insert(0, (target(root, node["$ref"]), node["$ref"]))
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
    """Whether a value that ends is known, given the schemas already known to have one."""

    def known(part: Any) -> bool:
        return not isinstance(part, Mapping) or id(part) in finite

    if isinstance(node.get("$ref"), str) and not known(target(root, node["$ref"])):
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
