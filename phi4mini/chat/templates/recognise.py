"""Which chat format a model has, told from its Jinja template or from its control tokens.

A template is a program of unknown origin, so it is never run. Promises that a format is either certain or refused:
certain are an official template (by its hash), a template that is read in full and writes what a format writes, and
Phi-4-mini's own control tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from phi4mini.chat.messages import Message
from phi4mini.chat.templates.chat_format import ChatFormat
from phi4mini.chat.templates.jinja_reader import TemplateText
from phi4mini.chat.templates.phi import Phi, Phi4
from phi4mini.chat.templates.registry import FORMATS, format_named
from phi4mini.errors import BadInput
from phi4mini.tokenizer import Tokenizer

_END_OF_TEXT = "<|endoftext|>"
# sha256 of the official templates; some files write a line break as backslash and n, which means the same to Jinja
_TEMPLATES = {
    "febf589225c9728ab791f52e8897d7607a823d45368f0a4c92fa68997b40cce9": "phi",
    "cbb504cb43fec3f8877d709d9f7a729441e56f41cb4fddd382675fab35de7fe1": "phi-reasoning",
    "78d976a442bcde2f0be15aafbb8e3050e1104f86732266f68403251b89982a90": "phi-3.5",
    "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788": "smollm",
}
_ASKED: tuple[tuple[tuple[str, str], ...], ...] = (  # every two formats write at least one of these differently
    (("user", "A"),),
    (("user", ""),),
    (("system", "S"), ("user", "A")),
    (("system", ""), ("user", "A")),
    (("user", "A"), ("assistant", "B")),
    (("user", "A"), ("assistant", ""), ("user", "C")),
    (("system", "S"), ("user", "A"), ("assistant", "B"), ("user", "C")),
)


def format_of_template(template: str | None) -> str | None:
    """The name of the format whose official template this is; None for any other, which is never run."""
    text = (template or "").replace("\r\n", "\n").strip().replace("\\n", "\n")
    return _TEMPLATES.get(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest())


def format_read_from(template: str) -> str | None:
    """The name of the format that writes plain conversations exactly as this template does.

    None if no format does, or if the template does anything that `TemplateText` does not follow.
    """
    read = TemplateText(template)
    return next((format.name for format in FORMATS if all(_writes_as(format, read, turns) for turns in _ASKED)), None)


def _writes_as(format: ChatFormat, template: TemplateText, turns: tuple[tuple[str, str], ...]) -> bool:
    """True if format and template write the same text with a generation prompt, and without one.

    Without one, a final end-of-text token may differ: it ends training examples and no prompt contains it.
    """
    messages = [Message(role, content) for role, content in turns]
    theirs = [template.of(turns, prompt, eos_token=_END_OF_TEXT) for prompt in (True, False)]
    ours = ["".join(part.text for part in format.write(messages, (), prompt)) for prompt in (True, False)]
    if theirs[0] != ours[0] or theirs[1] is None:
        return False
    return theirs[1].removesuffix(_END_OF_TEXT) == ours[1].removesuffix(_END_OF_TEXT)


def format_of_tokenizer(tokenizer: Tokenizer) -> ChatFormat:
    """Phi-4-mini's format, if the tokenizer has all of its control tokens and none of ChatML's.

    Raises BadInput for any other tokenizer: `<|im_start|>` or `<|user|>` do not tell how a turn is written (whether a
    line break follows, for instance).
    """
    if lacking(Phi.tokens, tokenizer) or any(tokenizer.added_token(token) for token in Phi4.needs):
        raise BadInput("this model's control tokens make no chat format certain; name one with format=")
    return format_named("phi")


def lacking(tokens: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """The control tokens among `tokens` that the tokenizer does not have."""
    return [token for token in tokens if tokenizer.added_token(token) is None]
