"""Reads the JSON object of one tool call, character by character: the name, and the arguments as they arrive.

`parameters` is accepted for `arguments` if the named function is known, unless the value is a schema: then the model
repeated the tool's description. Promises exact nesting, strings and escapes (a `]` or `}` inside a string closes
nothing), that the argument pieces joined are valid JSON once the object is complete, and that an object which is no
call is rejected at its first wrong key. Raw line breaks inside strings, which models do write, are escaped. Knows
nothing of lists, tags or tools (`reply_calls.py`).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from phi4mini.chat.verbatim_json import member

_MOST_NESTED = 64  # brackets within brackets; deeper input is an attack on the JSON parser
_KEYS = frozenset({"name", "arguments", "id", "type", "function"})  # any other key before the arguments: not a call
_CLOSER = {"{": "}", "[": "]"}


class NotACall(Exception):
    """The text so far cannot become a call."""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _loads(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # an escaped lone surrogate is no text
    except (ValueError, RecursionError) as error:
        raise NotACall(str(error)) from None
    return value


class CallScanner:
    """Feed the characters from `{` on; `done` after the closing `}`. `feed` raises NotACall."""

    def __init__(self, known: Collection[str] = ()) -> None:
        """`known`: names of the functions that can be called."""
        self.name: str | None = None
        self.given = False  # True if there are arguments, under either name; set when done
        self._known, self._alias = known, "arguments"
        self.done = False
        self.arguments: dict[str, Any] | None = None  # set when done
        self.text = ""  # the arguments as they were written; set when done
        self._clean: list[str] = []  # all text so far, control characters in strings escaped
        self._open: list[str] = []  # closing brackets still to come
        self._in_string = False
        self._escaped = False
        self._keys: set[str] = set()
        self._key: str | None = None  # the top-level key whose value is being read; None: reading a key
        self._from = 0  # index in `_clean` where the current key or value begins
        self._first = ""  # first character of the current value
        self._live: list[str] = []  # argument text
        self._taken = 0  # number of pieces of `_live` already handed out

    @property
    def started(self) -> bool:
        """True once the name was read and the arguments began: from then on the object is taken for a call."""
        return self.name is not None and (bool(self._live) or self.done)

    def take(self) -> str:
        """Argument text since the last `take`; call only once `started`."""
        text = "".join(self._live[self._taken :])
        self._taken = len(self._live)
        return text

    def feed(self, char: str) -> None:
        """One more character. Raises NotACall."""
        if self._in_string:
            self._clean.append(json.dumps(char)[1:-1] if char < " " else char)
            self._inside_string(char)
        else:
            self._clean.append(char)
            self._outside_string(char)
        if self._key == "arguments" and len(self._open) >= 2 and self._first == "{":
            self._live.append(self._clean[-1])

    def _inside_string(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._in_string = False

    def _outside_string(self, char: str) -> None:
        top = len(self._open) == 1
        if self._key is not None and not self._first and not char.isspace():
            self._first = char
        if char == '"':
            self._in_string = True
        elif char in _CLOSER:
            self._push(char)
        elif char in "}]":
            self._pop(char)
        elif char == ":" and top and self._key is None:
            self._end_key()
        elif char == "," and top:
            self._end_value()
        elif top and self._key is None and not char.isspace():
            raise NotACall("a key must be a string")

    def _push(self, char: str) -> None:
        if len(self._open) == 1 and self._key is None:
            raise NotACall("a key must be a string")
        if len(self._open) == _MOST_NESTED:
            raise NotACall(f"more than {_MOST_NESTED} brackets deep")
        self._open.append(_CLOSER[char])
        if len(self._open) == 1:
            self._from = len(self._clean)

    def _pop(self, char: str) -> None:
        if self._open.pop() != char:
            raise NotACall("brackets do not match")
        if self._open:
            if self._key == "arguments" and len(self._open) == 1 and self._live:
                self._live.append(char)  # the last bracket of the arguments; the rule in `feed` no longer sees it
            return
        if self._key is not None:
            self._end_value(at_end=True)
        self._finish()

    def _part(self) -> str:
        return "".join(self._clean[self._from : -1]).strip()

    def _end_key(self) -> None:
        key = _loads(self._part())
        if key == "parameters" and "arguments" not in self._keys and self._may_be_known(self.name):
            key, self._alias = "arguments", key
        if key in self._keys or (key not in _KEYS and "arguments" not in self._keys):
            raise NotACall(f"key {key!r}")
        self._keys.add(key)
        self._key, self._from, self._first = key, len(self._clean), ""

    def _end_value(self, at_end: bool = False) -> None:
        if self._key is None:
            raise NotACall("a comma without a value")
        value = self._part()
        if self._key == "name":
            name = _loads(value)
            if not isinstance(name, str) or not name:
                raise NotACall("the name must be a string")
            if self._alias == "parameters" and not self._may_be_known(name):
                raise NotACall("parameters are arguments of known functions only")
            self.name = name
        self._key, self._from = None, len(self._clean)

    def _may_be_known(self, name: str | None) -> bool:
        return bool(self._known) if name is None else name in self._known

    def _finish(self) -> None:
        text = "".join(self._clean)
        call = _loads(text)
        if isinstance(call.get("function"), dict):
            if self._live:
                raise NotACall("arguments beside a function")
            text, call = member(text, "function") or "", call["function"]
        if not isinstance(call.get("name"), str) or not call["name"]:
            raise NotACall("no name")
        named = "arguments" not in call and call["name"] in self._known  # also of a call inside "function"
        alias = "parameters" if named else "arguments"
        arguments = call.get(alias)
        if alias == "parameters" and _is_schema(arguments):
            raise NotACall("the description of a function")
        self.given = alias in call
        self.name, self.arguments, self.done = call["name"], _object(arguments), True
        if not self._live:
            self._live.append(_written(text, alias, arguments))
        self.text = "".join(self._live)


def _written(call: str, key: str, arguments: Any) -> str:
    """The text of arguments that were not handed out piece by piece: an object, a JSON string of one, or nothing."""
    if isinstance(arguments, str):
        return arguments.strip() or "{}"
    return "{}" if arguments is None else member(call, key) or "{}"


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "object" and isinstance(value.get("properties"), dict)


def _object(arguments: Any) -> dict[str, Any]:
    """The arguments, given as an object, as a JSON string of one, or left out. Raises NotACall."""
    if isinstance(arguments, str):
        arguments = _loads(arguments) if arguments.strip() else {}
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise NotACall("the arguments must be an object")
    return arguments
