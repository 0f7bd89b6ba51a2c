"""POST /v1/chat/completions: OpenAI's chat, whole or streamed, with llama-server's and vLLM's most used extras."""

from __future__ import annotations

import secrets
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from phi4mini.chat import CallArguments, CallEnd, CallStart, Event, TextDelta
from phi4mini.llm.model import reply_from
from phi4mini.llm.results import Reply, TokenLogprob
from phi4mini.server.answering import Choices, Piece, Progress
from phi4mini.server.dialects.answer_parts import joined
from phi4mini.server.dialects.conversation import Ask, chosen_tool, response_format
from phi4mini.server.dialects.hosted_tools import callable_tools
from phi4mini.server.dialects.openai import types
from phi4mini.server.dialects.openai.chat_input import chat_turns, tools_of
from phi4mini.server.dialects.sampling_fields import NAMES, Alternatives, SamplingFields, Some, merged
from phi4mini.server.http.endpoint import Call, Endpoint, Stream
from phi4mini.server.http.errors import ApiError
from phi4mini.server.openapi.events import ChatChunk

if TYPE_CHECKING:
    from phi4mini.server.service import Service

DONE = b"data: [DONE]\n\n"
_PROGRESS_EVERY = 0.5  # seconds


class StreamOptions(msgspec.Struct):
    """Of a stream."""

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
    functions: list[dict[str, Any]] | None = None  # as before there were tools
    function_call: str | dict[str, Any] | None = None
    continue_final_message: bool | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None

    def ask(self, call: Call) -> Ask:
        """What is asked, checked as far as it can be without the model."""
        call.service.check_model(self.model)
        check_choices(self.n, call)
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs to be true", param="top_logprobs", code="invalid_value")
        limit = merged({"max_tokens": self.max_tokens, "max_completion_tokens": self.max_completion_tokens})
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        call.within(self.timeout)
        tools, choice = self._tools()
        return Ask(
            chat_turns(self.messages, call.ignore),
            lambda index: self.sampling(limit, logprobs, index),
            tools=callable_tools(tools, call),
            tool_choice=chosen_tool(choice),
            parallel=self.parallel_tool_calls is not False and not self.functions,
            format=response_format(self.response_format),
            n=self.n or 1,
            continued=bool(self.continue_final_message),
            salt=self.cache_salt,
        )

    def _tools(self) -> tuple[list[dict[str, Any]], Any]:
        """Tools and tool_choice, under whichever names they came."""
        if not self.functions:
            return self.tools or [], self.tool_choice
        if self.tools:
            raise ApiError(400, "functions and tools mean the same; send one of them", param="functions")
        return tools_of(self.functions, self.function_call)


async def chat(call: Call, body: ChatBody) -> types.ChatCompletion | Stream:
    """Answer a conversation."""
    runs = await body.ask(call).runs(call)
    choices = call.service.admit(runs, call)
    completion = _Completion(call, choices, bool(body.functions))
    if body.stream:
        shown = bool(body.stream_options and body.stream_options.include_usage)
        return completion.stream(shown, _PROGRESS_EVERY if body.return_progress else None)
    await choices.finish()
    return completion.whole()


def check_choices(n: int | None, call: Call) -> None:
    """Refuse more choices than the server makes, before anything is allocated for them."""
    most = call.service.settings.most_choices
    if (n or 1) > most:
        raise ApiError(400, f"n is {n}; at most {most} choices are made", param="n", code="invalid_value")


class _Completion:
    """One answer in OpenAI's form, as a whole or in chunks."""

    def __init__(self, call: Call, choices: Choices, legacy: bool) -> None:
        """`legacy`: a call is `function_call`, as programs expect it that sent `functions`."""
        self.call, self.choices, self.legacy = call, choices, legacy
        self.id, self.created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
        self._began = [False] * len(choices.runs)  # whether there was text since the last call, by choice
        self._space = [""] * len(choices.runs)  # white space before it, which is no content beside calls

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
                if isinstance(piece, Progress):
                    yield self._event([], prompt_progress=piece.to_json())
                    continue
                for chunk in self._chunks(piece):
                    yield chunk
        if with_usage:
            yield self._event([], usage=self.choices.usage(), timings=self.choices.timings())
        yield DONE

    def _chunks(self, piece: Piece) -> list[bytes]:
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
        return logprob_of(self.call.service, entry)


def logprob_of(service: Service, entry: TokenLogprob) -> types.Logprob:
    """A token's log-probability in OpenAI's form."""
    spelled = service.text.tokenizer.token_bytes
    top = [types.TopLogprob(t.token, finite(t.logprob), list(spelled(t.id))) for t in entry.top]
    return types.Logprob(entry.token, finite(entry.logprob), list(spelled(entry.id)), top)


def finite(logprob: float | None) -> float:
    """JSON has no infinity; what can never come is as OpenAI writes it."""
    return max(logprob if logprob is not None else -9999.0, -9999.0)


def prompt_entry(entry: TokenLogprob) -> dict[str, Any] | None:
    """One token of the prompt as vLLM gives it: id -> logprob and text; None for the first, which nothing predicts."""
    if entry.logprob is None:
        return None
    noted = [entry, *(other for other in entry.top if other.id != entry.id)]
    return {str(t.id): {"logprob": finite(t.logprob), "decoded_token": t.token} for t in noted}


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
    )
]
