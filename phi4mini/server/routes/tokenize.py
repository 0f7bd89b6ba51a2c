"""Routes for text and ids that need no weights: tokenize, detokenize, render a conversation.

Promises: the ids are exactly those that a request would be answered from. Control tokens in a text stay text.
"""

from __future__ import annotations

from typing import Any

import msgspec

from phi4mini.server.dialects.conversation import Conversation
from phi4mini.server.dialects.hosted_tools import numbered
from phi4mini.server.dialects.openai.chat_input import chat_turns
from phi4mini.server.dialects.sampling_fields import Id, Text
from phi4mini.server.http.endpoint import Endpoint
from phi4mini.server.http.errors import ApiError
from phi4mini.server.service import ServiceCall

_PIECE_BYTES = 8  # bytes of text for an id, roughly


class TokenizeBody(msgspec.Struct, kw_only=True):
    """A text under either name, or a conversation. No token is added to a text: these models begin without one."""

    content: Text | None = None
    prompt: Text | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    model: str | None = None
    add_special: bool | None = None
    add_special_tokens: bool | None = None
    with_pieces: bool | None = None


class Piece(msgspec.Struct):
    """One token: its text, or its bytes where they are part of a character."""

    id: int
    piece: str | list[int]


class Tokens(msgspec.Struct):
    """Ids, or pieces where they were asked for; how many; and how many fit."""

    tokens: list[int | Piece]
    count: int
    n_ctx: int


class DetokenizeBody(msgspec.Struct, kw_only=True):
    """Ids."""

    tokens: list[Id]
    model: str | None = None


class Detokenized(msgspec.Struct):
    """What they spell, control tokens as their names; under both names that programs look for."""

    content: str
    prompt: str


class TokenizerInfo(msgspec.Struct):
    """The names of the tokens that begin, end and fill, as vLLM has them; lm-eval asks before it sends ids."""

    tokenizer_class: str
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    model_max_length: int


class ConversationBody(msgspec.Struct, kw_only=True):
    """A conversation."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    continue_final_message: bool | None = None
    model: str | None = None


class Prompt(msgspec.Struct):
    """What the model sees, as text with its control tokens and as ids."""

    prompt: str
    tokens: list[int]
    count: int
    n_ctx: int


async def tokenize(call: ServiceCall, body: TokenizeBody) -> Tokens:
    """The ids of a text or a conversation."""
    service = call.service
    service.check_model(body.model)
    given = {"content": body.content, "prompt": body.prompt, "messages": body.messages}
    found = [name for name, value in given.items() if value is not None]
    if len(found) != 1:
        raise ApiError(400, f"one of content, prompt and messages is needed, {len(found)} are given", param="content")
    if body.tools and body.messages is None:
        raise ApiError(400, "tools need messages", param="tools")
    if body.messages is not None:
        ids = await Conversation(chat_turns(body.messages, call.ignore), numbered(body.tools)).ids(call)
    else:
        text = body.content if body.content is not None else body.prompt or ""
        ids = await service.apart(lambda: service.text.tokenizer.encode(text), len(text))
    if not body.with_pieces:
        return Tokens(list(ids), len(ids), service.facts.ctx)
    pieces = await service.apart(lambda: [_piece(call, id) for id in ids], len(ids) * _PIECE_BYTES)
    return Tokens(list(pieces), len(ids), service.facts.ctx)


def _piece(call: ServiceCall, id: int) -> Piece:
    spelled = call.service.text.tokenizer.token_bytes(id)
    try:
        return Piece(id, spelled.decode())
    except UnicodeDecodeError:
        return Piece(id, list(spelled))


async def detokenize(call: ServiceCall, body: DetokenizeBody) -> Detokenized:
    """The text that ids spell."""
    service = call.service
    service.check_model(body.model)
    text = await service.apart(lambda: _spelled(call, body.tokens), len(body.tokens) * _PIECE_BYTES)
    return Detokenized(text, text)


def _spelled(call: ServiceCall, ids: list[int]) -> str:
    text = call.service.text
    if wrong := next((id for id in ids if id >= text.config.vocab_size), None):
        raise ApiError(400, f"tokens: the model has no token {wrong}", param="tokens", code="invalid_value")
    return text.tokenizer.decode(ids)


async def tokenizer_info(call: ServiceCall) -> TokenizerInfo:
    """The tokenizer."""
    service = call.service
    config, ctx = service.text.config, service.facts.ctx

    def name(id: int | None) -> str | None:
        return None if id is None else service.text.tokenizer.token_text(id)

    ends = name(config.bos_token_id), name(config.eos_token_ids[0]), name(config.pad_token_id)
    return TokenizerInfo(service.text.chat_format, *ends, ctx)


async def render(call: ServiceCall, body: ConversationBody) -> Prompt:
    """What the model sees of a conversation."""
    service = call.service
    service.check_model(body.model)
    turns, continued = chat_turns(body.messages, call.ignore), bool(body.continue_final_message)
    ids = await Conversation(turns, numbered(body.tools), continued=continued).ids(call)
    text = await service.apart(lambda: service.text.tokenizer.decode(ids), len(ids) * _PIECE_BYTES)
    return Prompt(text, ids, len(ids), service.facts.ctx)


ENDPOINTS = [
    Endpoint("POST", "/tokenize", tokenize, "Text or a conversation to ids.", body=TokenizeBody, answer=Tokens),
    Endpoint("POST", "/detokenize", detokenize, "Ids to text.", body=DetokenizeBody, answer=Detokenized),
    Endpoint("GET", "/tokenizer_info", tokenizer_info, "The tokenizer.", answer=TokenizerInfo),
    Endpoint("POST", "/render", render, "What the model sees of a conversation.", body=ConversationBody, answer=Prompt),
]
