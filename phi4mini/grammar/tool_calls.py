"""Tool calls as a grammar: calls as the chat format writes them, each function's arguments after its schema.

Promises exactly the text that `chat` writes for such calls, control tokens as control tokens; that every schema stays a
document of its own, so that its references keep their meaning; that a function without parameters is called with `{}`;
that one function's schema does not affect another's. Knows no sampling.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phi4mini.chat.templates import ChatFormat, format_named
from phi4mini.chat.tools import functions_of
from phi4mini.chat.verbatim_json import to_json
from phi4mini.errors import BadInput
from phi4mini.grammar import schema, schema_lenient
from phi4mini.grammar.schema_lenient import CheckCompiles, UnsupportedSchema
from phi4mini.tokenizer import Tokenizer

MOST_TOOLS = 128
FREE = {"type": "object", "x-guidance": schema.SPACING}


@dataclass(frozen=True)
class ToolFunction:
    """A function that may be called; `strict`: its whole schema is enforced, or the request is refused."""

    name: str
    parameters: Any
    strict: bool

    def arguments(self, compiles: CheckCompiles, dropped: list[str]) -> dict[str, Any]:
        """The prepared schema of the arguments. Raises BadInput that names the function and the place.

        If the function is not strict, the places that are left out are added to `dropped`, prefixed with the function's
        name; a schema that is too large, or of which nothing can be enforced, allows any object.
        """
        given = _object_schema(self.name, self.parameters)
        try:
            if self.strict:
                return _strictly(given, compiles)
            made, places = _lenient(given, compiles)
        except BadInput as error:
            raise BadInput(f"the function {self.name!r}: {error}") from None
        dropped += [f"{self.name}.{place}".removesuffix(".") for place in places]
        return made


def _strictly(given: Mapping[str, Any], compiles: CheckCompiles) -> dict[str, Any]:
    made = schema.prepared(given)
    try:
        compiles(made)
    except UnsupportedSchema as error:
        names = schema_lenient.culprits(made, compiles)
        raise BadInput(f"properties.{names[0]}: {error}" if names else str(error)) from None
    return made


def _lenient(given: Mapping[str, Any], compiles: CheckCompiles) -> tuple[dict[str, Any], list[str]]:
    """The schema and the places that are left out; the place "" is the whole schema."""
    places: list[str] = []
    if schema_lenient.works(given, schema.check_bounds):
        try:
            return schema_lenient.lenient(given, compiles, places), places
        except UnsupportedSchema:
            pass
    return dict(FREE), [""]


def grammar(
    tokenizer: Tokenizer,
    functions: Sequence[ToolFunction],
    arguments: Sequence[Mapping[str, Any]],
    chat_format: str,
    *,
    required: bool | str,
    parallel: bool,
    text: Mapping[str, Any] | None = None,
) -> str:
    """llguidance's JSON for calls of `functions`, the schemas of whose arguments are `arguments`, in the same order.

    `text`: the grammar of an answer without a call. For the other arguments see `Grammars.tool_calls`. Raises BadInput.
    """
    format = format_named(chat_format)
    if format.call_open is None or format.call_close is None:
        raise BadInput(f"the chat format {chat_format!r} has no tools")
    several = parallel and not isinstance(required, str)  # a named function is called once, as in OpenAI's API
    held = text is not None and required is False
    rules = [_start(tokenizer, format, required=required is not False, parallel=several, held=held)]
    rules.append("call: " + " | ".join(f"call_{i}" for i in range(len(functions))))
    for i, function in enumerate(functions):
        rules.append(f"call_{i}: {_literal(_head(function.name))} @arguments_{i} {_literal('}')}")
    parts: list[Mapping[str, Any]] = [{"name": "calls", "lark_grammar": "\n".join(rules)}]
    parts += [{"name": f"arguments_{i}", "json_schema": made} for i, made in enumerate(arguments)]
    return json.dumps({"grammars": [*parts, {"name": "answer", **text}] if text is not None and held else parts})


def chosen(tools: Sequence[Mapping[str, Any]], required: bool | str) -> list[ToolFunction]:
    """The functions that may be called: all, or the one that `required` names. Raises BadInput."""
    functions = _chosen(functions_of(tools), required)
    strict = {(tool.get("function") or tool).get("name") for tool in tools if _is_strict(tool)}
    return [ToolFunction(one["name"], one.get("parameters"), one["name"] in strict) for one in functions]


def _is_strict(tool: Mapping[str, Any]) -> bool:
    return (tool.get("function") or tool).get("strict") is True


def _chosen(functions: list[dict[str, Any]], required: bool | str) -> list[dict[str, Any]]:
    if not functions:
        raise BadInput("a tool call is asked for, but there are no tools")
    if len(functions) > MOST_TOOLS:
        raise BadInput(f"there are {len(functions)} tools; at most {MOST_TOOLS} are possible")
    if not isinstance(required, str):
        return functions
    chosen = [function for function in functions if function["name"] == required]
    if not chosen:
        names = ", ".join(function["name"] for function in functions)
        raise BadInput(f"the function {required!r} is not among the tools ({names:.200})")
    return chosen


def _literal(text: str) -> str:
    return json.dumps(text)


def _head(name: str) -> str:
    return f'{{"name": {to_json(name)}, "arguments": '


def _start(tokenizer: Tokenizer, format: ChatFormat, *, required: bool, parallel: bool, held: bool) -> str:
    """The start rule. `held`: an answer without a call must match the rule `answer`."""
    opening, closing = format.call_open or "", format.call_close or ""
    if format.calls_are_tokens:
        more = f" ({_literal(', ')} call)*" if parallel else ""
        block = f'<[{_id(tokenizer, opening)}]> "[" call{more} "]" <[{_id(tokenizer, closing)}]>'
        if held:
            return f"start: {block} | @answer"
        return f"start: {block}" if required else f"start: TEXT ({block})?\nTEXT: /(?s:.*)/"
    more = f" ({_literal(f'{chr(10)}{opening}')} call {_literal(closing)})*" if parallel else ""
    block = f"call {_literal(closing)}{more}"
    if required or held:
        return f"start: {_literal(opening)} {block}{' | @answer' * held}"
    # lazy: the text ends as soon as the tag is complete, and a call follows
    return f"start: text | opened {block}\ntext: TEXT\nopened[lazy]: TEXT {_literal(opening)}\nTEXT: /(?s:.*)/"


def _id(tokenizer: Tokenizer, token: str) -> int:
    id = tokenizer.id_of(token)
    if id is None:
        raise BadInput(f"this model's tokenizer has no {token}, so its tool calls cannot be written")
    return id


def _object_schema(name: str, parameters: Any) -> dict[str, Any]:
    """The schema of a function's arguments, restricted to objects. Raises BadInput if it excludes objects."""
    if parameters is None or parameters == {}:
        parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    types = parameters.get("type", "object")
    if types != "object" and not (isinstance(types, list) and "object" in types):
        raise BadInput(f"the function {name!r}: its parameters are of type {types!r:.80}, not an object")
    return {**parameters, "type": "object"}
