"""Names of the fields below the top level of a body that nothing reads.

Promises: a named field was sent, is not null, and changes nothing; all entries of a list count as one place
(`messages.x`), so the result stays short. A field is read if the object's schema (`body_schemas.OF`) or its struct has
it. Two kinds of objects are not looked into: the caller's own data (JSON schemas, functions, arguments), and list
entries that are ignored as a whole, of which a schema knows the type only. It refuses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec
from msgspec.inspect import StructType, UnionType, type_info

from phi4mini.server.http import body_schemas

# Not worth naming in any object: its type and labels, fields of our own answers that come back in a history, and fields
# that ask for what happens anyway (a schema is always followed, prompts are always cached).
_SILENT = {"type", "id", "name", "description", "index", "status", "annotations", "logprobs", "refusal", "phase"}
_SILENT |= {"citations", "caller", "strict", "cache_control", "tools"}


def unread(given: Mapping[str, Any], kind: Any) -> list[str]:
    """Names of the unread fields in a body of type `kind`, each once, in their order."""
    return list(dict.fromkeys(_in_struct(given, kind, "")))


def _in_struct(given: Mapping[str, Any], kind: Any, where: str) -> Iterator[str]:
    described, inner = body_schemas.OF.get(kind.__name__, {}), _structs(kind)
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
    """The fields of a struct that are structs themselves."""
    info = type_info(kind)
    assert isinstance(info, StructType)
    found: dict[str, Any] = {}
    for field in info.fields:
        types = field.type.types if isinstance(field.type, UnionType) else (field.type,)
        found.update((field.encode_name, one.cls) for one in types if isinstance(one, StructType))
    return found


def _in_value(value: Any, choices: list[body_schemas.Schema], where: str, listed: bool = False) -> Iterator[str]:
    """Unread fields of a value that has one of these shapes, if it is valid."""
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


def _flat(choices: list[body_schemas.Schema]) -> Iterator[body_schemas.Schema]:
    for shape in choices:
        inner = shape.get("anyOf") or shape.get("oneOf")
        yield from _flat(inner) if inner else [shape]


def _fits(value: Mapping[str, Any], shape: body_schemas.Schema) -> bool:
    """True if the fields that tell an object's kind (`type`, `role`) have this shape's values."""
    for name, inner in shape["properties"].items():
        allowed = [inner["const"]] if "const" in inner else inner.get("enum")
        if allowed is not None and name in value and value[name] not in allowed:
            return False
    return True
