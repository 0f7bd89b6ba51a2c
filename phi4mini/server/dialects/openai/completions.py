"""POST /v1/completions: text or ids continued, with echo and log-probabilities of the prompt, as evaluations need."""

from __future__ import annotations

import secrets
import time
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from phi4mini.chat import TextDelta
from phi4mini.llm.results import Generation
from phi4mini.llm.run import Run
from phi4mini.server.answering import ChoicePiece, Choices, PrefillProgress
from phi4mini.server.dialects.openai import types
from phi4mini.server.dialects.openai.chat import DONE, PROGRESS_EVERY, StreamOptions, check_choices
from phi4mini.server.dialects.openai.logprobs import prompt_entry
from phi4mini.server.dialects.openai.stream_types import TextChunk
from phi4mini.server.dialects.openai.text_logprobs import TextLogprobWriter
from phi4mini.server.dialects.prompts import prompt_ids, run_for, text_size
from phi4mini.server.dialects.response_format import response_format
from phi4mini.server.dialects.sampling_fields import NAMES, Alternatives, Count, SamplingFields, Text
from phi4mini.server.http.call import Stream
from phi4mini.server.http.endpoint import Endpoint
from phi4mini.server.http.errors import ApiError
from phi4mini.server.service import ServiceCall

_MOST_PROMPTS = 64


class CompletionBody(SamplingFields, kw_only=True):
    """One or several prompts to be continued as plain text; control tokens spelled in them stay text."""

    prompt: Text | list[Any]
    model: str | None = None
    max_tokens: Count | None = 16
    n: Annotated[int, Meta(ge=1)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=1)] | None = None
    echo: bool | None = None
    logprobs: Alternatives | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    suffix: None = None


async def complete(call: ServiceCall, body: CompletionBody) -> types.TextCompletion | Stream:
    """Continue text."""
    call.service.check_model(body.model)
    check_choices(body.n, call)
    call.within(body.timeout)
    if body.max_tokens == 0 and not body.echo:
        raise ApiError(400, "max_tokens is 0 and echo is off: nothing is asked for", param="max_tokens")
    runs = await call.service.apart(lambda: _runs(call, body), text_size(body.prompt))
    choices = call.service.admit(runs, call)
    writer = _CompletionWriter(call, body, choices)
    if body.stream:
        return writer.stream()
    await choices.finish()
    return writer.whole()


def _runs(call: ServiceCall, body: CompletionBody) -> list[Run]:
    """One run for each prompt and choice; the runs of one prompt follow each other."""
    format, runs = response_format(body.response_format), []
    for ids in prompt_ids(call.service.text, body.prompt, "prompt", _MOST_PROMPTS):
        for index in range(body.n or 1):
            sampling = body.sampling(1 if body.max_tokens == 0 else body.max_tokens, body.logprobs, index)
            if body.echo and body.logprobs is not None:
                sampling["prompt_logprobs"] = body.logprobs
            constraint = format.constraint(call) if format else None
            run = run_for(call, ids, sampling, salt=body.cache_salt, constraint=constraint)
            run.scores_only = body.max_tokens == 0
            runs.append(run)
    return runs


class _CompletionWriter:
    """Writes the continuations in OpenAI's form, whole or in chunks."""

    def __init__(self, call: ServiceCall, body: CompletionBody, choices: Choices) -> None:
        self.call, self.body, self.choices = call, body, choices
        self.id, self.created = f"cmpl-{secrets.token_hex(12)}", int(time.time())
        self._logprobs = [TextLogprobWriter(call.service.text.tokenizer) for _ in choices.runs]

    def whole(self) -> types.TextCompletion:
        """All at once."""
        made = [
            run.generation("".join(e.text for e in events if isinstance(e, TextDelta)))
            for events, run in zip(self.choices.events, self.choices.runs, strict=True)
        ]
        service = self.call.service
        return types.TextCompletion(
            id=self.id,
            object="text_completion",
            created=self.created,
            model=service.facts.id,
            choices=[self._choice(index, one) for index, one in enumerate(made)],
            usage=msgspec.convert(self.choices.usage(), types.Usage),
            system_fingerprint=service.facts.fingerprint,
            timings=self.choices.timings(),
            seed=made[0].seed,
        )

    def _choice(self, index: int, made: Generation) -> types.TextChoice:
        text = self._prompt_text(index) + made.text if self.body.echo else made.text
        logprobs = None if self.body.logprobs is None else self._whole_logprobs(index, made)
        choice = types.TextChoice(index=index, text=text, finish_reason=made.finish_reason, logprobs=logprobs)  # type: ignore[arg-type]
        if self.body.prompt_logprobs is not None:
            choice.prompt_logprobs = [prompt_entry(entry) for entry in made.prompt_logprobs or ()]
        return choice

    def _whole_logprobs(self, index: int, made: Generation) -> types.TextLogprobs:
        """Entries for the text's tokens. With echo there is one for every token that was sampled, the end token too:
        evaluation programs ask for one token after the prompt and drop the last entry.
        """
        writer = self._logprobs[index]
        if not self.body.echo:
            return writer.write(self.choices.runs[index].content_logprobs() or ())
        prompt = writer.write(made.prompt_logprobs or ())
        writer.part()
        answer = writer.write(made.logprobs or ())
        return types.TextLogprobs(
            prompt.tokens + answer.tokens,
            prompt.token_logprobs + answer.token_logprobs,
            prompt.top_logprobs + answer.top_logprobs,
            prompt.text_offset + answer.text_offset,
        )

    def _prompt_text(self, index: int) -> str:
        request = self.choices.runs[index].request
        return self.call.service.text.tokenizer.decode(request.ids[: request.num_prompt])

    async def stream(self) -> Stream:
        """Chunk by chunk; the usage comes last, in a chunk without choices."""
        if self.body.echo:
            for index in range(len(self.choices.runs)):
                self._logprobs[index].skip(text := self._prompt_text(index))
                yield self._chunk(index, text)
        progress = PROGRESS_EVERY if self.body.return_progress else None
        async with aclosing(self.choices.pieces(progress)) as pieces:
            async for piece in pieces:
                if isinstance(piece, PrefillProgress):
                    yield self._event([], prompt_progress=piece.to_json())
                elif chunk := self._piece(piece):
                    yield chunk
        if self.body.stream_options and self.body.stream_options.include_usage:
            yield self._event([], usage=self.choices.usage(), timings=self.choices.timings())
        yield DONE

    def _piece(self, piece: ChoicePiece) -> bytes | None:
        text = "".join(e.text for e in piece.events if isinstance(e, TextDelta))
        logprobs = None
        if piece.logprobs:
            logprobs = msgspec.to_builtins(self._logprobs[piece.index].write(piece.logprobs))
        if not (text or logprobs or piece.over):
            return None
        if not piece.over:
            return self._chunk(piece.index, text, logprobs)
        reason = self.choices.runs[piece.index].generation("").finish_reason
        return self._chunk(piece.index, text, logprobs, reason, timings=self.choices.timings())

    def _chunk(self, index: int, text: str, logprobs: Any = None, reason: str | None = None, **more: Any) -> bytes:
        return self._event([{"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}], **more)

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        service = self.call.service
        head = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": service.facts.id,
            "system_fingerprint": service.facts.fingerprint,
            "choices": choices,
        }
        return b"data: " + msgspec.json.encode(head | more) + b"\n\n"


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/completions",
        complete,
        "Continue text or ids.",
        body=CompletionBody,
        answer=types.TextCompletion,
        streams=TextChunk,
        works=True,
        names=NAMES | {"messages": "prompt"},
    )
]
