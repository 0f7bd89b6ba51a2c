"""What a chat format is: the `ChatFormat` protocol, the segments it writes, and checks that several formats share.

Promises that a control token and a text that spells one are different segments, so that text never becomes a control
token. Knows no particular model.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from phi4mini.chat.messages import Message
from phi4mini.errors import BadInput


@dataclass(frozen=True)
class Segment:
    """A control token by its name, or a plain text; `learn`: the assistant must produce it (loss mask 1)."""

    text: str
    control: bool = False
    learn: bool = False


class ChatFormat(Protocol):
    """How one family of models writes a conversation."""

    name: ClassVar[str]
    stop_tokens: ClassVar[tuple[str, ...]]  # control tokens that end the model's turn
    call_open: ClassVar[str | None]  # opens a tool call; None if the format has no tools
    call_close: ClassVar[str | None]  # closes a tool call
    calls_are_tokens: ClassVar[bool]  # True if call_open and call_close are control tokens, False if text
    tokens: ClassVar[tuple[str, ...]]  # all control tokens of the format; none is ever shown as text
    needs: ClassVar[tuple[str, ...]]  # the control tokens without which no conversation can be written

    def write(
        self, messages: Sequence[Message], functions: Sequence[dict[str, Any]], add_generation_prompt: bool
    ) -> list[Segment]:
        """The conversation as segments. Raises BadInput for tools or roles that the format cannot write."""


def token(name: str, learn: bool = False) -> Segment:
    """The control token of this name as a segment; `learn`: the assistant must produce it."""
    return Segment(name, control=True, learn=learn)


def uses_tools(messages: Sequence[Message], functions: Sequence[dict[str, Any]]) -> bool:
    """True if tools are given, or a message has calls or is the result of a call."""
    return bool(functions) or any(message.tool_calls or message.tool_call_id is not None for message in messages)


def in_call_order(messages: Sequence[Message]) -> list[Message]:
    """`messages` with neighbouring tool results sorted by the order of their calls: the model sees no ids, only order.

    A result may stand anywhere after its call. Raises BadInput for a result without a call before it.
    """
    ordered: list[Message] = []
    calls: dict[str, int] = {}  # id -> number of the call; if an id occurs twice, the later call
    count = 0
    ranks: list[int] = []  # call numbers of the results at the end of `ordered`
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


def check_plain(format: ChatFormat, messages: Sequence[Message], functions: Sequence[dict[str, Any]]) -> None:
    """Raises BadInput for tools, and for roles other than system, user and assistant."""
    if uses_tools(messages, functions):
        raise BadInput(f"the chat format {format.name!r} has no tools")
    other = next((message.role for message in messages if message.role not in ("system", "user", "assistant")), None)
    if other is not None:
        raise BadInput(f"the chat format {format.name!r} has no turn of role {other!r}")
