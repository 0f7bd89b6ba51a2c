"""JSON schemas of the plain objects in bodies (messages, tools, formats), for the OpenAPI document.

They describe what chat/messages.py, chat/tools.py and the dialects read and check. Nothing is checked against these
schemas; `http/unread_fields.py` looks up which fields are read.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_OBJECT: Schema = {"type": "object"}
_NULL: Schema = {"type": "null"}


def closed(required: tuple[str, ...], /, **properties: Schema) -> Schema:
    """An object with these properties; `required` names those that must be there."""
    return {"type": "object", "properties": properties, "required": list(required)}


def parts(*kinds: str) -> Schema:
    """Text, or a list of text parts of these types."""
    part = closed(("type", "text"), type={"enum": list(kinds)}, text=_TEXT)
    return {"anyOf": [_TEXT, {"type": "array", "items": part}]}


def or_null(shape: Schema) -> Schema:
    """This shape, or null."""
    return {"anyOf": [shape, _NULL]}


def listed(items: Schema, least: int = 0) -> Schema:
    """A list."""
    return {"type": "array", "items": items, "minItems": least}


def prompts(most: int) -> Schema:
    """A text, ids, or up to `most` of either."""
    text: Schema = {"type": "string", "minLength": 1}
    ids = listed({"type": "integer", "minimum": 0}, least=1)
    return {"anyOf": [text, ids, *(listed(one, least=1) | {"maxItems": most} for one in (text, ids))]}


_CALL = closed(
    ("id", "function"),
    id=_TEXT,
    type={"const": "function"},
    function=closed(("name", "arguments"), name={"type": "string", "minLength": 1}, arguments=_TEXT),
)
CHAT_MESSAGES = listed(
    {
        "oneOf": [
            closed(("role", "content"), role={"enum": ["system", "developer", "user"]}, content=parts("text")),
            closed(
                ("role",),
                role={"const": "assistant"},
                content=or_null(parts("text")),
                tool_calls=listed(_CALL),
                function_call=or_null(_CALL["properties"]["function"]),
            ),
            closed(
                ("role", "tool_call_id"),
                role={"const": "tool"},
                content=or_null(parts("text")),
                tool_call_id=_TEXT,
            ),
            closed(("role", "name"), role={"const": "function"}, name=_TEXT, content=or_null(parts("text"))),
        ]
    },
    least=1,
)
_FUNCTION = {"name": {"type": "string", "minLength": 1}, "description": _TEXT, "parameters": _OBJECT}
CHAT_TOOLS = listed(closed(("type", "function"), type={"const": "function"}, function=closed(("name",), **_FUNCTION)))
CHAT_TOOL_CHOICE: Schema = {
    "anyOf": [
        {"enum": ["none", "auto", "required"]},
        closed(("type", "function"), type={"const": "function"}, function=closed(("name",), name=_TEXT)),
    ]
}
RESPONSE_FORMAT: Schema = {
    "oneOf": [
        closed(("type",), type={"const": "text"}),
        closed(("type",), type={"const": "json_object"}, schema=_OBJECT),
        closed(("type", "json_schema"), type={"const": "json_schema"}, json_schema=closed(("schema",), schema=_OBJECT)),
        closed(("type", "regex"), type={"const": "regex"}, regex=_TEXT),
        closed(("type", "grammar"), type={"const": "grammar"}, grammar=_TEXT),
    ]
}

ITEM_TOOLS = listed(closed(("type", "name"), type={"const": "function"}, **_FUNCTION))
ITEM_TOOL_CHOICE: Schema = {
    "anyOf": [
        {"enum": ["none", "auto", "required"]},
        closed(("type", "name"), type={"const": "function"}, name=_TEXT),
    ]
}
ITEMS: Schema = {
    "anyOf": [
        _TEXT,
        listed(
            {
                "oneOf": [
                    closed(
                        ("role", "content"),
                        type={"const": "message"},
                        role={"enum": ["system", "developer", "user", "assistant"]},
                        content=or_null(parts("input_text", "output_text", "text")),
                    ),
                    closed(("type",), type={"const": "reasoning"}),
                    closed(
                        ("type", "call_id", "name", "arguments"),
                        type={"const": "function_call"},
                        call_id=_TEXT,
                        name=_TEXT,
                        arguments=_TEXT,
                    ),
                    closed(
                        ("type", "call_id", "output"),
                        type={"const": "function_call_output"},
                        call_id=_TEXT,
                        output=or_null(parts("input_text", "output_text", "text")),
                    ),
                ]
            },
            least=1,
        ),
    ]
}
TEXT_FORMAT: Schema = {
    "oneOf": [
        closed(("type",), type={"const": "text"}),
        closed(("type",), type={"const": "json_object"}, schema=_OBJECT),
        closed(("type", "schema"), type={"const": "json_schema"}, name=_TEXT, schema=_OBJECT),
    ]
}

_TEXT_BLOCK = closed(("type", "text"), type={"const": "text"}, text=_TEXT)
_TOOL_USE = closed(("type", "id", "name", "input"), type={"const": "tool_use"}, id=_TEXT, name=_TEXT, input=_OBJECT)
_THOUGHT = closed(("type",), type={"enum": ["thinking", "redacted_thinking"]})
_TOOL_RESULT = closed(
    ("type", "tool_use_id"),
    type={"const": "tool_result"},
    tool_use_id=_TEXT,
    content=or_null(parts("text")),
    is_error={"type": "boolean"},
)
BLOCK_MESSAGES = listed(
    closed(
        ("role", "content"),
        role={"enum": ["user", "assistant", "system"]},
        content={"anyOf": [_TEXT, listed({"oneOf": [_TEXT_BLOCK, _TOOL_USE, _TOOL_RESULT, _THOUGHT]})]},
    ),
    least=1,
)
_BLOCK_TOOL = closed(
    ("name", "input_schema"),
    type={"enum": ["custom"]},
    name={"type": "string", "minLength": 1},
    description=_TEXT,
    input_schema=_OBJECT,
)
BLOCK_TOOLS = listed(_BLOCK_TOOL)
BLOCK_TOOL_CHOICE = closed(
    ("type",), type={"enum": ["auto", "any", "tool", "none"]}, name=_TEXT, disable_parallel_tool_use={"type": "boolean"}
)
_OLLAMA_CALL = closed(
    ("function",), id=_TEXT, function=closed(("name", "arguments"), name={"type": "string"}, arguments=_OBJECT)
)
OLLAMA_MESSAGES = listed(
    closed(
        ("role", "content"),
        role={"enum": ["system", "user", "assistant", "tool"]},
        content=_TEXT,
        images=listed(_TEXT) | {"maxItems": 0},
        tool_calls=listed(_OLLAMA_CALL),
        tool_name=_TEXT,
        tool_call_id=_TEXT,
    )
)
OLLAMA_FORMAT: Schema = {"anyOf": [{"enum": ["", "json"]}, _OBJECT]}
SYSTEM = parts("text")
_BLOCKS = {"messages": BLOCK_MESSAGES, "system": SYSTEM, "tools": BLOCK_TOOLS, "tool_choice": BLOCK_TOOL_CHOICE}
OF: dict[str, dict[str, Schema]] = {  # type -> field -> its schema
    "ChatBody": {
        "messages": CHAT_MESSAGES,
        "tools": CHAT_TOOLS,
        "tool_choice": CHAT_TOOL_CHOICE,
        "response_format": RESPONSE_FORMAT,
        "functions": listed(closed(("name",), **_FUNCTION)),
        "function_call": {"anyOf": [{"enum": ["none", "auto"]}, closed(("name",), name=_TEXT)]},
    },
    "CompletionBody": {"prompt": prompts(64), "response_format": RESPONSE_FORMAT},
    "EmbeddingBody": {"input": prompts(256)},
    "TokenizeBody": {"messages": CHAT_MESSAGES, "tools": CHAT_TOOLS},
    "ConversationBody": {"messages": CHAT_MESSAGES, "tools": CHAT_TOOLS},
    "InputBody": {"input": ITEMS, "tools": ITEM_TOOLS, "tool_choice": ITEM_TOOL_CHOICE},
    "TextConfig": {"format": TEXT_FORMAT},
    "CountBody": _BLOCKS,
    "MessagesBody": _BLOCKS,
    "OllamaChatBody": {"messages": OLLAMA_MESSAGES, "tools": CHAT_TOOLS, "format": OLLAMA_FORMAT},
    "GenerateBody": {"format": OLLAMA_FORMAT, "images": listed(_TEXT) | {"maxItems": 0}},
}
