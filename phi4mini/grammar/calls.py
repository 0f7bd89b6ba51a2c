"""Tool calls as a grammar: a chat format's own way to write them, each function's arguments after its schema.

Promises what `chat` writes itself for such calls, character by character, control tokens as control tokens; that every
schema stays a document of its own, so that its references mean what they did; that a function without parameters is
called with `{}`. Knows no sampling.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from phi4mini.chat.formats import ChatFormat, format_named
from phi4mini.chat.tools import functions_of, to_json
from phi4mini.errors import BadInput
from phi4mini.grammar import schema
from phi4mini.tokenizer import Tokenizer

MOST_TOOLS = 128


def grammar(
    tokenizer: Tokenizer,
    tools: Sequence[Mapping[str, Any]],
    chat_format: str,
    *,
    required: bool | str,
    parallel: bool,
) -> str:
    """llguidance's JSON for calls of `tools`; see `Grammars.tool_calls`. Raises BadInput."""
    format = format_named(chat_format)
    if format.call_open is None or format.call_close is None:
        raise BadInput(f"the chat format {chat_format!r} has no tools")
    functions = _chosen(functions_of(tools), required)
    schema.check_bounds([function.get("parameters") for function in functions])  # each alone and all together
    several = parallel and not isinstance(required, str)  # who names a function wants one call of it, as OpenAI has it
    rules = [_start(tokenizer, format, required=required is not False, parallel=several)]
    rules.append("call: " + " | ".join(f"call_{i}" for i in range(len(functions))))
    for i, function in enumerate(functions):
        rules.append(f"call_{i}: {_literal(_head(function))} @arguments_{i} {_literal('}')}")
    schemas = [{"name": f"arguments_{i}", "json_schema": _arguments(f)} for i, f in enumerate(functions)]
    return json.dumps({"grammars": [{"name": "calls", "lark_grammar": "\n".join(rules)}, *schemas]})


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


def _head(function: Mapping[str, Any]) -> str:
    return f'{{"name": {to_json(function["name"])}, "arguments": '


def _start(tokenizer: Tokenizer, format: ChatFormat, *, required: bool, parallel: bool) -> str:
    opening, closing = format.call_open or "", format.call_close or ""
    if format.calls_are_tokens:
        more = f" ({_literal(', ')} call)*" if parallel else ""
        block = f'<[{_id(tokenizer, opening)}]> "[" call{more} "]" <[{_id(tokenizer, closing)}]>'
        return f"start: {block}" if required else f"start: TEXT ({block})?\nTEXT: /(?s:.*)/"
    more = f" ({_literal(f'{chr(10)}{opening}')} call {_literal(closing)})*" if parallel else ""
    block = f"call {_literal(closing)}{more}"
    if required:
        return f"start: {_literal(opening)} {block}"
    # lazy: the text ends where the tag is complete, and what follows is a call
    return f"start: text | opened {block}\ntext: TEXT\nopened[lazy]: TEXT {_literal(opening)}\nTEXT: /(?s:.*)/"


def _id(tokenizer: Tokenizer, token: str) -> int:
    id = tokenizer.id_of(token)
    if id is None:
        raise BadInput(f"this model's tokenizer has no {token}, so its tool calls cannot be written")
    return id


def _arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a function's arguments, which are an object whatever else the schema allows."""
    parameters = function.get("parameters")
    if parameters is None or parameters == {}:
        parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    types = parameters.get("type", "object")
    if types != "object" and not (isinstance(types, list) and "object" in types):
        raise BadInput(f"the function {function['name']!r}: its parameters are of type {types!r:.80}, not an object")
    try:
        return schema.prepared({**parameters, "type": "object"})
    except BadInput as error:
        raise BadInput(f"the function {function['name']!r}: {error}") from None
