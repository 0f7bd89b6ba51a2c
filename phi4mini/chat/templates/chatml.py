"""The chat formats with ChatML's turns: `chatml`, and `smollm` with SmolLM2's default system turn.

Promises the text of SmolLM2's official template, character by character, without tools. How tools are described is our
own convention, because neither template has any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from phi4mini.chat.assistant_turn import texts_and_calls
from phi4mini.chat.messages import Message
from phi4mini.chat.templates.chat_format import Segment, in_call_order, token
from phi4mini.chat.tools import calls_to_json
from phi4mini.chat.verbatim_json import to_json
from phi4mini.errors import BadInput


class ChatML:
    """Plain ChatML: `<|im_start|>role`, a line break, content, `<|im_end|>`, a line break; no default system turn.

    The template has no tools. If tools are given, the system turn describes them and asks for calls in the form
    `<tool_call>{...}</tool_call>`, which is ordinary text; this is our own convention, close to SmolLM2-1.7B's.
    """

    name: ClassVar[str] = "chatml"
    stop_tokens: ClassVar[tuple[str, ...]] = ("<|im_end|>", "<|endoftext|>")
    call_open: ClassVar[str | None] = "<tool_call>"
    call_close: ClassVar[str | None] = "</tool_call>"
    calls_are_tokens: ClassVar[bool] = False
    tokens: ClassVar[tuple[str, ...]] = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    needs: ClassVar[tuple[str, ...]] = ("<|im_start|>", "<|im_end|>")
    system: ClassVar[str | None] = None  # the default system turn
    tool_words: ClassVar[str] = (
        "You can call these functions:\n<tools>{}</tools>\nTo call one, answer with its name and arguments as JSON:\n"
        '<tool_call>{{"name": "function", "arguments": {{"argument": "value"}}}}</tool_call>'
    )

    def write(
        self, messages: Sequence[Message], functions: Sequence[dict[str, Any]], add_generation_prompt: bool
    ) -> list[Segment]:
        """The turns; the end of the system turn describes the tools. Raises BadInput for tools on a message."""
        turns = in_call_order(messages)
        if not turns or turns[0].role != "system":
            default = self.system if self.system is not None and (turns or functions) else "" if functions else None
            turns = turns if default is None else [Message("system", default), *turns]
        if functions:
            words = self.tool_words.format(to_json(list(functions)))
            said = turns[0].content
            turns[0] = replace(turns[0], content=f"{said}\n\n{words}" if said else words)
        segments = [segment for turn in turns for segment in self._turn(turn)]
        return segments + [token("<|im_start|>"), Segment("assistant\n")] * add_generation_prompt

    def _turn(self, message: Message) -> list[Segment]:
        if message.tools is not None:
            raise BadInput(f"the chat format {self.name!r} takes tools as an argument, not on the system message")
        said = self._said(message)
        if message.role == "assistant":
            body = [Segment("assistant\n"), Segment(said, learn=True), token("<|im_end|>", learn=True)]
        else:
            body = [Segment(f"{message.role}\n{said}"), token("<|im_end|>")]
        return [token("<|im_start|>"), *body, Segment("\n")]

    def _said(self, message: Message) -> str:
        """The texts and calls of a turn; every call begins a new line."""
        said = ""
        for part in texts_and_calls(message, self.call_open or ""):
            if isinstance(part, str):
                said += part
                continue
            for call in calls_to_json(part):
                said += ("\n" if said and not said.endswith("\n") else "") + f"{self.call_open}{call}{self.call_close}"
        return said


class SmolLM(ChatML):
    """SmolLM2: ChatML with a default system turn."""

    name: ClassVar[str] = "smollm"
    system: ClassVar[str | None] = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
