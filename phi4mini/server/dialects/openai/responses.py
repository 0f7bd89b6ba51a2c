"""POST /v1/responses: OpenAI's newer API, whole or streamed, without memory of earlier responses.

Promise: a stream's events are OpenAI's, numbered, and end with the whole response.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from phi4mini.server.dialects.answer_parts import closed_parts
from phi4mini.server.dialects.openai.responses_body import InputBody
from phi4mini.server.dialects.openai.responses_output import ResponseWriter
from phi4mini.server.dialects.openai.stream_types import ResponseEvent
from phi4mini.server.dialects.openai.types import Response
from phi4mini.server.dialects.sampling_fields import NAMES
from phi4mini.server.http.call import Stream
from phi4mini.server.http.endpoint import Endpoint
from phi4mini.server.service import ServiceCall

_NAMES = NAMES | {
    "max_new_tokens": "max_output_tokens",
    "messages": "input",
    "tool_call_id": "call_id",
    "response_format": "text.format",
    ".function.parameters": ".parameters",
    ".function.name": ".name",
    ".function.description": ".description",
}


class ResponseInputTokens(msgspec.Struct):
    """How many tokens the input of a request has."""

    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


async def respond(call: ServiceCall, body: InputBody) -> Response | Stream:
    """Answer a conversation."""
    sampling = body.sampling(body.max_output_tokens, body.logprobs)
    runs = await body.to_conversation(call).runs(call, [sampling])
    choices = call.service.admit(runs, call)
    writer = ResponseWriter(call, body, choices)
    if body.stream:
        return writer.stream()
    await choices.finish()
    return writer.whole([writer.item(part) for part in closed_parts(choices.events[0])])


async def count_input(call: ServiceCall, body: InputBody) -> ResponseInputTokens:
    """How many tokens the input of a request has."""
    return ResponseInputTokens(len(await body.to_conversation(call).ids(call)))


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/responses",
        respond,
        "Answer a conversation (OpenAI's Responses API, stateless).",
        body=InputBody,
        answer=Response,
        streams=ResponseEvent,
        works=True,
        names=_NAMES,
    ),
    Endpoint(
        "POST",
        "/v1/responses/input_tokens",
        count_input,
        "Count the tokens of a response's input.",
        body=InputBody,
        answer=ResponseInputTokens,
        names=_NAMES,
    ),
]
