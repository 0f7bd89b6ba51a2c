"""Phi's vocabulary with its grammars, built once; the words that the tests use to follow a constraint."""

from __future__ import annotations

import pytest

from phi4mini.grammar import Grammars
from phi4mini.tokenizer import Tokenizer
from phi4mini.tokenizer.phi4 import END, ENDOFTEXT


@pytest.fixture(scope="session")
def phi() -> Tokenizer:
    return Tokenizer.phi4_mini()


@pytest.fixture(scope="session")
def grammars(phi: Tokenizer) -> Grammars:
    pytest.importorskip("llguidance", reason="needs llguidance, part of the extra `serve`")
    made = Grammars.of(phi, phi.vocab_size, (END, ENDOFTEXT))
    made.build()
    return made
