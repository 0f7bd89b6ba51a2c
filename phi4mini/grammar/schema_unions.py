"""oneOf: options written so that llguidance sees that no value fits two of them.

It compares what stands in the options themselves, so what a reference hides is said beside it; the tag of a
discriminated union (a `const` or `enum` of its own in every option) becomes required, as whoever writes `default`
beside it means it. Both leave out documents that the schema admits (without the tag) and add none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

_MOST_HOPS = 16  # references to references


def target(root: Mapping[str, Any], reference: str) -> Any:
    """What a JSON pointer into the root points to; None for anything else."""
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


def apart(root: Mapping[str, Any], options: Sequence[Any]) -> list[Any]:
    """The options with what tells them apart; unchanged where nothing does."""
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
        node = target(root, node["$ref"])
    return node


def _typed(option: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """A reference with the type of what it points to."""
    known = {"type": shown["type"]} if "$ref" in option and "type" not in option and "type" in shown else {}
    return {**option, **known}


def _tag(root: Mapping[str, Any], objects: Sequence[Mapping[str, Any]]) -> str | None:
    """A property whose texts differ from option to option."""
    for name in objects[0]["properties"]:
        texts = [_texts(_resolved(root, one["properties"].get(name))) for one in objects]
        every = [text for found in texts for text in found]
        if all(texts) and len(set(every)) == len(every):
            return str(name)
    return None


def _texts(node: Any) -> list[str]:
    """The values of a property that can only be one of some texts."""
    if not isinstance(node, Mapping):
        return []
    values = [node["const"]] if "const" in node else node.get("enum")
    return values if isinstance(values, list) and all(isinstance(value, str) for value in values) else []
