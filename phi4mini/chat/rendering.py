"""Conversations to ids and loss mask: the only place that writes control tokens.

Promises: the ids of HF's tokenizer on the official template's text, except that content is plain text, so that a user
who writes `<|end|>` writes six characters and not the end of the turn (`parse_special=True` is HF to the letter). The
mask is 1 on what the assistant must produce: its content, its calls and the token that ends its turn.
Knows no weights; what the turns look like is the format's matter.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from phi4mini.chat.formats import ChatFormat, Segment, format_named, format_of_tokenizer
from phi4mini.chat.messages import Message, messages_from
from phi4mini.chat.tools import functions_of
from phi4mini.errors import BadInput
from phi4mini.tokenizer import WHITE_SPACE, Tokenizer


@dataclass(frozen=True)
class Rendered:
    """A conversation for the model: `ids` and, as long, `mask` (1: the assistant's own); `text` is what they spell."""

    ids: list[int]
    mask: list[int]
    text: str


def render(
    messages: Sequence[Message | Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    *,
    tokenizer: Tokenizer | None = None,
    format: str | ChatFormat | None = None,
    parse_special: bool = False,
) -> Rendered:
    """Write a conversation (messages as `Message` or OpenAI dicts) with OpenAI-style tools.

    `tokenizer` defaults to Phi-4-mini's, `format` to the one whose tokens the tokenizer has. `parse_special=True` gives
    content the power to write control tokens, as HF does. Raises BadInput naming the message.
    """
    tokenizer = tokenizer or _phi4_mini()
    if format is None:
        format = format_of_tokenizer(tokenizer)
    chat_format = format_named(format) if isinstance(format, str) else format
    tokenizer.keep_out(chat_format.tokens)
    segments = chat_format.write(messages_from(messages), functions_of(tools), add_generation_prompt)
    ids, mask = (_parsed if parse_special else _plain)(segments, tokenizer, chat_format.name)
    return Rendered(ids, mask, "".join(segment.text for segment in segments))


@cache
def _phi4_mini() -> Tokenizer:
    return Tokenizer.phi4_mini()


def _plain(segments: Sequence[Segment], tokenizer: Tokenizer, name: str) -> tuple[list[int], list[int]]:
    """Control tokens by name, text as text. Texts are encoded apart where the mask changes: that is where a prompt
    ends and the model goes on by itself, so the tokens of training and history are those of generation.
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
