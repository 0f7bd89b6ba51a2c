"""The chat format in which a model is opened: its own, or the one that the user names.

Promises: a format that the user names is checked before anything is converted, and changes the model in memory only;
the file keeps its own. A note about how the format was found is logged once for each opening.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from phi4mini.weights.checkpoints.chat_template import check_chosen, known_format, lines_told, tell, with_stops
from phi4mini.weights.store.store import OpenModel


def open_for_chat(open_model: Callable[[], OpenModel], name: str, chat_format: str | None) -> OpenModel:
    """Open a model by `open_model`. If the user names a chat format, it replaces the stored one in memory; if not, the
    model's chat note is logged, unless the conversion inside `open_model` has logged it already. Raises `BadInput`.
    """
    if chat_format is not None:
        known_format(chat_format)  # before anything is converted
    before = lines_told()
    opened = open_model()
    if chat_format is None:
        if opened.chat_note and before == lines_told():
            tell(name, opened.chat_note)
        return opened
    check_chosen(chat_format, opened.tokenizer)
    config = with_stops(opened.config, opened.tokenizer, chat_format)
    header = {**opened.header, "chat_format": chat_format, "chat_note": ""}
    made = replace(opened, header=header, weights=replace(opened.weights, config=config))
    made.__dict__["tokenizer"] = opened.tokenizer  # built once
    return made
