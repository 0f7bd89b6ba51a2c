"""oneOf: rewrite the options so that llguidance can see that no value fits two of them.

llguidance compares the options themselves and does not look behind a `$ref`, so the type of the referenced schema is
written beside the reference. The tag of a discriminated union (a property whose `const` or `enum` differs in every
option) becomes required; schemas made from classes give it a `default` instead. Requiring the tag excludes documents
without the tag that the schema admits; nothing else is excluded, and no document is added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

_MOST_HOPS = 16  # references that point to references


def resolve_pointer(root: Mapping[str, Any], reference: str) -> Any:
    """The node that a `#/...` reference points to in `root`; None if there is none or it is of another kind."""
    if reference not in ("#", "") and not reference.startswith("#/"):
        return None
    node: Any = root
    for part in unquote(reference[1:]).split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping):
            node = node.get(part)
        elif isinstance(node, list) and part.isdecimal() and len(part) < 9 and int(part) < len(node):
            node = node[int(part)]
        else:
            return None
    return node


def exclusive_options(root: Mapping[str, Any], options: Sequence[Any]) -> list[Any]:
    """The options with types and a required tag that make them exclusive; unchanged if nothing distinguishes them."""
    shown = [_resolved(root, option) for option in options]
    if not all(isinstance(one, Mapping) for one in shown):
        return list(options)
    made = [_typed(option, one) for option, one in zip(options, shown, strict=True)]
    objects = [at for at, one in enumerate(shown) if one.get("type", "object") == "object" and "properties" in one]
    tag = _tag(root, [shown[at] for at in objects]) if len(objects) > 1 else None
    for at in objects if tag is not None else ():
        required = [*made[at].get("required", ()), *shown[at].get("required", ())]
        made[at] = {**made[at], "required": list(dict.fromkeys([*required, tag]))}
    return made


def _resolved(root: Mapping[str, Any], node: Any) -> Any:
    for _ in range(_MOST_HOPS):
        if not isinstance(node, Mapping) or not isinstance(node.get("$ref"), str):
            break
        node = resolve_pointer(root, node["$ref"])
    return node


def _typed(option: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """The option; a reference gets the type of the schema it points to."""
    known = {"type": shown["type"]} if "$ref" in option and "type" not in option and "type" in shown else {}
    return {**option, **known}


def _tag(root: Mapping[str, Any], objects: Sequence[Mapping[str, Any]]) -> str | None:
    """The first property whose possible texts differ in every option; None if there is none."""
    for name in objects[0]["properties"]:
        texts = [_texts(_resolved(root, one["properties"].get(name))) for one in objects]
        every = [text for found in texts for text in found]
        if all(texts) and len(set(every)) == len(every):
            return str(name)
    return None


def _texts(node: Any) -> list[str]:
    """The texts of a `const` or `enum` property; [] for any other property."""
    if not isinstance(node, Mapping):
        return []
    values = [node["const"]] if "const" in node else node.get("enum")
    return values if isinstance(values, list) and all(isinstance(value, str) for value in values) else []
