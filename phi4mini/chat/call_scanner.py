"""One call as JSON, read character by character: name, arguments as they grow, and whether it is a call at all.

`parameters` stands for `arguments` where the name is one of the known ones, unless its value is a schema: then it is
the tool's own description. Promises that nesting, strings and escapes are followed exactly (a `]` or `}` inside a
string ends nothing), that the argument text handed out, joined, is valid JSON once the object is complete, and that
what is not a call is known as early as its first wrong key. Raw line breaks inside strings, which models do write, are
passed on escaped. Knows nothing of lists, tags or tools (`call_parser.py`).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from phi4mini.chat.json_text import member

_MOST_NESTED = 64  # brackets within brackets; more is no argument list but an attack on the parser
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
        self.given = False  # whether there are arguments, under either name; set when done
        self._known, self._alias = known, "arguments"
        self.done = False
        self.arguments: dict[str, Any] | None = None  # set when done, and with it
        self.text = ""  # the same as it was written
        self._clean: list[str] = []  # all text so far, control characters in strings escaped
        self._open: list[str] = []  # closers that are due
        self._in_string = False
        self._escaped = False
        self._keys: set[str] = set()
        self._key: str | None = None  # the top-level key whose value is being read; None: reading a key
        self._from = 0  # where in `_clean` the present key or value begins
        self._first = ""  # first character of the present value
        self._live: list[str] = []  # argument text
        self._taken = 0  # how much of it was handed out

    @property
    def started(self) -> bool:
        """It is a call by all signs: name known and arguments begun (or complete)."""
        return self.name is not None and (bool(self._live) or self.done)

    def take(self) -> str:
        """Argument text since the last `take`; only meaningful once `started`."""
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
    """The text of arguments that were not handed out as they grew: an object, a JSON string of one, or nothing."""
    if isinstance(arguments, str):
        return arguments.strip() or "{}"
    return "{}" if arguments is None else member(call, key) or "{}"


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "object" and isinstance(value.get("properties"), dict)


def _object(arguments: Any) -> dict[str, Any]:
    """Arguments as an object: given as one, as a JSON string of one, or left out."""
    if isinstance(arguments, str):
        arguments = _loads(arguments) if arguments.strip() else {}
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise NotACall("the arguments must be an object")
    return arguments
