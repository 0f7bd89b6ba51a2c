"""The chat formats of Microsoft's Phi models: Phi-4-mini, Phi-4-mini-reasoning, Phi-3.5-mini, Phi-3-mini and Phi-4.

`phi` is Phi-4-mini's official template; tools, calls or results of calls switch it to the tool-enabled form of the
model card. Promises the text of the official templates, character by character, without tools.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from phi4mini.chat.assistant_turn import texts_and_calls
from phi4mini.chat.messages import Message
from phi4mini.chat.templates.chat_format import Segment, check_plain, in_call_order, token, uses_tools
from phi4mini.chat.tools import calls_to_json
from phi4mini.chat.verbatim_json import to_json
from phi4mini.errors import BadInput

DEFAULT_TOOL_SYSTEM = "You are a helpful assistant with some tools."  # the model card's words


def _json_result(content: str) -> str:
    """A tool's result as JSON: unchanged if it is JSON, else as a JSON string."""
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return to_json(content)
    return content


class Phi:
    """Phi-4-mini: `<|role|>content<|end|>`, no line breaks, no default system turn."""

    name: ClassVar[str] = "phi"
    stop_tokens: ClassVar[tuple[str, ...]] = ("<|end|>", "<|endoftext|>")
    call_open: ClassVar[str | None] = "<|tool_call|>"
    call_close: ClassVar[str | None] = "<|/tool_call|>"
    calls_are_tokens: ClassVar[bool] = True
    tokens: ClassVar[tuple[str, ...]] = (
        *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"),
        *("<|tool|>", "<|/tool|>", "<|tool_call|>", "<|/tool_call|>", "<|tool_response|>"),
    )
    needs: ClassVar[tuple[str, ...]] = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

    def write(
        self, messages: Sequence[Message], functions: Sequence[dict[str, Any]], add_generation_prompt: bool
    ) -> list[Segment]:
        """The turns; tools stand at the end of the system turn, which is added if the conversation has none."""
        with_tools = uses_tools(messages, functions)
        turns = in_call_order(_with_functions(messages, functions) if functions else messages)
        return [*self._turns(turns, with_tools), token("<|assistant|>" if add_generation_prompt else "<|endoftext|>")]

    def _turns(self, messages: Sequence[Message], with_tools: bool) -> list[Segment]:
        return [segment for message in messages for segment in self._turn(message, with_tools)]

    def _turn(self, message: Message, with_tools: bool) -> list[Segment]:
        if message.role == "assistant":
            return [token("<|assistant|>"), *self._said(message), token("<|end|>", learn=True)]
        if message.role == "tool" and with_tools:
            return [token("<|tool_response|>"), Segment(_json_result(message.content)), token("<|end|>")]
        return [token(f"<|{message.role}|>"), Segment(message.content), *_tool_list(message.tools), token("<|end|>")]

    @staticmethod
    def _said(message: Message) -> list[Segment]:
        said: list[Segment] = []
        for part in texts_and_calls(message):
            if isinstance(part, str):
                said.append(Segment(part, learn=True))
                continue
            calls = f"[{', '.join(calls_to_json(part))}{'' if part[-1].broken else ']'}"
            said += [token("<|tool_call|>", True), Segment(calls, learn=True), token("<|/tool_call|>", True)]
        return said


def _tool_list(tools: str | None) -> list[Segment]:
    return [] if tools is None else [token("<|tool|>"), Segment(tools), token("<|/tool|>")]


def _with_functions(messages: Sequence[Message], functions: Sequence[dict[str, Any]]) -> list[Message]:
    """`messages` with the functions on the first system turn, which is added if the conversation begins with none."""
    if not messages or messages[0].role != "system":
        messages = [Message("system", DEFAULT_TOOL_SYSTEM), *messages]
    if messages[0].tools is not None:
        raise BadInput("messages[0].tools and the tools argument are both given; which one is meant?")
    return [replace(messages[0], tools=to_json(list(functions))), *messages[1:]]


class PhiReasoning(Phi):
    """Phi-4-mini-reasoning: one system turn with the model's own sentence and then all system messages."""

    name: ClassVar[str] = "phi-reasoning"
    system: ClassVar[str] = "Your name is Phi, an AI math expert developed by Microsoft."

    def _turns(self, messages: Sequence[Message], with_tools: bool) -> list[Segment]:
        head = [token("<|system|>"), Segment(self.system)]
        for message in messages:
            if message.role == "system":
                head += [Segment(f" {message.content}"), *_tool_list(message.tools)]
        others = [message for message in messages if message.role != "system"]
        return [*head, token("<|end|>"), *super()._turns(others, with_tools)]


class Phi35:
    """Phi-3.5-mini: a line break after every token; its template has no tools."""

    name: ClassVar[str] = "phi-3.5"
    stop_tokens: ClassVar[tuple[str, ...]] = ("<|end|>", "<|endoftext|>")
    call_open: ClassVar[str | None] = None
    call_close: ClassVar[str | None] = None
    calls_are_tokens: ClassVar[bool] = False
    tokens: ClassVar[tuple[str, ...]] = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>")
    needs: ClassVar[tuple[str, ...]] = Phi.needs
    skips_empty_system: ClassVar[bool] = True

    def write(
        self, messages: Sequence[Message], functions: Sequence[dict[str, Any]], add_generation_prompt: bool
    ) -> list[Segment]:
        """The turns, a line break after each token. Raises BadInput for tools and roles the template lacks."""
        check_plain(self, messages, functions)
        segments: list[Segment] = []
        for message in messages:
            if self.skips_empty_system and message.role == "system" and not message.content:
                continue  # the official template skips it
            learn = message.role == "assistant"
            segments += [token(f"<|{message.role}|>"), Segment("\n"), Segment(message.content, learn=learn)]
            segments += [token("<|end|>", learn), Segment("\n")]
        if add_generation_prompt:
            return [*segments, token("<|assistant|>"), Segment("\n")]
        return [*segments, token("<|endoftext|>")]


class Phi3(Phi35):
    """Phi-3-mini since July 2024: as Phi-3.5, but an empty system turn is written too."""

    name: ClassVar[str] = "phi-3"
    skips_empty_system: ClassVar[bool] = False


class Phi4:
    """Phi-4, the model of 14 billion: `<|im_start|>role<|im_sep|>content<|im_end|>`; its template has no tools."""

    name: ClassVar[str] = "phi-4"
    stop_tokens: ClassVar[tuple[str, ...]] = ("<|im_end|>", "<|endoftext|>")
    call_open: ClassVar[str | None] = None
    call_close: ClassVar[str | None] = None
    calls_are_tokens: ClassVar[bool] = False
    tokens: ClassVar[tuple[str, ...]] = ("<|im_start|>", "<|im_sep|>", "<|im_end|>", "<|endoftext|>")
    needs: ClassVar[tuple[str, ...]] = ("<|im_start|>", "<|im_sep|>", "<|im_end|>")

    def write(
        self, messages: Sequence[Message], functions: Sequence[dict[str, Any]], add_generation_prompt: bool
    ) -> list[Segment]:
        """The turns. Raises BadInput for tools and roles the template lacks."""
        check_plain(self, messages, functions)
        segments: list[Segment] = []
        for message in messages:
            learn = message.role == "assistant"
            segments += self._head(message.role)
            segments += [Segment(message.content, learn=learn), token("<|im_end|>", learn)]
        return segments + self._head("assistant") * add_generation_prompt

    @staticmethod
    def _head(role: str) -> list[Segment]:
        return [token("<|im_start|>"), Segment(role), token("<|im_sep|>")]
