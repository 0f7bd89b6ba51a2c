"""From a body's bytes to the struct of its route; error messages name the field and the allowed values.

Promises: every refusal is a 400 that names a byte or a field, and for a field with a fixed set of values all of them.
Fields that nothing reads are handed to `ignore`. It knows no route.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.inspect import LiteralType, StructType, UnionType, type_info

from phi4mini.chat.verbatim_json import Number, number, plain
from phi4mini.server.http.errors import ApiError
from phi4mini.server.http.unread_fields import unread

_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_ANY_KEY = "[...]"  # how msgspec writes any entry of an object
_NEVER = "Expected `null`, got"  # msgspec's words for a field whose type is null: it exists to be refused by name
_MOST_SHOWN = 40  # characters of a key
_CONVERSATIONS = ("messages", "input")  # numbers in these keep their spelling, since they hold tool calls


def body_as(kind: Any, body: bytes, ignore: Callable[[Sequence[str]], None]) -> Any:
    """The body as a struct of type `kind`. `ignore` gets the names of fields that nothing reads, and may refuse them.

    Raises 400 naming the byte or the field.
    """
    given = parsed(body)
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    ignore(sorted(key for key in given if key not in known))
    made = typed(given, kind)
    ignore(unread(given, kind))
    return made


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object. Numbers keep their spelling in conversations only. Raises 400 `invalid_json`."""
    kept: list[Number] = []

    def read(text: str) -> float:
        value = number(text)
        if isinstance(value, Number):
            kept.append(value)
        return value

    try:
        given = msgspec.json.Decoder(float_hook=read).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {_why(body, error)}", code="invalid_json") from None
    if not isinstance(given, dict):
        raise ApiError(400, f"the body must be a JSON object, not {type(given).__name__}", code="invalid_json")
    if not kept:
        return given
    return {key: value if key in _CONVERSATIONS else plain(value) for key, value in given.items()}


def typed(given: dict[str, Any], kind: Any) -> Any:
    """The object as a struct of this type. Raises 400 naming the field."""
    try:
        return msgspec.convert(given, kind, strict=True)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), given, kind) from None


def _why(body: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, UnicodeDecodeError):  # its position is one within a string
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as found:
            return f"byte 0x{body[found.start]:02x} at offset {found.start} is not UTF-8"
    return str(error)


def _refusal(text: str, given: dict[str, Any], kind: Any) -> ApiError:
    found = _AT.search(text)
    where, reason = found[1] if found else "", _AT.sub("", text)
    if missing := _MISSING.fullmatch(reason):
        name = f"{where}.{missing[1]}" if where else missing[1]
        return ApiError(400, f"{name} is missing", param=name)
    if reason.startswith(_NEVER):
        return ApiError(400, f"{where} is not supported", param=where, code="unsupported_parameter")
    if allowed := _allowed(kind, where):
        reason += f"; it can be {', '.join(allowed)}"
    if where.endswith(_ANY_KEY) and isinstance(given.get(where.removesuffix(_ANY_KEY)), dict):
        where = _exact(given, kind, where)
    return ApiError(400, f"{where}: {reason}" if where else reason, param=where or None)


def _allowed(kind: Any, where: str) -> list[str]:
    """The allowed values of the field at this place, if its type lists them."""
    types: list[Any] = [type_info(kind)]
    for name in where.split("."):
        fields = [field for one in types if isinstance(one, StructType) for field in one.fields]
        named = [field.type for field in fields if field.encode_name == name]
        types = [one for type in named for one in (type.types if isinstance(type, UnionType) else (type,))]
    return [str(value) for one in types if isinstance(one, LiteralType) for value in one.values]


def _exact(given: dict[str, Any], kind: Any, where: str) -> str:
    """The place with the key of a wrong entry, which is found by bisection: msgspec does not tell it."""
    name = where.removesuffix(_ANY_KEY)

    def wrong(entries: list[tuple[str, Any]]) -> bool:
        try:
            msgspec.convert(given | {name: dict(entries)}, kind, strict=True)
        except msgspec.ValidationError as error:
            return str(error).endswith(f" - at `$.{where}`")
        return False

    entries = list(given[name].items())
    while len(entries) > 1:
        half = len(entries) // 2
        entries = entries[:half] if wrong(entries[:half]) else entries[half:]
    key = ascii(entries[0][0])[1:-1]
    return f"{name}[{key[:_MOST_SHOWN]}]"
