"""From a body's bytes to its type: what is wrong with them, said with the place, and with what would be right.

Promises: every refusal is a 400 that names a byte or a field; of a field with only so many values, all of them. It
knows no route.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec.inspect import LiteralType, StructType, UnionType, type_info

from phi4mini.chat.verbatim_json import Number, number, plain
from phi4mini.server.http.errors import ApiError

_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_ANY_KEY = "[...]"  # how msgspec writes an entry of an object, whichever it is
_NEVER = "Expected `null`, got"  # of a field whose type is null: it is there to be refused by name
_MOST_SHOWN = 40  # characters of a key
_CONVERSATIONS = ("messages", "input")  # fields in which a number is as it was written: calls are in them


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object. Raises 400 `invalid_json`."""
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
    """The values of the field at this place, if it has only so many."""
    types: list[Any] = [type_info(kind)]
    for name in where.split("."):
        fields = [field for one in types if isinstance(one, StructType) for field in one.fields]
        named = [field.type for field in fields if field.encode_name == name]
        types = [one for type in named for one in (type.types if isinstance(type, UnionType) else (type,))]
    return [str(value) for one in types if isinstance(one, LiteralType) for value in one.values]


def _exact(given: dict[str, Any], kind: Any, where: str) -> str:
    """The place with the key of an entry that is wrong, which is found by halving."""
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
