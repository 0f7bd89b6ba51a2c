"""Prompts that are texts or token ids, and the step from ids to a run, which every dialect takes.

Promises: a prompt that does not fit the context is refused before a token is made, never cut; a run reuses no cached
pages of another API key or of another `cache_salt`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phi4mini.errors import TooLong
from phi4mini.llm.model import TextModel
from phi4mini.llm.run import Reader, Run
from phi4mini.server.http.errors import ApiError
from phi4mini.server.service import ServiceCall

MANY = 1 << 20  # characters; certainly too many for the event loop


def run_for(
    call: ServiceCall,
    ids: Sequence[int],
    sampling: Mapping[str, Any],
    reader: Reader | None = None,
    salt: str | None = None,
    constraint: Any = None,
) -> Run:
    """A run of these ids for the caller. `sampling`: keywords as `SamplingFields.sampling` makes them, which
    `llm.run.parameters` turns into SamplingParams. Raises TooLong where prompt and new tokens exceed the context.
    """
    ctx, new = call.service.facts.ctx, sampling.get("max_new_tokens")
    if len(ids) + (new or 1) > ctx:
        raise TooLong(len(ids), ctx, ctx, new)
    apart = "\0".join(part for part in (call.owner, salt) if part) or None
    return call.service.text.run(ids, sampling, reader, salt=apart, owner=call.owner, constraint=constraint)


def clip(sampling: dict[str, Any], room: int) -> None:
    """Drop a limit of new tokens that exceeds the room there is: the end of the context ends the answer."""
    if (sampling.get("max_new_tokens") or 0) > room:
        sampling.pop("max_new_tokens", None)


def prompt_ids(model: TextModel, given: str | list[Any], name: str, most: int) -> list[list[int]]:
    """The ids of each prompt in a field. Raises 400 for an empty prompt, or one that is neither text nor ids."""
    many = given if isinstance(given, list) and not all(type(i) is int for i in given) else [given]
    bounded(name, many, most)
    found = []
    for at, one in enumerate(many):
        where = f"{name}[{at}]" if len(many) > 1 else name
        if isinstance(one, str):
            one = model.tokenizer.encode(one)
        elif not (isinstance(one, list) and all(type(i) is int for i in one)):
            raise ApiError(400, f"{where} must be text or token ids", param=name, code="invalid_value")
        if not one:
            raise ApiError(400, f"{where} is empty: there is no token to start from", param=name, code="invalid_value")
        if wrong := next((i for i in one if not 0 <= i < model.config.vocab_size), None):
            raise ApiError(400, f"{where}: the model has no token {wrong}", param=name, code="invalid_value")
        found.append(one)
    return found


def text_size(given: Any) -> int:
    """Characters of a text; MANY for anything else, which is not counted."""
    return len(given) if isinstance(given, str) else 0 if given is None else MANY


def bounded(name: str, values: Sequence[Any], most: int) -> None:
    """Raises 400 for a list of more than `most` entries."""
    if len(values) > most:
        raise ApiError(400, f"{name} has {len(values)} entries; at most {most} are allowed", param=name)
