"""Bodies of Ollama's clients: options become sampling keywords, messages become OpenAI's.

Promises: a field that would change the answer and is not supported (images, templates, thinking, infilling) is refused
by name; a field for Ollama's own runner (`num_gpu`, `keep_alive`, ...) is no field of these types, and so is named as
ignored. A limit beyond the context means: to the end of the context. It knows no HTTP and no tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from phi4mini.errors import BadInput
from phi4mini.llm.keywords import KNOBS, MAX_COUNT
from phi4mini.server.dialects.response_format import ResponseFormat, response_format
from phi4mini.server.dialects.sampling_fields import (
    Alternatives,
    FrequencyPenalty,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    SamplingFields,
    Seed,
    Stops,
    StopText,
    Temperature,
    Text,
    TopK,
    TopP,
)
from phi4mini.server.http.errors import ApiError

Turn = dict[str, Any]


class Options(msgspec.Struct, kw_only=True):
    """How an answer is drawn; an option left out is off. `num_predict` below 1 is no limit, `seed` -1 is random."""

    temperature: Temperature | None = None
    top_k: TopK | None = None
    top_p: TopP | None = None
    min_p: MinP | None = None
    seed: Seed | None = None
    num_predict: Annotated[int, Meta(ge=-2, le=MAX_COUNT)] | None = None
    num_ctx: Annotated[int, Meta(ge=0, le=MAX_COUNT)] | None = None
    stop: StopText | Stops | None = None
    repeat_penalty: RepetitionPenalty | None = None
    frequency_penalty: FrequencyPenalty | None = None
    presence_penalty: PresencePenalty | None = None

    def sampling(self, logprobs: int | None) -> dict[str, Any]:
        """Keywords of the run."""
        fields = SamplingFields(**{field: getattr(self, option) for field, option in _OPTION_OF.items()})
        return fields.sampling(self.num_predict if (self.num_predict or 0) > 0 else None, logprobs)


_OPTION_OF = {  # the field of SamplingFields -> Ollama's option
    knob.openai: knob.ollama
    for knob in KNOBS
    if knob.ollama in Options.__struct_fields__ and knob.openai in SamplingFields.__struct_fields__
}


class OllamaBody(msgspec.Struct, kw_only=True):
    """Fields of both kinds of request."""

    model: str
    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    options: Options | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None

    def sampling(self) -> dict[str, Any]:
        """The sampling keywords of the run. Raises ApiError."""
        return (self.options or Options()).sampling((self.top_logprobs or 0) if self.logprobs else None)

    def grammar(self) -> ResponseFormat | None:
        """The format of the answer. Raises 400 for an unknown one."""
        if self.format is None or self.format == "":
            return None
        if self.format == "json":
            return response_format({"type": "json_object"}, "format")
        if isinstance(self.format, str):
            message = f'format is {self.format[:40]!r}; it can be "json" or a JSON schema'
            raise ApiError(400, message, param="format", code="invalid_value")
        return response_format({"type": "json_schema", "schema": self.format}, "format")

    def check_thinking(self) -> None:
        """Refuse to think in Ollama's words."""
        if self.think:
            raise ApiError(400, f'"{self.model[:80]}" does not support thinking', param="think")


class OllamaChatBody(OllamaBody, kw_only=True):
    """A conversation to be answered; none at all asks that the model be there."""

    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None


class GenerateBody(OllamaBody, kw_only=True):
    """One question, or with `raw` a text to be continued, in which control tokens are what they spell."""

    prompt: Text | None = None
    system: Text | None = None
    raw: bool | None = None
    suffix: str | None = None
    template: str | None = None
    context: list[int] | None = None
    images: list[Any] | None = None

    def check(self) -> None:
        """Refuse fields that are not supported."""
        if self.raw and (self.template or self.system or self.context):
            raise ApiError(400, "raw mode does not support template, system, or context", param="raw")
        reasons = {
            "images": "this model reads text only",
            "suffix": f'"{self.model[:80]}" does not support insert',
            "template": "the model's own chat format is used; send a prompt in another one with raw",
            "context": "no request is continued by its ids; send the conversation to /api/chat",
        }
        if name := next((name for name in reasons if getattr(self, name)), None):
            raise ApiError(400, f"{name}: {reasons[name]}", param=name, code="unsupported_parameter")


def turns_from(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The conversation as OpenAI's messages. A result finds its call by id, else by the tool's name, else by order.

    Raises BadInput naming the place.
    """
    turns: list[Turn] = []
    waiting: list[tuple[str, str]] = []  # id and name of calls without a result so far
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        role = str(message.get("role", "")).lower()
        if message.get("images"):
            raise BadInput(f"{where}.images: this model reads text only")
        turn: Turn = {"role": role, "content": message.get("content") or ""}
        if calls := message.get("tool_calls"):
            turn["tool_calls"] = _calls(calls, where)
            waiting += [(call["id"], call["function"].get("name", "")) for call in turn["tool_calls"]]
        if role == "tool":
            turn["tool_call_id"] = _answered(message, waiting, where)
        turns.append(turn)
    return turns


def _calls(calls: Any, where: str) -> list[Turn]:
    made = []
    for at, call in enumerate(calls if isinstance(calls, list) else [None]):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise BadInput(f"{where}.tool_calls[{at}] needs function.name and function.arguments")
        id = call.get("id") or f"{where}.{at}"
        made.append({"id": id, "type": "function", "function": dict(function)})
    return made


def _answered(message: Mapping[str, Any], waiting: list[tuple[str, str]], where: str) -> str:
    """The id of the call that a result answers, which is then no longer waiting."""
    given, name = message.get("tool_call_id"), message.get("tool_name") or message.get("name")
    if not given and not waiting:
        raise BadInput(f"{where}: a result without a call before it")
    by_name = (one for one in waiting if one[1] == name)
    found = next((one for one in waiting if one[0] == given), None) if given else next(by_name, waiting[0])
    if found is not None:
        waiting.remove(found)
    return str(given or (found or waiting[0])[0])
