"""Fields below the top level of a body that nobody reads, by name, as unknown fields of the top level are named.

Promises: what is named was sent, is not null, and changes nothing; all entries of a list are one place (`messages.x`),
so the list stays short. What of an object is read is what its shape says (`part_schemas.OF`), or the struct that it is.
Objects that are data of the caller's (JSON schemas, functions, arguments) are left alone, and so are those that are
left out of a list as a whole, of which a shape knows nothing but the type. It refuses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec
from msgspec.inspect import StructType, UnionType, type_info

from phi4mini.server.openapi import part_schemas

# Of any object: its kind and its labels, what is in our own answers and comes back with them, and what holds anyway
# (a schema is always followed, prompts are cached without being asked to).
_SILENT = {"type", "id", "name", "description", "index", "status", "annotations", "logprobs", "refusal", "phase"}
_SILENT |= {"citations", "caller", "strict", "cache_control", "tools"}


def unread(given: Mapping[str, Any], kind: Any) -> list[str]:
    """Names of such fields in the body of this type, each once, in their order."""
    return list(dict.fromkeys(_in_struct(given, kind, "")))


def _in_struct(given: Mapping[str, Any], kind: Any, where: str) -> Iterator[str]:
    described, inner = part_schemas.OF.get(kind.__name__, {}), _structs(kind)
    for name, value in given.items():
        place = f"{where}{name}"
        if name in described:
            yield from _in_value(value, [described[name]], place)
        elif name in inner and isinstance(value, Mapping):
            known = {field.encode_name for field in msgspec.structs.fields(inner[name])}
            yield from (f"{place}.{key}" for key, one in value.items() if key not in known and one is not None)
            yield from _in_struct(value, inner[name], f"{place}.")


@cache
def _structs(kind: Any) -> dict[str, Any]:
    """Of a struct's fields those that are structs themselves."""
    info = type_info(kind)
    assert isinstance(info, StructType)
    found: dict[str, Any] = {}
    for field in info.fields:
        types = field.type.types if isinstance(field.type, UnionType) else (field.type,)
        found.update((field.encode_name, one.cls) for one in types if isinstance(one, StructType))
    return found


def _in_value(value: Any, choices: list[part_schemas.Schema], where: str, listed: bool = False) -> Iterator[str]:
    """In a value that is of one of these shapes, if it is valid."""
    choices = list(_flat(choices))
    if isinstance(value, list):
        items = [shape["items"] for shape in choices if "items" in shape]
        for one in value:
            yield from _in_value(one, items, where, listed=True)
    elif isinstance(value, Mapping):
        if not all("properties" in shape for shape in choices if shape.get("type") == "object"):
            return
        fitting = [shape["properties"] for shape in choices if "properties" in shape and _fits(value, shape)]
        if listed and "type" in value and any(list(properties) == ["type"] for properties in fitting):
            return
        for key, one in value.items():
            inner = [properties[key] for properties in fitting if key in properties]
            if inner:
                yield from _in_value(one, inner, f"{where}.{key}")
            elif fitting and key not in _SILENT and one is not None:
                yield f"{where}.{key}"


def _flat(choices: list[part_schemas.Schema]) -> Iterator[part_schemas.Schema]:
    for shape in choices:
        inner = shape.get("anyOf") or shape.get("oneOf")
        yield from _flat(inner) if inner else [shape]


def _fits(value: Mapping[str, Any], shape: part_schemas.Schema) -> bool:
    """Whether the fields that tell an object's kind are this shape's."""
    for name, inner in shape["properties"].items():
        allowed = [inner["const"]] if "const" in inner else inner.get("enum")
        if allowed is not None and name in value and value[name] not in allowed:
            return False
    return True
