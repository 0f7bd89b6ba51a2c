"""A schema's keywords as the grammar can follow them: rewritten, left out where they say nothing, refused or dropped.

Drafts and dialects meet here: an https `$schema`, draft 4's boolean `exclusiveMinimum`, a discriminated union whose tag
is not required, patterns of ECMA-262 (`schema_patterns.py`). Promises that what comes out admits nothing that the
schema, but for the dropped places, refuses; that each dropped place is named; that what is no JSON schema at all is a
`BadInput` in any case. It never looks into `enum`, `const`, `default` and `examples`, which are data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from phi4mini.errors import BadInput
from phi4mini.grammar import schema_unions
from phi4mini.grammar.schema_patterns import rewritten

TYPES = ("null", "boolean", "number", "integer", "string", "array", "object")
FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown")
_ANNOTATIONS = {"title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly"}
_DATA = {"enum", "const", "default", "examples"}
_ONE = {"additionalProperties", "items", "additionalItems"}  # keywords that hold a schema, or by name, or in a list
_BY_NAME = {"properties", "patternProperties", "$defs", "definitions"}
_LISTS = {"allOf", "anyOf", "oneOf", "prefixItems"}
_UNFOLLOWED = {
    *("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "propertyNames"),
    *("dependentRequired", "dependentSchemas", "dependencies", "unevaluatedItems", "unevaluatedProperties"),
    *("$dynamicRef", "$recursiveRef"),
}
_EXPECTED: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("pattern", "format", "$ref"), ((str,), "string")),
    **dict.fromkeys(_BY_NAME, ((Mapping,), "object")),
    **dict.fromkeys(_LISTS, ((list,), "array of schemas")),
    **dict.fromkeys(("additionalProperties", "additionalItems", "not", "if"), ((Mapping, bool), "schema")),
    "items": ((Mapping, bool, list), "schema"),
    "required": ((list, bool), "array of strings"),  # draft 3 had a boolean
    "enum": ((list,), "array"),
    **dict.fromkeys(("minimum", "maximum", "multipleOf", "minLength", "maxLength"), ((int, float), "number")),
    **dict.fromkeys(("minItems", "maxItems", "minProperties", "maxProperties"), ((int, float), "number")),
}
_DRAFT = re.compile(r"https?://json-schema\.org/(?:(draft/20(?:19-09|20-12)|draft-0[467])/)?schema#?")


class Walk:
    """One schema on its way. `dropped`: where the places that are left out are noted; None refuses instead.

    `exclusive`: whether oneOf stays; else it becomes anyOf, which is noted.
    """

    def __init__(self, root: Mapping[str, Any], dropped: list[str] | None, exclusive: bool = True) -> None:
        self._root, self._dropped, self._exclusive = root, dropped, exclusive
        self.names_by_pattern = False  # whether a name that no pattern has is a property all the same, once followed

    def followed(self) -> dict[str, Any]:
        """The schema, rewritten. Raises BadInput with the place. The schema must not be deeper than the bounds."""
        made = self._schema(self._root, "")
        if not isinstance(made, dict):
            raise BadInput("the schema refuses everything: nothing can satisfy it")
        return made

    def _drop(self, place: str, why: str) -> None:
        if self._dropped is None:
            raise BadInput(f"{place}: {why}")
        self._dropped.append(place)

    def _schema(self, node: Any, place: str) -> Any:
        """One schema; False for one that admits nothing."""
        if not isinstance(node, Mapping):
            return node
        _check(node, place)
        if says_nothing(node.get("not", False)):
            return False
        made: dict[str, Any] = {}
        for key, value in node.items():
            self._keyword(node, key, value, f"{place}.{key}" if place else key, made)
        self._bounds(made, place)
        self.names_by_pattern |= bool(made.get("patternProperties")) and made.get("additionalProperties") is not False
        return made

    def _keyword(self, node: Mapping[str, Any], key: str, value: Any, at: str, made: dict[str, Any]) -> None:
        if key in _UNFOLLOWED:
            if not _empty(node, key, value):
                self._drop(at, f'not supported: "{key}"')
        elif key == "required" and isinstance(value, bool):
            self._drop(at, "required must be a list of names, as it is since draft 4")
        elif key == "$schema":
            self._dialect(value, at, made)
        elif key == "format":
            types = node.get("type", "string")
            if value in FORMATS or (types != "string" and "string" not in types):
                made[key] = value
            else:
                self._drop(at, f"Unknown format: {value}")
        elif key == "pattern":
            self._pattern(value, at, made)
        elif key == "$ref" and self._dropped is not None and self._leads_nowhere(value):
            self._dropped.append(at)
        elif key == "oneOf" and not self._exclusive and "anyOf" not in node:
            made["anyOf"] = self._inside("anyOf", value, at)
            self._drop(at, "options that may overlap are not supported; use anyOf")
        else:
            made[key] = self._inside(key, value, at)

    def _inside(self, key: str, value: Any, at: str) -> Any:
        """The value of a keyword that may hold schemas."""
        if key == "patternProperties":
            return self._names(value, at)
        if key in _BY_NAME:
            return {name: self._schema(part, f"{at}.{name}") for name, part in value.items()}
        if key in _LISTS or (key == "items" and isinstance(value, list)):
            parts = [self._schema(part, f"{at}.{i}") for i, part in enumerate(value)]
            return schema_unions.apart(self._root, parts) if key == "oneOf" else parts
        if key in _ONE:
            return self._schema(value, at)
        return value if key in _DATA else _elsewhere(value)

    def _names(self, given: Mapping[str, Any], at: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, part in given.items():
            found: dict[str, Any] = {}
            self._pattern(name, f"{at}.{name}", found)
            if found:
                made[found["pattern"]] = self._schema(part, f"{at}.{name}")
        return made

    def _pattern(self, pattern: str, at: str, made: dict[str, Any]) -> None:
        try:
            made["pattern"] = rewritten(pattern)
        except BadInput as error:
            self._drop(at, str(error))

    def _dialect(self, given: Any, at: str, made: dict[str, Any]) -> None:
        """Drafts that are known under their one right name; of the rest nothing is known."""
        found = _DRAFT.fullmatch(given) if isinstance(given, str) else None
        if found is None:
            self._drop(at, f"the dialect {given!r:.80} is not known")
        elif found[1] and at == "$schema":
            made["$schema"] = f"http{'s' * ('/' in found[1])}://json-schema.org/{found[1]}/schema#"

    def _bounds(self, made: dict[str, Any], place: str) -> None:
        """What llguidance cannot count, and how draft 4 wrote its bounds."""
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if isinstance(made.get(exclusive), bool) and made.pop(exclusive) and bound in made:
                made[exclusive] = made.pop(bound)
        limits = [key for key in ("minProperties", "maxProperties") if key in made]
        if limits and not _countable(made) and self._dropped is not None:
            for key in limits:
                del made[key]
                self._dropped.append(f"{place}.{key}" if place else key)

    def _leads_nowhere(self, reference: str) -> bool:
        """Whether what it names is surely not in this document; where there are names of its own, llguidance knows."""
        if reference == "#" or reference.startswith("#/"):
            return schema_unions.target(self._root, reference) is None
        return not reference.startswith("#") and "$id" not in self._root and "id" not in self._root


def _elsewhere(value: Any) -> Any:
    """Under a word that is no keyword a reference may still point: patterns hold there too."""
    if isinstance(value, list):
        return [_elsewhere(part) for part in value]
    if not isinstance(value, Mapping):
        return value
    made = {key: part if key in _DATA else _elsewhere(part) for key, part in value.items()}
    if isinstance(made.get("pattern"), str):
        made["pattern"] = _quietly(made["pattern"])
    if isinstance(made.get("patternProperties"), dict):
        made["patternProperties"] = {_quietly(name): part for name, part in made["patternProperties"].items()}
    return made


def _quietly(pattern: str) -> str:
    """Rewritten; one that cannot be stays as it is, and llguidance refuses it if it is ever used."""
    try:
        return rewritten(pattern)
    except BadInput:
        return pattern


def _check(node: Mapping[str, Any], place: str) -> None:
    """Keywords whose value makes it no JSON schema."""
    where = f"{place}: " if place else ""
    for key in node.keys() & _EXPECTED.keys():
        kinds, what = _EXPECTED[key]
        value = node[key]
        fits = bool in kinds if isinstance(value, bool) else isinstance(value, kinds)
        if not fits:
            raise BadInput(f"{where}Expected {what} for {key!r}, got {value!r:.60}")
    types = node.get("type", [])
    named = [types] if isinstance(types, str) else types
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise BadInput(f"{where}type must be a string or array of strings, got {types!r:.60}")
    if wrong := [name for name in named if name not in TYPES]:
        raise BadInput(f"{where}Invalid type: {wrong[0]:.60}; it can be {', '.join(TYPES)}")


def says_nothing(schema: Any) -> bool:
    """Whether every value fits: true, or annotations alone."""
    return schema is True or (isinstance(schema, Mapping) and set(schema) <= _ANNOTATIONS)


def _empty(node: Mapping[str, Any], key: str, value: Any) -> bool:
    """Whether a keyword that cannot be followed says nothing here."""
    match key:
        case "uniqueItems":
            return value is False
        case "not":
            return value is False
        case "propertyNames":
            named = isinstance(value, Mapping) and value.get("type") in ("string", ["string"])
            return says_nothing(value) or (named and says_nothing({k: v for k, v in value.items() if k != "type"}))
        case "if":
            return "then" not in node and "else" not in node
        case "then" | "else":
            return "if" not in node or says_nothing(value)
        case "contains":
            return node.get("minContains") == 0 and "maxContains" not in node
        case "minContains" | "maxContains":
            return "contains" not in node or (key == "minContains" and value in (0, 1))
        case "unevaluatedItems" | "unevaluatedProperties":
            return says_nothing(value)
        case "dependentRequired" | "dependentSchemas" | "dependencies":
            return isinstance(value, Mapping) and all(part == [] or says_nothing(part) for part in value.values())
    return False


def _countable(node: Mapping[str, Any]) -> bool:
    """Whether llguidance can count this object's properties: those that are named must be there."""
    names, required = node.get("properties") or {}, node.get("required") or []
    if all(name in required for name in names):
        return True
    closed = node.get("additionalProperties") is False and not node.get("patternProperties")
    return closed and node.get("minProperties", 1) <= 1 and node.get("maxProperties", 1) == 1
