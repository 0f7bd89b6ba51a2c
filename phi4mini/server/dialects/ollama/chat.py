"""POST /api/chat and /api/generate: conversations and questions in Ollama's form, streamed unless told otherwise.

Promises: a stream is lines of JSON, of which the last has `done` and the counts and durations; its pieces joined are
the whole answer; a call comes whole, its arguments as an object spelled as the model wrote them. A silent stream gets
lines without text, which every client skips.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any, Literal

import msgspec

from phi4mini.llm.run import Run
from phi4mini.server.answering import Choices, PrefillProgress
from phi4mini.server.dialects.answer_parts import Closed, Grown, Parts, Step, joined
from phi4mini.server.dialects.conversation import Conversation
from phi4mini.server.dialects.hosted_tools import numbered
from phi4mini.server.dialects.ollama.bodies import GenerateBody, OllamaBody, OllamaChatBody, turns_from
from phi4mini.server.dialects.ollama.models import check_model, stamp
from phi4mini.server.dialects.openai.logprobs import logprob_of
from phi4mini.server.dialects.openai.types import Logprob
from phi4mini.server.dialects.prompts import clip, run_for, text_size
from phi4mini.server.http.call import Stream
from phi4mini.server.http.endpoint import Endpoint
from phi4mini.server.service import ServiceCall

_Maybe = msgspec.UnsetType
_NAMES = {"max_new_tokens": "options.num_predict", "repetition_penalty": "options.repeat_penalty"}


class CalledFunction(msgspec.Struct):
    """What is called."""

    index: int
    name: str
    arguments: dict[str, Any]


class OllamaCall(msgspec.Struct):
    """One tool call."""

    id: str
    function: CalledFunction


class OllamaMessage(msgspec.Struct, omit_defaults=True):
    """The assistant's message, or a piece of it."""

    role: Literal["assistant"]
    content: str
    tool_calls: list[OllamaCall] | _Maybe = msgspec.UNSET


class _Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    model: str
    created_at: str
    done: bool
    done_reason: Literal["stop", "length", "load"] | _Maybe = msgspec.UNSET
    total_duration: int | _Maybe = msgspec.UNSET
    load_duration: int | _Maybe = msgspec.UNSET
    prompt_eval_count: int | _Maybe = msgspec.UNSET
    prompt_eval_duration: int | _Maybe = msgspec.UNSET
    eval_count: int | _Maybe = msgspec.UNSET
    eval_duration: int | _Maybe = msgspec.UNSET
    seed: int | _Maybe = msgspec.UNSET
    logprobs: list[Logprob] | _Maybe = msgspec.UNSET


class OllamaChatAnswer(_Line, kw_only=True):
    """An answer to /api/chat, or a piece of it; the last has `done_reason`, counts, and durations in nanoseconds."""

    message: OllamaMessage


class GenerateAnswer(_Line, kw_only=True):
    """An answer to /api/generate, or a piece of it."""

    response: str


async def ollama_chat(call: ServiceCall, body: OllamaChatBody) -> dict[str, Any] | Stream:
    """Answer a conversation."""
    check_model(call, body.model)
    body.check_thinking()
    if not body.messages:
        return await _loaded(call, body, True)
    began = _begin(call, body)
    turns = turns_from(body.messages)
    continued = turns[-1]["role"] == "assistant" and not turns[-1].get("tool_calls") and len(turns) > 1
    conversation = Conversation(turns, numbered(body.tools), continued=continued, format=body.grammar(), clip=True)
    return await _answered(call, body, await conversation.runs(call, [body.sampling()]), began)


async def generate(call: ServiceCall, body: GenerateBody) -> dict[str, Any] | Stream:
    """Answer one question, or continue a text as it is."""
    check_model(call, body.model)
    body.check_thinking()
    body.check()
    if not body.prompt:
        return await _loaded(call, body, False)
    began = _begin(call, body)
    if body.raw:
        runs = await call.service.apart(lambda: [_raw_run(call, body)], text_size(body.prompt))
        return await _answered(call, body, runs, began)
    system = [{"role": "system", "content": body.system}] if body.system else []
    turns = [*system, {"role": "user", "content": body.prompt}]
    conversation = Conversation(turns, format=body.grammar(), clip=True)
    return await _answered(call, body, await conversation.runs(call, [body.sampling()]), began)


def _begin(call: ServiceCall, body: OllamaBody) -> int:
    """Begin to answer; the time in nanoseconds."""
    wanted = body.options.num_ctx if body.options else None
    if (wanted or 0) > call.service.facts.ctx:
        call.ignore(["options.num_ctx"])  # a smaller context needs nothing: the served one is larger
    return time.monotonic_ns()


async def _loaded(call: ServiceCall, body: OllamaBody, chat: bool) -> dict[str, Any] | Stream:
    """A request without a question, which loads the model where it is not in memory."""
    began = time.monotonic_ns()
    await call.service.run_job(lambda model: iter(()), call)
    line = _line(body.model, chat, "") | {"done": True, "done_reason": "load"}
    line["total_duration"] = line["load_duration"] = time.monotonic_ns() - began
    return line if body.stream is False else _only(line)


async def _only(line: dict[str, Any]) -> Stream:
    yield msgspec.json.encode(line) + b"\n"


async def _answered(call: ServiceCall, body: OllamaBody, runs: list[Run], began: int) -> dict[str, Any] | Stream:
    writer = _OllamaWriter(call, body, call.service.admit(runs, call), began)
    if body.stream is not False:
        return writer.stream()
    await writer.choices.finish()
    return writer.whole()


def _raw_run(call: ServiceCall, body: GenerateBody) -> Run:
    """The prompt is what the model sees: control tokens are written out in it."""
    service, format = call.service, body.grammar()
    ids = service.text.tokenizer.encode(body.prompt or "", parse_special=True)
    sampling = body.sampling()
    clip(sampling, service.facts.ctx - len(ids))
    return run_for(call, ids, sampling, constraint=format.constraint(call) if format else None)


def on_one_line(arguments: str) -> msgspec.Raw:
    """JSON text without whitespace between tokens, for a line of a stream; its numbers keep their spelling."""
    return msgspec.Raw(msgspec.json.format(arguments.encode() or b"{}", indent=-1))


def _line(model: str, chat: bool, text: str) -> dict[str, Any]:
    said = {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
    return {"model": model, "created_at": stamp(), **said, "done": False}


class _OllamaWriter:
    """Writes one answer in Ollama's form, whole or in lines."""

    def __init__(self, call: ServiceCall, body: OllamaBody, choices: Choices, began: int) -> None:
        self.call, self.body, self.choices, self._began = call, body, choices, began
        self._calls = 0

    def whole(self) -> dict[str, Any]:
        """All at once."""
        parts = Parts()
        steps = [step for event in self.choices.events[0] for step in parts.push(event)] + parts.finish()
        line = self._line(*self._said(steps)) | self._end()
        logprobs = self.choices.runs[0].content_logprobs()
        return line if logprobs is None else line | {"logprobs": self._noted(logprobs)}

    async def stream(self) -> Stream:
        """Line by line."""
        parts = Parts()
        async with aclosing(self.choices.pieces()) as pieces:
            async for piece in pieces:
                assert not isinstance(piece, PrefillProgress)  # not asked for
                steps = [step for event in joined(piece.events) for step in parts.push(event)]
                steps += parts.finish() if piece.over else []
                text, calls = self._said(steps)
                if text or calls or piece.logprobs:
                    more = {"logprobs": self._noted(piece.logprobs)} if piece.logprobs else {}
                    yield msgspec.json.encode(self._line(text, calls) | more) + b"\n"
        yield msgspec.json.encode(self._line("", []) | self._end()) + b"\n"

    def _said(self, steps: list[Step]) -> tuple[str, list[dict[str, Any]]]:
        """Text and calls in these steps; the text of a broken call comes as text."""
        text = "".join(step.delta for step in steps if isinstance(step, Grown) and not step.of_call)
        return text, list(self._called(steps))

    def _called(self, steps: list[Step]) -> Iterator[dict[str, Any]]:
        for step in steps:
            if isinstance(step, Closed) and step.call is not None:
                function = {"index": self._calls, "name": step.call.name, "arguments": on_one_line(step.text)}
                self._calls += 1
                yield {"id": step.call.id, "function": function}

    def _line(self, text: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        line = _line(self.body.model, isinstance(self.body, OllamaChatBody), text)
        if calls:
            line["message"]["tool_calls"] = calls
        return line

    def _end(self) -> dict[str, Any]:
        run = self.choices.runs[0]
        request, times = run.request, run.request.timings
        reason = "length" if request.finish_reason == "length" and not run.stopped else "stop"
        waited = 0.0 if times.started is None else times.started - times.added  # for the model and a place
        return {
            "done": True,
            "done_reason": reason,
            "load_duration": int(waited * 1e9),
            "prompt_eval_count": request.num_prompt,
            "prompt_eval_duration": int((times.prefill_seconds - waited) * 1e9),
            "eval_count": len(run.tokens),
            "eval_duration": int(times.decode_seconds * 1e9),
            "total_duration": time.monotonic_ns() - self._began,  # read last, so that it is not less than its parts
            "seed": request.seed,
        }

    def _noted(self, entries: list[Any]) -> list[Logprob]:
        return [logprob_of(self.call.service.text.tokenizer, entry) for entry in entries]


def _ping(chat: bool) -> Any:
    """A line without text."""

    def ping(call: ServiceCall) -> bytes:
        return msgspec.json.encode(_line(call.service.facts.id, chat, "")) + b"\n"

    return ping


ENDPOINTS = [
    Endpoint(
        "POST",
        "/api/chat",
        ollama_chat,
        "Answer a conversation (Ollama's form).",
        body=OllamaChatBody,
        answer=OllamaChatAnswer,
        streams=OllamaChatAnswer,
        works=True,
        dialect="ollama",
        names=_NAMES,
        ping=_ping(True),
    ),
    Endpoint(
        "POST",
        "/api/generate",
        generate,
        "Answer a question or continue a text (Ollama's form).",
        body=GenerateBody,
        answer=GenerateAnswer,
        streams=GenerateAnswer,
        works=True,
        dialect="ollama",
        names=_NAMES,
        ping=_ping(False),
    ),
]
