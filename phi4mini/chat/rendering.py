"""Conversations to ids and loss mask: the only place that writes control tokens.

Promises: the ids of HF's tokenizer on the official template's text, except that content is plain text, so that a user
who writes `<|end|>` writes six characters and not the end of the turn (`parse_special=True` is HF to the letter). The
mask is 1 on what the assistant must produce: its content, its calls and the token that ends its turn. A conversation
that was written down keeps its segments, so that it can be encoded again without a guess (`encode_segments`).
Knows no weights; what the turns look like is the format's matter.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from phi4mini.chat.messages import Message, messages_from
from phi4mini.chat.templates import ChatFormat, Segment, format_named, format_of_tokenizer
from phi4mini.chat.tools import functions_of
from phi4mini.errors import BadInput
from phi4mini.tokenizer import WHITE_SPACE, Tokenizer, phi4_mini


@dataclass(frozen=True)
class Rendered:
    """A conversation for the model: `ids` and, as long, `mask` (1: the assistant's own); `text` is what they spell,
    `segments` what of it is a control token.
    """

    ids: list[int]
    mask: list[int]
    text: str
    segments: tuple[Segment, ...] = ()


def render(
    messages: Sequence[Message | Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    *,
    tokenizer: Tokenizer | None = None,
    format: str | ChatFormat | None = None,
    parse_special: bool = False,
    continue_final_message: bool = False,
) -> Rendered:
    """Write a conversation (messages as `Message` or OpenAI dicts) with OpenAI-style tools.

    `tokenizer` defaults to Phi-4-mini's, `format` to the one whose tokens the tokenizer has. `parse_special=True` gives
    content the power to write control tokens, as HF does. `continue_final_message=True` leaves the assistant's last
    message open, whatever `add_generation_prompt` says. Raises BadInput naming the message.
    """
    tokenizer = tokenizer or _phi4_mini()
    if format is None:
        format = format_of_tokenizer(tokenizer)
    chat_format = format_named(format) if isinstance(format, str) else format
    tokenizer.keep_out(chat_format.tokens)
    turns = messages_from(messages)
    prompt = add_generation_prompt and not continue_final_message
    segments = chat_format.write(turns, functions_of(tools), prompt)
    if continue_final_message:
        segments = _left_open(segments, turns)
    encode = _parsed if parse_special else encode_segments
    ids, mask = encode(segments, tokenizer, chat_format.name)
    return Rendered(ids, mask, "".join(segment.text for segment in segments), tuple(segments))


def _left_open(segments: list[Segment], turns: Sequence[Message]) -> list[Segment]:
    """Up to the end of the last message's content, which is the last text that the assistant must produce."""
    last = turns[-1] if turns else None
    if last is None or last.role != "assistant":
        said = "there is none" if last is None else f"the last one is of role {last.role!r}"
        raise BadInput(f"continue_final_message continues a last message of role 'assistant'; {said}")
    if last.tool_calls:
        raise BadInput("continue_final_message continues text; the last message ends with tool calls")
    content = max(i for i, segment in enumerate(segments) if segment.learn and not segment.control)
    return segments[: content + 1]


@cache
def _phi4_mini() -> Tokenizer:
    return phi4_mini()


def encode_segments(segments: Sequence[Segment], tokenizer: Tokenizer, name: str) -> tuple[list[int], list[int]]:
    """Ids and mask: control tokens by name, text as text. Texts are encoded apart where the mask changes: that is where
    a prompt ends and the model goes on by itself, so the tokens of training and history are those of generation.

    Raises BadInput for a control token that the tokenizer lacks; `name` is the format's, for that line.
    """
    ids: list[int] = []
    mask: list[int] = []
    strip = False  # the token before swallows white space to its right
    for i, segment in enumerate(segments):
        if segment.control:
            token = tokenizer.added_token(segment.text)
            if token is None:
                raise BadInput(f"the chat format {name!r} needs the token {segment.text}, this tokenizer has none")
            new, strip = [token.id], token.rstrip
        else:
            text = segment.text.lstrip(WHITE_SPACE) if strip else segment.text
            text = text.rstrip(WHITE_SPACE) if _swallows_left(segments[i + 1 : i + 2], tokenizer) else text
            new, strip = tokenizer.encode(text), strip and not text
        ids += new
        mask += [int(segment.learn)] * len(new)
    return ids, mask


def _swallows_left(rest: Sequence[Segment], tokenizer: Tokenizer) -> bool:
    """Whether the control token that follows takes the white space before it, as Phi-4's do."""
    token = tokenizer.added_token(rest[0].text) if rest and rest[0].control else None
    return token is not None and token.lstrip


def _parsed(segments: Sequence[Segment], tokenizer: Tokenizer, name: str) -> tuple[list[int], list[int]]:
    """HF to the letter: the whole text in one go, control tokens found in it; the mask goes by first characters."""
    starts = [0, *accumulate(len(segment.text) for segment in segments)]
    ids, places = tokenizer.encode_spans("".join(segment.text for segment in segments))
    return ids, [int(segments[bisect_right(starts, place) - 1].learn) for place in places]
