"""Phi's vocabulary with its grammars, built once; the words that the tests use to follow a constraint."""

from __future__ import annotations

import pytest

from phi4mini.grammar import Grammars
from phi4mini.tokenizer import Tokenizer, phi4_mini
from phi4mini.tokenizer.phi4 import END, ENDOFTEXT
from tests.grammar.following import allows
from tests.tokenizer.vocabularies import small


@pytest.fixture(scope="session")
def phi() -> Tokenizer:
    return phi4_mini()


@pytest.fixture(scope="session")
def grammars(phi: Tokenizer) -> Grammars:
    pytest.importorskip("llguidance", reason="needs llguidance, part of the extra `serve`")
    made = Grammars.of(phi, phi.vocab_size, (END, ENDOFTEXT))
    made.build()
    return made


@pytest.fixture(scope="session")
def spelled():
    """Whether a schema's constraint admits a text; on a vocabulary of single bytes, so that thousands are cheap."""
    pytest.importorskip("llguidance", reason="needs llguidance, part of the extra `serve`")
    bytewise = small(merges=())
    end = bytewise.id_of("<|im_end|>")
    ids = {bytewise.token_bytes(id): id for id in range(256)}
    made = Grammars.of(bytewise, bytewise.vocab_size, (end,))

    def admits(schema, text: str) -> bool:
        constraint = made.json_schema(schema)
        for byte in text.encode():
            id = ids[bytes([byte])]
            if not allows(constraint, id):
                return False
            constraint.accept(id)
        return allows(constraint, end)

    return admits
