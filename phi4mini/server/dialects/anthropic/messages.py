"""POST /v1/messages: Anthropic's conversations, whole or streamed, and their count of tokens.

Promises: a stream's events are Anthropic's, in their order; a last message of the assistant is continued; tokens that
the prompt shares with an earlier one are reported as read from the cache, without any cache_control.
"""

from __future__ import annotations

import secrets
from contextlib import aclosing
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from phi4mini.errors import BadInput
from phi4mini.server.answering import Choices, PrefillProgress
from phi4mini.server.dialects.answer_parts import Closed, Grown, Opened, Parts, Step, closed_parts, joined
from phi4mini.server.dialects.anthropic.messages_input import choice_from, functions_from, turns_from
from phi4mini.server.dialects.anthropic.stream_types import MessageEvent
from phi4mini.server.dialects.anthropic.types import Answered, MessageUsage, StopReason
from phi4mini.server.dialects.conversation import Conversation
from phi4mini.server.dialects.hosted_tools import callable_tools
from phi4mini.server.dialects.response_format import ResponseFormat, response_format
from phi4mini.server.dialects.sampling_fields import (
    Deadline,
    MinP,
    SamplingFields,
    Seed,
    Some,
    Stops,
    Temperature,
    TopK,
    TopP,
)
from phi4mini.server.http.call import Stream
from phi4mini.server.http.endpoint import Endpoint
from phi4mini.server.service import ServiceCall
from phi4mini.server.usage import InputTokens

Block = dict[str, Any]
_NAMES = {
    "max_new_tokens": "max_tokens",
    "stop": "stop_sequences",
    "tool_call_id": "tool_use_id",
    "response_format": "output_config.format",
    ".function.parameters": ".input_schema",
    ".function.name": ".name",
    ".function.description": ".description",
}


class CountBody(msgspec.Struct, kw_only=True):
    """A conversation, its tools, and the model asked for."""

    model: str
    messages: list[dict[str, Any]]
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    cache_control: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None

    def to_conversation(self, call: ServiceCall, salt: str | None = None) -> Conversation:
        """The conversation, checked as far as that needs no tokenizer. Raises ApiError and BadInput."""
        call.service.check_model(self.model)
        turns = turns_from(self.messages, self.system, call.ignore)
        continued = bool(turns) and turns[-1].role == "assistant"
        if continued and turns[-1].tool_calls:
            raise BadInput("messages: the last one calls tools; their results must follow it")
        choice = self.tool_choice or {}
        return Conversation(
            turns,
            tools=functions_from(callable_tools(self.tools, call, ("custom",))),
            tool_choice=choice_from(self.tool_choice),
            parallel=choice.get("disable_parallel_tool_use") is not True,
            format=self._format(call),
            continued=continued,
            salt=salt,
        )

    def _format(self, call: ServiceCall) -> ResponseFormat | None:
        config = dict(self.output_config or {})
        given = config.pop("format", None)
        call.ignore([f"output_config.{name}" for name in sorted(config)])
        if self.thinking and self.thinking.get("type") != "disabled":
            call.ignore(["thinking"])
        if given is not None and (not isinstance(given, dict) or given.get("type") != "json_schema"):
            raise BadInput("output_config.format.type must be json_schema")
        return response_format(given, "output_config.format")


class MessagesBody(CountBody, kw_only=True):
    """A conversation to be answered."""

    max_tokens: Some
    stop_sequences: Stops | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    stream: bool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    seed: Seed | None = None
    min_p: MinP | None = None
    cache_salt: Annotated[str, Meta(max_length=256)] | None = None
    timeout: Deadline | None = None

    def sampling(self) -> dict[str, Any]:
        """The sampling keywords of the run. Raises ApiError."""
        fields = SamplingFields(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            seed=self.seed,
            stop=self.stop_sequences,
        )
        return fields.sampling(self.max_tokens, None)


async def messages(call: ServiceCall, body: MessagesBody) -> Answered | Stream:
    """Answer a conversation."""
    conversation = body.to_conversation(call, body.cache_salt)
    call.within(body.timeout)
    choices = call.service.admit(await conversation.runs(call, [body.sampling()]), call)
    writer = _MessageWriter(call, choices)
    if body.stream:
        return writer.stream()
    await choices.finish()
    return writer.message([_block(part) for part in closed_parts(choices.events[0])], *writer.end())


async def count_tokens(call: ServiceCall, body: CountBody) -> InputTokens:
    """How many tokens the input of a request has."""
    return InputTokens(len(await body.to_conversation(call).ids(call)))


class _MessageWriter:
    """Writes one answer in Anthropic's form, whole or as events."""

    def __init__(self, call: ServiceCall, choices: Choices) -> None:
        self.call, self.choices, self.run = call, choices, choices.runs[0]
        self.id = f"msg_{secrets.token_hex(12)}"

    def message(self, content: list[Block], reason: StopReason | None, sequence: str | None) -> Answered:
        """The message with this content."""
        model = self.call.service.facts.id
        return Answered(
            id=self.id, model=model, content=content, stop_reason=reason, stop_sequence=sequence, usage=self.usage()
        )

    def usage(self) -> MessageUsage:
        """Tokens so far."""
        request = self.run.request
        cached = request.cached_tokens
        return MessageUsage(request.num_prompt - cached, cached, len(self.run.tokens))

    def end(self) -> tuple[StopReason, str | None]:
        """Why the answer ended, and the stop sequence that ended it."""
        if self.run.matcher.matched is not None:
            return "stop_sequence", self.run.matcher.matched
        if self.run.request.finish_reason == "length":
            return "max_tokens", None
        called = any(part.call for part in closed_parts(self.choices.events[0]))
        return ("tool_use" if called else "end_turn"), None

    async def stream(self) -> Stream:
        """Event by event."""
        yield _event("message_start", message=self.message([], None, None))
        yield _event("ping")
        parts = Parts()
        async with aclosing(self.choices.pieces()) as pieces:
            async for piece in pieces:
                assert not isinstance(piece, PrefillProgress)  # not asked for
                for event in joined(piece.events):
                    for step in parts.push(event):
                        yield _step(step)
        for step in parts.finish():
            yield _step(step)
        reason, sequence = self.end()
        yield _event("message_delta", delta={"stop_reason": reason, "stop_sequence": sequence}, usage=self.usage())
        yield _event("message_stop")


def _block(part: Closed) -> Block:
    if part.call is None:
        return {"type": "text", "text": part.text}
    return {"type": "tool_use", "id": part.call.id, "name": part.call.name, "input": msgspec.Raw(part.text.encode())}


def _step(step: Step) -> bytes:
    """One event of a content block."""
    match step:
        case Opened(index, None):
            return _event("content_block_start", index=index, content_block={"type": "text", "text": ""})
        case Opened(index, call) if call is not None:
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            return _event("content_block_start", index=index, content_block=block)
        case Grown(index, delta, True):
            return _event("content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": delta})
        case Grown(index, delta):
            return _event("content_block_delta", index=index, delta={"type": "text_delta", "text": delta})
        case _:
            return _event("content_block_stop", index=step.index)


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + msgspec.json.encode({"type": kind, **fields}) + b"\n\n"


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/messages",
        messages,
        "Answer a conversation (Anthropic's form).",
        body=MessagesBody,
        answer=Answered,
        streams=MessageEvent,
        works=True,
        dialect="anthropic",
        names=_NAMES,
    ),
    Endpoint(
        "POST",
        "/v1/messages/count_tokens",
        count_tokens,
        "Count the tokens of a conversation.",
        body=CountBody,
        answer=InputTokens,
        dialect="anthropic",
        names=_NAMES,
    ),
]
