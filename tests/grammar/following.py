"""Following a constraint, with a text or at random; a schema they share; and the check that a call is refused."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from phi4mini.errors import BadInput
from phi4mini.grammar.llguidance_matcher import GrammarConstraint
from phi4mini.tokenizer import Tokenizer
from phi4mini.tokenizer.phi4 import END, ENDOFTEXT

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["new", "old", "größer"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def allowed(constraint: GrammarConstraint) -> list[int]:
    return np.flatnonzero(np.unpackbits(constraint.mask().view(np.uint8), bitorder="little")).tolist()


def allows(constraint: GrammarConstraint, id: int) -> bool:
    return bool(constraint.mask()[id >> 5] >> np.uint32(id & 31) & 1)


def admits(constraint: GrammarConstraint, tokenizer: Tokenizer, text: str) -> bool:
    """Whether the text can be spelled from the tokens that are allowed, and may end there."""
    return spells(constraint, tokenizer, text) and allows(constraint, END)


def spells(constraint: GrammarConstraint, tokenizer: Tokenizer, text: str) -> bool:
    """Whether the tokens that are allowed spell the text, the canonical ones where there is a choice."""
    data = text.encode()
    while data:
        first = tokenizer.encode(data[:200].decode("utf-8", "ignore"))[:1]
        if not first or not allows(constraint, first[0]):
            fits = [id for id in allowed(constraint) if _starts(tokenizer, id, data)]
            first = sorted(fits, key=lambda id: len(tokenizer.token_bytes(id)))[-1:]
        if not first:
            return False
        constraint.accept(first[0])
        data = data[len(tokenizer.token_bytes(first[0])) :]
    return True


def _starts(tokenizer: Tokenizer, id: int, data: bytes) -> bool:
    text = tokenizer.token_bytes(id)
    return id not in tokenizer.control_ids and text != b"" and data.startswith(text)


def wander(constraint: GrammarConstraint, seed: int, most: int = 400) -> list[int]:
    """Random allowed ids until the end, which is left out, or until `most` of them."""
    dice, ids = random.Random(seed), []
    while not constraint.done and len(ids) < most:
        chosen = constraint.forced() or [dice.choice(allowed(constraint))]
        if chosen[0] in (END, ENDOFTEXT):
            break
        for id in chosen:
            constraint.accept(id)
        ids += chosen
    return ids


def refused(make, expected: str) -> None:
    """The call raises one line that matches, within a second."""
    start = time.perf_counter()
    with pytest.raises(BadInput, match=expected) as caught:
        make()
    assert time.perf_counter() - start < 1
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
