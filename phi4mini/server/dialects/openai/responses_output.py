"""One answer in the form of OpenAI's Responses API: whole, or event by event.

Promises: the finished items of a stream are those of the response that ends it; events are numbered from 0.
"""

from __future__ import annotations

import secrets
from contextlib import aclosing
from typing import Any

import msgspec

from phi4mini.llm.results import TokenLogprob
from phi4mini.server.answering import Choices, PrefillProgress
from phi4mini.server.dialects.answer_parts import Closed, Grown, Opened, Parts, Step, closed_parts, joined
from phi4mini.server.dialects.openai.logprobs import logprob_of
from phi4mini.server.dialects.openai.responses_body import InputBody
from phi4mini.server.dialects.openai.types import Incomplete, InputDetails, OutputDetails, Response, ResponseUsage
from phi4mini.server.http.call import Stream
from phi4mini.server.service import ServiceCall

Item = dict[str, Any]


class ResponseWriter:
    """Writes one response, whole or as events."""

    def __init__(self, call: ServiceCall, body: InputBody, choices: Choices) -> None:
        self.call, self.body, self.choices, self.run = call, body, choices, choices.runs[0]
        self._token = secrets.token_hex(12)
        self._created = call.service.now()
        self._number = 0  # of the next event
        self._logprobs: list[TokenLogprob] = []  # of tokens whose text has not been sent yet
        self._calls: dict[int, Any] = {}  # index -> the call that was opened there

    def whole(self, output: list[Item], over: bool = True) -> Response:
        """The response as it is now, or as it ends."""
        body, cut = self.body, over and self.run.request.finish_reason == "length" and not self.run.stopped
        format = body.text.format if body.text and body.text.format else {"type": "text"}
        return Response(
            id=f"resp_{self._token}",
            created_at=self._created,
            model=self.call.service.facts.id,
            status="incomplete" if cut else "completed" if over else "in_progress",
            output=output,
            incomplete_details=Incomplete("max_output_tokens") if cut else None,
            usage=self._usage() if over else None,
            instructions=body.instructions,
            tools=body.tools or [],
            tool_choice=body.tool_choice or "auto",
            parallel_tool_calls=body.parallel_tool_calls is not False,
            text={"format": format},
            temperature=body.temperature or 0.0,
            top_p=1.0 if body.top_p is None else body.top_p,
            max_output_tokens=body.max_output_tokens,
            top_logprobs=body.top_logprobs or 0,
            metadata=body.metadata or {},
            user=body.user,
            seed=self.run.request.seed,
        )

    def _usage(self) -> ResponseUsage:
        request, new = self.run.request, len(self.run.tokens)
        cached = InputDetails(request.cached_tokens)
        return ResponseUsage(request.num_prompt, cached, new, OutputDetails(), request.num_prompt + new)

    def item(self, part: Closed) -> Item:
        """A part of the answer as an item of the output."""
        status = "incomplete" if part.broken or self._cut_in(part) else "completed"
        if part.call is not None or part.broken:
            call = part.call or self._calls[part.index]
            return self._call_item(part.index, call.id, call.name, part.text, status)
        return self._message(part.index, status, [self._text(part.index, part.text)])

    def _cut_in(self, part: Closed) -> bool:
        """Whether it is a text at which the answer was cut off."""
        if part.call or self.run.stopped or self.run.request.finish_reason != "length":
            return False
        last = closed_parts(self.choices.events[0])[-1]
        return last.index == part.index

    def _message(self, index: int, status: str, content: list[dict[str, Any]]) -> Item:
        id = f"msg_{self._token}_{index}"
        return {"type": "message", "id": id, "status": status, "role": "assistant", "content": content}

    def _call_item(self, index: int, id: str, name: str, arguments: str, status: str) -> Item:
        item = {"type": "function_call", "id": f"fc_{self._token}_{index}", "status": status}
        return item | {"call_id": id, "name": name, "arguments": arguments}

    def _text(self, index: int, text: str) -> dict[str, Any]:
        """A text. The text that an answer begins with has the log-probabilities of all tokens."""
        entries = self.run.logprobs_from(0) if index == 0 else []
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self._noted(entries)}

    def _noted(self, entries: list[TokenLogprob]) -> list[Any]:
        return [msgspec.to_builtins(logprob_of(self.call.service.text.tokenizer, entry)) for entry in entries]

    async def stream(self) -> Stream:
        """Event by event."""
        yield self._event("response.created", response=self.whole([], over=False))
        yield self._event("response.in_progress", response=self.whole([], over=False))
        parts, output = Parts(), []
        async with aclosing(self.choices.pieces()) as pieces:
            async for piece in pieces:
                assert not isinstance(piece, PrefillProgress)  # not asked for
                self._logprobs += piece.logprobs
                for step in (step for event in joined(piece.events) for step in parts.push(event)):
                    if isinstance(step, Closed) and not step.broken:
                        output.append(step)
                    for event in self._events(step):
                        yield event
        for step in parts.finish():
            if isinstance(step, Closed):
                output.append(step)
            for event in self._events(step):
                yield event
        response = self.whole([self.item(part) for part in output])
        yield self._event(f"response.{response.status}", response=response)

    def _events(self, step: Step) -> list[bytes]:
        """One step as events."""
        at: dict[str, Any] = {"output_index": step.index}
        match step:
            case Opened(index, call) if call is not None:
                self._calls[index] = call
                item = self._call_item(index, call.id, call.name, "", "in_progress")
                return [self._event("response.output_item.added", **at, item=item)]
            case Opened(index):
                item = self._message(index, "in_progress", [])
                part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
                at_part = at | {"item_id": item["id"], "content_index": 0}
                return [
                    self._event("response.output_item.added", **at, item=item),
                    self._event("response.content_part.added", **at_part, part=part),
                ]
            case Grown(index, delta, True):
                id = f"fc_{self._token}_{index}"
                return [self._event("response.function_call_arguments.delta", **at, item_id=id, delta=delta)]
            case Grown(index, delta):
                return [self._text_delta(index, delta)]
            case Closed():
                return self._closed(step)

    def _text_delta(self, index: int, delta: str) -> bytes:
        logprobs, self._logprobs = self._noted(self._logprobs), []
        at = {"output_index": index, "item_id": f"msg_{self._token}_{index}", "content_index": 0}
        return self._event("response.output_text.delta", **at, delta=delta, logprobs=logprobs)

    def _closed(self, part: Closed) -> list[bytes]:
        item, at = self.item(part), {"output_index": part.index}
        its: dict[str, Any] = at | {"item_id": item["id"]}
        if item["type"] == "function_call":
            done = [("response.function_call_arguments.done", its | {"name": item["name"], "arguments": part.text})]
        else:
            content = item["content"][0]
            its["content_index"] = 0
            text = {"text": part.text, "logprobs": content["logprobs"]}
            done = [("response.output_text.done", its | text), ("response.content_part.done", its | {"part": content})]
        done.append(("response.output_item.done", at | {"item": item}))
        return [self._event(kind, **fields) for kind, fields in done]

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        body = msgspec.json.encode({"type": kind, "sequence_number": number, **fields})
        return f"event: {kind}\ndata: ".encode() + body + b"\n\n"
