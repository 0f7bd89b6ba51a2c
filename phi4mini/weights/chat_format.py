"""Which chat format a checkpoint speaks, told from its template's hash, else from the control tokens it has.

Promises: a template is looked at, never run; a guess is logged as one. "none" is a model nobody here knows how to talk
to: it can still generate. This is the one place of the room that knows phi4mini.chat.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from phi4mini.errors import BadInput

if TYPE_CHECKING:
    from phi4mini.tokenizer import Tokenizer

UNKNOWN = "none"
_log = logging.getLogger(__name__)


def recognise(template: object, tokenizer: Tokenizer, where: str) -> str:
    """The name of the chat format behind a chat template (text, or None when there is none)."""
    from phi4mini.chat.formats import format_of_template, format_of_tokenizer

    known = format_of_template(template if isinstance(template, str) else None)
    if known is not None:
        return known
    try:
        guess = format_of_tokenizer(tokenizer).name
    except BadInput:
        return UNKNOWN
    what = "has no chat template" if template is None else "has a chat template that is none of the known ones"
    _log.warning("%s %s; by its control tokens it speaks %s", where, what, guess)
    return guess


def turn_end(chat_format: str) -> str | None:
    """The token that ends the assistant's turn in that format."""
    from phi4mini.chat.formats import format_named

    return None if chat_format == UNKNOWN else format_named(chat_format).stop_tokens[0]
