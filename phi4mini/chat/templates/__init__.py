"""Chat formats: how the turns of a conversation are written for one family of models.

A format turns messages into segments: control tokens by name, and text that can never become one. This folder is the
only place that spells control tokens. `phi.py` and `chatml.py` hold the formats, `registry.py` lists them,
`recognise.py` tells which one a model has, `jinja_reader.py` reads a template without running it.
Promises the text of the official templates, character by character. Knows no ids (`rendering.py`) and reads no replies
(`reply_reader.py`).
"""

from __future__ import annotations

from phi4mini.chat.templates.chat_format import ChatFormat, Segment
from phi4mini.chat.templates.recognise import format_of_template, format_of_tokenizer, format_read_from, lacking
from phi4mini.chat.templates.registry import format_named, format_names

__all__ = [
    "ChatFormat",
    "Segment",
    "format_named",
    "format_names",
    "format_of_template",
    "format_of_tokenizer",
    "format_read_from",
    "lacking",
]
