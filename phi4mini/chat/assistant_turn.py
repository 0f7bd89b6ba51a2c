"""The parts of an assistant's turn in the order they were said: texts, and groups of neighbouring tool calls.

Promises that the text of a broken call is written once. A client that collects a stream has this text twice: as the
call's arguments and as content, because `CallBroken` hands it out again as text. Knows no tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from phi4mini.chat.messages import Message, ToolCall
from phi4mini.chat.tools import calls_to_json

Part = str | list[ToolCall]


def texts_and_calls(message: Message, opening: str = "") -> list[Part]:
    """The parts of the turn; a turn without calls is one text. `opening`: the format's tag before a call."""
    if not message.tool_calls:
        return [message.content]
    parts: list[Part] = []
    for said in message.said or (message.content, *message.tool_calls):
        if not isinstance(said, ToolCall):
            parts.append(said)
        elif parts and isinstance(parts[-1], list):
            parts[-1].append(said)
        else:
            parts.append([said])
    return _once(parts, opening)


def _once(parts: Sequence[Part], opening: str) -> list[Part]:
    """`parts` with the text of a broken call removed from the end of the text before or after the call."""
    kept = list(parts)
    for at, calls in enumerate(parts):
        if isinstance(calls, list) and calls[-1].broken:
            written = calls_to_json(calls)[-1]
            for beside in (at - 1, at + 1):
                text = kept[beside] if 0 <= beside < len(kept) else ""
                if isinstance(text, str) and text.endswith(written):
                    kept[beside] = _without_opening(text.removesuffix(written), opening)
    return [part for part in kept if part]


def _without_opening(text: str, opening: str) -> str:
    """`text` without what opened the call at its end: the bracket of a list, the comma after another call, a tag."""
    bare = text.rstrip()
    for mark in ("functools[", "[", ",", opening):
        bare = bare.removesuffix(mark).rstrip()
    return text if bare == text.rstrip() else text[: len(bare)]
