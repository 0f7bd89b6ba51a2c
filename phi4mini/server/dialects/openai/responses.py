"""POST /v1/responses: OpenAI's newer API, whole or streamed, without memory of earlier responses.

Promises: what would need such memory is refused, not left out; a stream's events are OpenAI's, numbered, and end with
the response as a whole.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from phi4mini.server.dialects.answer_parts import closed_parts
from phi4mini.server.dialects.conversation import Ask, chosen_tool, response_format
from phi4mini.server.dialects.hosted_tools import callable_tools
from phi4mini.server.dialects.openai.responses_input import functions_from, turns_from
from phi4mini.server.dialects.openai.responses_output import ResponseAnswer
from phi4mini.server.dialects.openai.types import Response
from phi4mini.server.dialects.sampling_fields import NAMES, Alternatives, SamplingFields, Some
from phi4mini.server.http.endpoint import Call, Endpoint, Stream
from phi4mini.server.http.errors import ApiError
from phi4mini.server.openapi.events import ResponseEvent

_NAMES = NAMES | {
    "max_new_tokens": "max_output_tokens",
    "messages": "input",
    "tool_call_id": "call_id",
    "response_format": "text.format",
    ".function.parameters": ".parameters",
    ".function.name": ".name",
    ".function.description": ".description",
}
_INCLUDED = ("message.output_text.logprobs", "reasoning.encrypted_content")  # the second: there is none to include


class TextConfig(msgspec.Struct):
    """What the text must look like."""

    format: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class InputBody(SamplingFields, kw_only=True):
    """A conversation, its tools, and the model asked for."""

    input: str | list[Any]
    model: str | None = None
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    continue_final_message: bool | None = None
    max_output_tokens: Some | None = None
    top_logprobs: Alternatives | None = None
    include: list[str] | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None
    prompt: Any = None
    truncation: Literal["disabled"] | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None

    def ask(self, call: Call) -> Ask:
        """What is asked, checked as far as it can be without the model."""
        call.service.check_model(self.model)
        self._check_stateless()
        call.within(self.timeout)
        if self.text and self.text.verbosity not in (None, "medium"):
            call.ignore(["text.verbosity"])
        return Ask(
            turns_from(self.input, self.instructions, call.ignore),
            lambda index: self.sampling(self.max_output_tokens, self.logprobs, index),
            tools=functions_from(callable_tools(self.tools, call)),
            tool_choice=chosen_tool(self.tool_choice),
            parallel=self.parallel_tool_calls is not False,
            format=response_format(self.text.format if self.text else None, "text.format"),
            continued=bool(self.continue_final_message),
            salt=self.cache_salt,
        )

    @property
    def logprobs(self) -> int | None:
        """Alternatives to each token, None where log-probabilities were not asked for."""
        if self.top_logprobs is None and _INCLUDED[0] not in (self.include or ()):
            return None
        return self.top_logprobs or 0

    def _check_stateless(self) -> None:
        stateful = {
            "store": self.store is True,
            "previous_response_id": self.previous_response_id is not None,
            "conversation": self.conversation is not None,
            "background": self.background is True,
            "prompt": self.prompt is not None,
        }
        if name := next((name for name, given in stateful.items() if given), None):
            message = f"{name}: this server keeps no responses; send the whole conversation as input"
            raise ApiError(400, message, param=name, code="unsupported_parameter")
        for name in self.include or ():
            if name not in _INCLUDED:
                message = f"include: {name[:60]!r} is not known; {_INCLUDED[0]} is"
                raise ApiError(400, message, param="include", code="invalid_value")


class ResponseInputTokens(msgspec.Struct):
    """How many tokens the input of a request has."""

    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


async def respond(call: Call, body: InputBody) -> Response | Stream:
    """Answer a conversation."""
    choices = call.service.admit(await body.ask(call).runs(call), call)
    answer = ResponseAnswer(call, body, choices)
    if body.stream:
        return answer.stream()
    await choices.finish()
    return answer.whole([answer.item(part) for part in closed_parts(choices.events[0])])


async def count_input(call: Call, body: InputBody) -> ResponseInputTokens:
    """How many tokens the input of a request has."""
    return ResponseInputTokens(len(await body.ask(call).ids(call)))


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
