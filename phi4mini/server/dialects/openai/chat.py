"""POST /v1/chat/completions: OpenAI's chat, whole or streamed, with llama-server's and vLLM's most used extras.

Promises: a stream's chunks joined are the whole answer; whitespace beside calls is no content.
"""

from __future__ import annotations

import secrets
import time
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from phi4mini.chat import CallArguments, CallEnd, CallStart, Event, TextDelta
from phi4mini.llm.model import reply_from
from phi4mini.llm.results import Reply, TokenLogprob
from phi4mini.server.answering import ChoicePiece, Choices, PrefillProgress
from phi4mini.server.dialects.answer_parts import joined
from phi4mini.server.dialects.conversation import Conversation, chosen_tool
from phi4mini.server.dialects.hosted_tools import callable_tools
from phi4mini.server.dialects.openai import types
from phi4mini.server.dialects.openai.chat_input import chat_turns, tools_of
from phi4mini.server.dialects.openai.logprobs import logprob_of, prompt_entry
from phi4mini.server.dialects.openai.stream_types import ChatChunk
from phi4mini.server.dialects.response_format import response_format
from phi4mini.server.dialects.sampling_fields import NAMES, Alternatives, SamplingFields, Some, merged
from phi4mini.server.http.call import Stream
from phi4mini.server.http.endpoint import Endpoint
from phi4mini.server.http.errors import ApiError
from phi4mini.server.service import ServiceCall
from phi4mini.server.usage import InputTokens

DONE = b"data: [DONE]\n\n"
PROGRESS_EVERY = 0.5  # seconds between events that tell how much of the prompt is computed


class StreamOptions(msgspec.Struct):
    """Options of a stream."""

    include_usage: bool | None = None


class ChatBody(SamplingFields, kw_only=True):
    """A conversation to be answered."""

    messages: list[dict[str, Any]]
    model: str | None = None
    max_tokens: Some | None = None
    max_completion_tokens: Some | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None  # the older form of tools
    function_call: str | dict[str, Any] | None = None
    continue_final_message: bool | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None

    def to_conversation(self, call: ServiceCall) -> Conversation:
        """The conversation, checked as far as that needs no tokenizer. Raises ApiError and BadInput."""
        call.service.check_model(self.model)
        check_choices(self.n, call)
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs to be true", param="top_logprobs", code="invalid_value")
        self._limit()  # a conflict is refused here too, where tokens are only counted
        call.within(self.timeout)
        tools, choice = self._tools()
        return Conversation(
            chat_turns(self.messages, call.ignore),
            tools=callable_tools(tools, call),
            tool_choice=chosen_tool(choice),
            parallel=self.parallel_tool_calls is not False and not self.functions,
            format=response_format(self.response_format),
            continued=bool(self.continue_final_message),
            salt=self.cache_salt,
        )

    def samplings(self) -> list[dict[str, Any]]:
        """The sampling keywords of each choice. Raises ApiError."""
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return [self.sampling(self._limit(), logprobs, index) for index in range(self.n or 1)]

    def _limit(self) -> int | None:
        """New tokens at most, under either name. Raises 400 where both are given and differ."""
        return merged({"max_tokens": self.max_tokens, "max_completion_tokens": self.max_completion_tokens})

    def _tools(self) -> tuple[list[dict[str, Any]], Any]:
        """Tools and tool_choice; `functions` and `function_call` in their current form. Raises 400 for both."""
        if not self.functions:
            return self.tools or [], self.tool_choice
        if self.tools:
            raise ApiError(400, "functions and tools mean the same; send one of them", param="functions")
        return tools_of(self.functions, self.function_call)


async def chat(call: ServiceCall, body: ChatBody) -> types.ChatCompletion | Stream:
    """Answer a conversation."""
    runs = await body.to_conversation(call).runs(call, body.samplings())
    choices = call.service.admit(runs, call)
    writer = _ChatWriter(call, choices, bool(body.functions))
    if body.stream:
        shown = bool(body.stream_options and body.stream_options.include_usage)
        return writer.stream(shown, PROGRESS_EVERY if body.return_progress else None)
    await choices.finish()
    return writer.whole()


async def count_chat(call: ServiceCall, body: ChatBody) -> InputTokens:
    """How many tokens the input of a chat request has."""
    return InputTokens(len(await body.to_conversation(call).ids(call)))


def check_choices(n: int | None, call: ServiceCall) -> None:
    """Refuse more choices than the server allows, before anything is allocated for them."""
    most = call.service.settings.most_choices
    if (n or 1) > most:
        raise ApiError(400, f"n is {n}; at most {most} choices are made", param="n", code="invalid_value")


class _ChatWriter:
    """Writes one answer in the chat API's form, as a whole or in chunks."""

    def __init__(self, call: ServiceCall, choices: Choices, legacy: bool) -> None:
        """`legacy`: a call is written as `function_call`, as programs that sent `functions` expect."""
        self.call, self.choices, self.legacy = call, choices, legacy
        self.id, self.created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
        self._began = [False] * len(choices.runs)  # of each choice: whether text has come since its last call
        self._space = [""] * len(choices.runs)  # whitespace before that text, which is no content beside calls

    def whole(self) -> types.ChatCompletion:
        """All at once."""
        replies = [reply_from(events, run) for events, run in zip(self.choices.events, self.choices.runs, strict=True)]
        service = self.call.service
        made = types.ChatCompletion(
            id=self.id,
            object="chat.completion",
            created=self.created,
            model=service.facts.id,
            choices=[self._choice(index, reply) for index, reply in enumerate(replies)],
            usage=msgspec.convert(self.choices.usage(), types.Usage),
            system_fingerprint=service.facts.fingerprint,
            timings=self.choices.timings(),
            seed=self.choices.runs[0].request.seed,
        )
        prompt = replies[0].generation.prompt_logprobs if replies[0].generation else None
        if prompt is not None:
            made.prompt_logprobs = [prompt_entry(entry) for entry in prompt]
        return made

    def _choice(self, index: int, reply: Reply) -> types.Choice:
        said = types.Said(role="assistant", content=reply.content or (None if reply.tool_calls else ""))
        if reply.tool_calls and self.legacy:
            said.function_call = types.Function(reply.tool_calls[0].name, reply.tool_calls[0].json)
        elif reply.tool_calls:
            said.tool_calls = [_called(call.to_openai()) for call in reply.tool_calls]
        logprobs = None if reply.generation is None else self.choices.runs[index].content_logprobs()
        noted = None if logprobs is None else types.Logprobs([self._logprob(entry) for entry in logprobs])
        return types.Choice(index, said, self._reason(reply), noted)

    def _reason(self, reply: Reply) -> types.FinishReason:
        reason = "function_call" if self.legacy and reply.finish_reason == "tool_calls" else reply.finish_reason
        return reason  # type: ignore[return-value]

    async def stream(self, with_usage: bool, progress: float | None) -> Stream:
        """Chunk by chunk; the usage comes last, in a chunk without choices."""
        for index in range(len(self.choices.runs)):
            yield self._chunk(index, {"role": "assistant", "content": ""})
        async with aclosing(self.choices.pieces(progress)) as pieces:
            async for piece in pieces:
                if isinstance(piece, PrefillProgress):
                    yield self._event([], prompt_progress=piece.to_json())
                    continue
                for chunk in self._chunks(piece):
                    yield chunk
        if with_usage:
            yield self._event([], usage=self.choices.usage(), timings=self.choices.timings())
        yield DONE

    def _chunks(self, piece: ChoicePiece) -> list[bytes]:
        deltas = [delta for event in joined(piece.events) if (delta := self._delta(piece.index, event)) is not None]
        if piece.logprobs and not deltas:
            deltas = [{"content": ""}]
        noted: dict[str, Any] | None = None
        if piece.logprobs:
            noted = {"content": [msgspec.to_builtins(self._logprob(entry)) for entry in piece.logprobs]}
        chunks = [self._chunk(piece.index, delta, noted if at == 0 else None) for at, delta in enumerate(deltas)]
        if piece.over:
            run, events = self.choices.runs[piece.index], self.choices.events[piece.index]
            reply = reply_from(events, run)
            if self._space[piece.index] and not reply.tool_calls:
                chunks.append(self._chunk(piece.index, {"content": self._space[piece.index]}))
            reason = self._reason(reply)
            chunks.append(self._chunk(piece.index, {}, reason=reason, timings=self.choices.timings()))
        return chunks

    def _delta(self, choice: int, event: Event) -> dict[str, Any] | None:
        match event:
            case TextDelta():
                text = self._space[choice] + event.text
                self._began[choice] = self._began[choice] or not text.isspace()
                self._space[choice] = "" if self._began[choice] else text
                return {"content": text} if self._began[choice] else None
            case CallStart():
                function = {"name": event.name, "arguments": ""}
                if self.legacy:
                    return {"function_call": function}
                return {
                    "tool_calls": [{"index": event.index, "id": event.id, "type": "function", "function": function}]
                }
            case CallArguments() if self.legacy:
                return {"function_call": {"arguments": event.delta}}
            case CallArguments():
                return {"tool_calls": [{"index": event.index, "function": {"arguments": event.delta}}]}
            case CallEnd():
                self._began[choice], self._space[choice] = False, ""
            case _:  # a broken call's text follows
                pass
        return None

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: Any = None, reason: str | None = None, **more: Any
    ) -> bytes:
        return self._event([{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}], **more)

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        service = self.call.service
        head = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": service.facts.id,
            "system_fingerprint": service.facts.fingerprint,
            "choices": choices,
        }
        return b"data: " + msgspec.json.encode(head | more) + b"\n\n"

    def _logprob(self, entry: TokenLogprob) -> types.Logprob:
        return logprob_of(self.call.service.text.tokenizer, entry)


def _called(given: dict[str, Any]) -> types.Called:
    function = given["function"]
    return types.Called(given["id"], types.Function(function["name"], function["arguments"]))


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/chat/completions",
        chat,
        "Answer a conversation.",
        body=ChatBody,
        answer=types.ChatCompletion,
        streams=ChatChunk,
        works=True,
        names=NAMES,
    ),
    Endpoint(
        "POST",
        "/v1/chat/completions/input_tokens",
        count_chat,
        "Count the tokens of a chat request's input.",
        body=ChatBody,
        answer=InputTokens,
    ),
]
