"""Chat formats: how the turns of a conversation are written for one family of models.

A format turns messages into segments: control tokens by name, and text that can never become one. `phi` is
Phi-4-mini's official template, and its tool-enabled form as soon as tools, calls or answers to calls are present;
`phi-reasoning`, `phi-3.5`, `phi-3` and `phi-4` are the templates of Phi-4-mini-reasoning, Phi-3.5-mini, Phi-3-mini and
the Phi-4 of 14 billion; `smollm` is SmolLM2's, `chatml` the same without its default system turn.
Promises the text of the official templates, character by character. A template that is none of these is not run: it is
a program of unknown origin (`templates.py` reads it). Knows no ids (`rendering.py`), reads nothing back (`reading.py`).
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from phi4mini.chat.messages import Message
from phi4mini.chat.template_reader import TemplateText
from phi4mini.chat.tools import calls_to_json, to_json
from phi4mini.chat.turn_parts import said_in
from phi4mini.errors import BadInput
from phi4mini.tokenizer import Tokenizer

_END_OF_TEXT = "<|endoftext|>"
DEFAULT_TOOL_SYSTEM = "You are a helpful assistant with some tools."  # the model card's words


@dataclass(frozen=True)
class Segment:
    """A control token by its name, or text; `learn`: the assistant must produce it."""

    text: str
    control: bool = False
    learn: bool = False


class ChatFormat(Protocol):
    """How one family of models writes a conversation."""

    name: ClassVar[str]
    stop_tokens: ClassVar[tuple[str, ...]]  # the model has finished its turn
    call_open: ClassVar[str | None]  # what opens a tool call
    call_close: ClassVar[str | None]
    calls_are_tokens: ClassVar[bool]  # those two are control tokens, not text
    tokens: ClassVar[tuple[str, ...]]  # control tokens of the format, none of which is ever shown as text
    needs: ClassVar[tuple[str, ...]]  # those without which no conversation can be written

    def write(
        self, messages: Sequence[Message], functions: Sequence[dict[str, Any]], add_generation_prompt: bool
    ) -> list[Segment]:
        """The conversation as segments. Raises BadInput for what the format has no words for."""


def _token(name: str, learn: bool = False) -> Segment:
    return Segment(name, control=True, learn=learn)


def _json_result(content: str) -> str:
    """A tool's result as JSON: as it is when it is JSON already, else as a JSON string."""
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return to_json(content)
    return content


def uses_tools(messages: Sequence[Message], functions: Sequence[dict[str, Any]]) -> bool:
    """Whether the tool-enabled form is meant: tools are given, or there are calls or answers to calls."""
    return bool(functions) or any(message.tool_calls or message.tool_call_id is not None for message in messages)


def in_call_order(messages: Sequence[Message]) -> list[Message]:
    """Results that stand beside each other, in the order of their calls: the model sees no ids, only order.

    A result may stand anywhere after its call. Raises BadInput for one that answers no call before it.
    """
    ordered: list[Message] = []
    calls: dict[str, int] = {}  # id -> its number among all calls so far; of equal ids the last one is meant
    count = 0
    ranks: list[int] = []  # of the results at the end of `ordered`
    for i, message in enumerate(messages):
        if message.role != "tool" or message.tool_call_id is None:
            for call in message.tool_calls:
                calls[call.id] = count = count + 1
            ranks = []
            ordered.append(message)
            continue
        if message.tool_call_id not in calls:
            place = message.place or f"messages[{i}]"
            raise BadInput(f"{place}.tool_call_id {message.tool_call_id!r:.80} answers no call before it")
        rank = calls[message.tool_call_id]
        at = bisect_right(ranks, rank)
        ordered.insert(len(ordered) - len(ranks) + at, message)
        ranks.insert(at, rank)
    return ordered


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
        """The turns; tools at the end of the system turn, which is made when there is none."""
        with_tools = uses_tools(messages, functions)
        turns = in_call_order(_with_functions(messages, functions) if functions else messages)
        return [*self._turns(turns, with_tools), _token("<|assistant|>" if add_generation_prompt else "<|endoftext|>")]

    def _turns(self, messages: Sequence[Message], with_tools: bool) -> list[Segment]:
        return [segment for message in messages for segment in self._turn(message, with_tools)]

    def _turn(self, message: Message, with_tools: bool) -> list[Segment]:
        if message.role == "assistant":
            return [_token("<|assistant|>"), *self._said(message), _token("<|end|>", learn=True)]
        if message.role == "tool" and with_tools:
            return [_token("<|tool_response|>"), Segment(_json_result(message.content)), _token("<|end|>")]
        return [_token(f"<|{message.role}|>"), Segment(message.content), *_tool_list(message.tools), _token("<|end|>")]

    @staticmethod
    def _said(message: Message) -> list[Segment]:
        said: list[Segment] = []
        for part in said_in(message):
            if isinstance(part, str):
                said.append(Segment(part, learn=True))
                continue
            calls = f"[{', '.join(calls_to_json(part))}{'' if part[-1].broken else ']'}"
            said += [_token("<|tool_call|>", True), Segment(calls, learn=True), _token("<|/tool_call|>", True)]
        return said


def _tool_list(tools: str | None) -> list[Segment]:
    return [] if tools is None else [_token("<|tool|>"), Segment(tools), _token("<|/tool|>")]


def _with_functions(messages: Sequence[Message], functions: Sequence[dict[str, Any]]) -> list[Message]:
    """The functions on the first system turn, which is made when the conversation does not begin with one."""
    if not messages or messages[0].role != "system":
        messages = [Message("system", DEFAULT_TOOL_SYSTEM), *messages]
    if messages[0].tools is not None:
        raise BadInput("messages[0].tools and the tools argument are both given; which one is meant?")
    return [replace(messages[0], tools=to_json(list(functions))), *messages[1:]]


class PhiReasoning(Phi):
    """Phi-4-mini-reasoning: one system turn that begins with the model's own sentence and takes in all the others."""

    name: ClassVar[str] = "phi-reasoning"
    system: ClassVar[str] = "Your name is Phi, an AI math expert developed by Microsoft."

    def _turns(self, messages: Sequence[Message], with_tools: bool) -> list[Segment]:
        head = [_token("<|system|>"), Segment(self.system)]
        for message in messages:
            if message.role == "system":
                head += [Segment(f" {message.content}"), *_tool_list(message.tools)]
        others = [message for message in messages if message.role != "system"]
        return [*head, _token("<|end|>"), *super()._turns(others, with_tools)]


def _check_plain(format: ChatFormat, messages: Sequence[Message], functions: Sequence[dict[str, Any]]) -> None:
    """Raises BadInput for tools and for roles that a format of three roles lacks."""
    if uses_tools(messages, functions):
        raise BadInput(f"the chat format {format.name!r} has no tools")
    other = next((message.role for message in messages if message.role not in ("system", "user", "assistant")), None)
    if other is not None:
        raise BadInput(f"the chat format {format.name!r} has no turn of role {other!r}")


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
        _check_plain(self, messages, functions)
        segments: list[Segment] = []
        for message in messages:
            if self.skips_empty_system and message.role == "system" and not message.content:
                continue  # as the template does
            learn = message.role == "assistant"
            segments += [_token(f"<|{message.role}|>"), Segment("\n"), Segment(message.content, learn=learn)]
            segments += [_token("<|end|>", learn), Segment("\n")]
        if add_generation_prompt:
            return [*segments, _token("<|assistant|>"), Segment("\n")]
        return [*segments, _token("<|endoftext|>")]


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
        _check_plain(self, messages, functions)
        segments: list[Segment] = []
        for message in messages:
            learn = message.role == "assistant"
            segments += self._head(message.role)
            segments += [Segment(message.content, learn=learn), _token("<|im_end|>", learn)]
        return segments + self._head("assistant") * add_generation_prompt

    @staticmethod
    def _head(role: str) -> list[Segment]:
        return [_token("<|im_start|>"), Segment(role), _token("<|im_sep|>")]


class ChatML:
    """ChatML as such: `<|im_start|>role`, a line break, content, `<|im_end|>`, a line break; no default system turn.

    The template has no tools. When there are some, they are described in the system turn and calls are asked for as
    `<tool_call>{...}</tool_call>`, ordinary text; this is our own convention, close to SmolLM2-1.7B's.
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
        """The turns; tools described in words at the end of the system turn."""
        turns = in_call_order(messages)
        if not turns or turns[0].role != "system":
            default = self.system if self.system is not None and (turns or functions) else "" if functions else None
            turns = turns if default is None else [Message("system", default), *turns]
        if functions:
            words = self.tool_words.format(to_json(list(functions)))
            said = turns[0].content
            turns[0] = replace(turns[0], content=f"{said}\n\n{words}" if said else words)
        segments = [segment for turn in turns for segment in self._turn(turn)]
        return segments + [_token("<|im_start|>"), Segment("assistant\n")] * add_generation_prompt

    def _turn(self, message: Message) -> list[Segment]:
        if message.tools is not None:
            raise BadInput(f"the chat format {self.name!r} takes tools as an argument, not on the system message")
        said = self._said(message)
        if message.role == "assistant":
            body = [Segment("assistant\n"), Segment(said, learn=True), _token("<|im_end|>", learn=True)]
        else:
            body = [Segment(f"{message.role}\n{said}"), _token("<|im_end|>")]
        return [_token("<|im_start|>"), *body, Segment("\n")]

    def _said(self, message: Message) -> str:
        """Texts and calls; a call begins a line."""
        said = ""
        for part in said_in(message, self.call_open or ""):
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


_ALL: tuple[ChatFormat, ...] = (Phi(), PhiReasoning(), Phi35(), Phi3(), Phi4(), ChatML(), SmolLM())
_FORMATS: dict[str, ChatFormat] = {format.name: format for format in _ALL}

# sha256 of the official templates; some files write a line break as backslash and n, which means the same to Jinja
_TEMPLATES = {
    "febf589225c9728ab791f52e8897d7607a823d45368f0a4c92fa68997b40cce9": "phi",
    "cbb504cb43fec3f8877d709d9f7a729441e56f41cb4fddd382675fab35de7fe1": "phi-reasoning",
    "78d976a442bcde2f0be15aafbb8e3050e1104f86732266f68403251b89982a90": "phi-3.5",
    "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788": "smollm",
}
_ASKED: tuple[tuple[tuple[str, str], ...], ...] = (  # conversations that tell the formats apart
    (("user", "A"),),
    (("user", ""),),
    (("system", "S"), ("user", "A")),
    (("system", ""), ("user", "A")),
    (("user", "A"), ("assistant", "B")),
    (("user", "A"), ("assistant", ""), ("user", "C")),
    (("system", "S"), ("user", "A"), ("assistant", "B"), ("user", "C")),
)


def format_names() -> tuple[str, ...]:
    """The names of all formats."""
    return tuple(_FORMATS)


def format_named(name: str) -> ChatFormat:
    """The format with this name. Raises BadInput listing the known ones."""
    if name not in _FORMATS:
        raise BadInput(f"unknown chat format {name!r}; known: {', '.join(_FORMATS)}")
    return _FORMATS[name]


def format_of_template(template: str | None) -> str | None:
    """The name of the format whose official template this is; None for any other, which is never run."""
    text = (template or "").replace("\r\n", "\n").strip().replace("\\n", "\n")
    return _TEMPLATES.get(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest())


def format_read_from(template: str) -> str | None:
    """The name of the format that writes plain conversations as this template does, as far as reading it can tell.

    None where a template does anything that is not followed: it is then no known format.
    """
    read = TemplateText(template)
    return next((format.name for format in _ALL if all(_writes_as(format, read, turns) for turns in _ASKED)), None)


def _writes_as(format: ChatFormat, template: TemplateText, turns: tuple[tuple[str, str], ...]) -> bool:
    """Equal with a generation prompt; without one, but for an end-of-text token that only training sees."""
    messages = [Message(role, content) for role, content in turns]
    theirs = [template.of(turns, prompt, eos_token=_END_OF_TEXT) for prompt in (True, False)]
    ours = ["".join(part.text for part in format.write(messages, (), prompt)) for prompt in (True, False)]
    if theirs[0] != ours[0] or theirs[1] is None:
        return False
    return theirs[1].removesuffix(_END_OF_TEXT) == ours[1].removesuffix(_END_OF_TEXT)


def format_of_tokenizer(tokenizer: Tokenizer) -> ChatFormat:
    """The format that the control tokens alone make certain: Phi-4-mini's, by its tool tokens.

    Raises BadInput for any other tokenizer: `<|im_start|>` or `<|user|>` do not say how a turn is written.
    """
    if lacking(Phi.tokens, tokenizer) or any(tokenizer.added_token(token) for token in Phi4.needs):
        raise BadInput("this model's control tokens make no chat format certain; name one with format=")
    return _FORMATS["phi"]


def lacking(tokens: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Those of a format's tokens that the tokenizer does not have as tokens of their own."""
    return [token for token in tokens if tokenizer.added_token(token) is None]
