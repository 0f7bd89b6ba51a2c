"""Recognises the chat format of a checkpoint, and warns if the format is not certain.

Promises: a template is never executed. Its hash is compared with the known ones; an unknown template is parsed for the
text it would write. A format is inferred only if the template, or control tokens that a single family has, leave no
other choice. Every inference and every refusal to infer is one warning, before a conversion and at every later
opening. The format "none" means that the model can only continue text. Only this file of the room imports
phi4mini.chat.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from phi4mini.errors import BadInput
from phi4mini.model.config import Config

if TYPE_CHECKING:
    from phi4mini.tokenizer import Tokenizer

UNKNOWN = "none"
_HOW = "--chat-format NAME (chat_format= in Python) sets one: "
_log = logging.getLogger(__name__)
_lines_told = 0


@dataclass(frozen=True)
class Chat:
    """The name of a chat format, and a warning about how it was found; "" if the format is certain."""

    name: str
    note: str = ""


def recognise(template: object, tokenizer: Tokenizer, where: str) -> Chat:
    """The chat format behind a chat template (text, or None when there is none); a note is logged."""
    found = _recognised(template if isinstance(template, str) and template.strip() else None, tokenizer)
    if found.note:
        tell(where, found.note)
    return found


def turn_end(chat_format: str) -> str | None:
    """The token that ends the assistant's turn in that format."""
    from phi4mini.chat.templates import format_named

    return None if chat_format == UNKNOWN else format_named(chat_format).stop_tokens[0]


def with_stops(config: Config, tokenizer: Tokenizer, chat_format: str) -> Config:
    """The config with all stop ids: its own, the tokenizer's eos, and the token that ends an assistant turn.

    Some conversions lose the last one, and then the model never stops. Phi-4-mini's config.json has only 199999.
    """
    mark = turn_end(chat_format)
    end = None if mark is None else tokenizer.id_of(mark)
    lost = [] if end is None or end in config.eos_token_ids else [end]
    ids = [*lost, *config.eos_token_ids, *tokenizer.eos_ids]
    return replace(config, eos_token_ids=tuple(dict.fromkeys(ids)))


def lines_told() -> int:
    """How many notes were logged so far in this process."""
    return _lines_told


def known_format(name: str) -> str:
    """The same name. Raises `BadInput` that lists the names there are."""
    from phi4mini.chat.templates import format_named

    return format_named(name).name


def check_chosen(chat_format: str, tokenizer: Tokenizer) -> None:
    """Raises `BadInput` if the tokenizer lacks control tokens of this format; the error names them."""
    from phi4mini.chat.templates import format_named, lacking

    missing = lacking(format_named(chat_format).needs, tokenizer)
    if missing:
        raise BadInput(
            f"the chat format {chat_format!r} needs {', '.join(missing)}, which this tokenizer does not have"
        )


def tell(where: str, note: str) -> None:
    """Log the note of a model; `lines_told` counts."""
    global _lines_told
    _lines_told += 1
    _log.warning("%s %s", where, note)


def _recognised(template: str | None, tokenizer: Tokenizer) -> Chat:
    from phi4mini.chat.templates import format_named, format_of_template, format_read_from, lacking

    if template is None:
        return _by_tokens(tokenizer)
    known = format_of_template(template)
    if known is not None:
        return Chat(known)
    read = format_read_from(template)
    if read is None:
        return _none("has a chat template that is none of the known ones and writes as none of them does")
    missing = lacking(format_named(read).needs, tokenizer)
    if missing:
        return _none(f"has a chat template that writes {read}, but its tokenizer lacks {missing[0]}")
    return Chat(read, f"has a chat template that is none of the known ones; read, not run, it writes {read}")


def _by_tokens(tokenizer: Tokenizer) -> Chat:
    from phi4mini.chat.templates import format_named, format_names, format_of_tokenizer

    try:
        guess = format_of_tokenizer(tokenizer).name
    except BadInput:
        marks = {token for name in format_names() for token in format_named(name).needs}
        if not any(tokenizer.added_token(token) for token in marks):
            return Chat(UNKNOWN)  # a base model: nothing in it says that it can chat
        return _none("has no chat template, and its control tokens do not make one certain")
    return Chat(guess, f"has no chat template; by its control tokens it speaks {guess}")


def _none(why: str) -> Chat:
    from phi4mini.chat.templates import format_names

    return Chat(UNKNOWN, f"{why}: it can only continue text. {_HOW}{', '.join(format_names())}")
