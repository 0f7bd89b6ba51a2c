"""The body of POST /v1/responses: its fields, and the conversation that it asks to have answered.

Promises: a field that needs earlier responses is refused, not left out. It knows no answer.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from phi4mini.server.dialects.conversation import Conversation, chosen_tool
from phi4mini.server.dialects.hosted_tools import callable_tools
from phi4mini.server.dialects.openai.responses_input import functions_from, turns_from
from phi4mini.server.dialects.response_format import response_format
from phi4mini.server.dialects.sampling_fields import Alternatives, SamplingFields, Some
from phi4mini.server.http.errors import ApiError
from phi4mini.server.service import ServiceCall

_INCLUDED = ("message.output_text.logprobs", "reasoning.encrypted_content")  # the second adds nothing: no reasoning


class TextConfig(msgspec.Struct):
    """The format of the text."""

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

    def to_conversation(self, call: ServiceCall) -> Conversation:
        """The conversation, checked as far as that needs no tokenizer. Raises ApiError and BadInput."""
        call.service.check_model(self.model)
        self._check_stateless()
        call.within(self.timeout)
        if self.text and self.text.verbosity not in (None, "medium"):
            call.ignore(["text.verbosity"])
        return Conversation(
            turns_from(self.input, self.instructions, call.ignore),
            tools=functions_from(callable_tools(self.tools, call)),
            tool_choice=chosen_tool(self.tool_choice),
            parallel=self.parallel_tool_calls is not False,
            format=response_format(self.text.format if self.text else None, "text.format"),
            continued=bool(self.continue_final_message),
            salt=self.cache_salt,
        )

    @property
    def logprobs(self) -> int | None:
        """The number of alternatives to each token; None where log-probabilities were not asked for."""
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
