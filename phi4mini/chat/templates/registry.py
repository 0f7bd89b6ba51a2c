"""All chat formats by name. A new format is one more class in `FORMATS` (docs/howto/add-a-chat-template.md)."""

from __future__ import annotations

from phi4mini.chat.templates.chat_format import ChatFormat
from phi4mini.chat.templates.chatml import ChatML, SmolLM
from phi4mini.chat.templates.phi import Phi, Phi3, Phi4, Phi35, PhiReasoning
from phi4mini.errors import BadInput

FORMATS: tuple[ChatFormat, ...] = (Phi(), PhiReasoning(), Phi35(), Phi3(), Phi4(), ChatML(), SmolLM())
_BY_NAME: dict[str, ChatFormat] = {format.name: format for format in FORMATS}


def format_names() -> tuple[str, ...]:
    """The names of all formats."""
    return tuple(_BY_NAME)


def format_named(name: str) -> ChatFormat:
    """The format with this name. Raises BadInput listing the known ones."""
    if name not in _BY_NAME:
        raise BadInput(f"unknown chat format {name!r}; known: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]
