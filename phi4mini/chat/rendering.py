"""Conversations to ids and loss mask: the only place that turns control tokens into ids.

Promises the ids of HF's tokenizer on the official template's text, with one exception: content is plain text, so a user
who writes `<|end|>` writes seven characters and does not end the turn (`parse_special=True` equals HF there too).
The mask is for supervised tuning: 1 on every id that the assistant must produce (content, calls, the token that ends
its turn), 0 on all others; multiply the loss of predicting `ids[i]` by `mask[i]`. `Rendered.segments` encode again to
the same ids (`encode_segments`). Knows no weights; `templates/` decides how a turn is written.
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
    """A conversation as the model sees it.

    `ids` and `mask` have equal length; `mask[i]` is 1 if the assistant must produce `ids[i]`, which is the loss mask of
    supervised tuning. `text` spells the conversation; `segments` divide `text` into control tokens and plain text.
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

    `tokenizer` defaults to Phi-4-mini's, `format` to the one that the tokenizer's control tokens make certain.
    `parse_special=True` parses control tokens spelled in content, as HF does. `continue_final_message=True` leaves the
    assistant's last message open, whatever `add_generation_prompt` says. To tune on a whole conversation, render it
    with `add_generation_prompt=False`. Raises BadInput that names the message.
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
    """`segments` up to the end of the last message's content, the last text that the assistant must produce."""
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
    """Ids and loss mask of `segments`: control tokens looked up by name, text encoded as plain text.

    Each segment is encoded by itself. A prompt ends between two segments and the model goes on from there, so training
    and history get the same token boundaries as generation. Raises BadInput for a control token that the tokenizer
    lacks; `name` is the format's name for that message.
    """
    ids: list[int] = []
    mask: list[int] = []
    strip = False  # the previous token takes the whitespace to its right
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
    """True if the next segment is a control token that takes the whitespace to its left, as Phi-4's do."""
    token = tokenizer.added_token(rest[0].text) if rest and rest[0].control else None
    return token is not None and token.lstrip


def _parsed(segments: Sequence[Segment], tokenizer: Tokenizer, name: str) -> tuple[list[int], list[int]]:
    """As HF: the whole text encoded at once, control tokens found in it; an id has the mask of its first character."""
    starts = [0, *accumulate(len(segment.text) for segment in segments)]
    ids, places = tokenizer.encode_spans("".join(segment.text for segment in segments))
    return ids, [int(segments[bisect_right(starts, place) - 1].learn) for place in places]
