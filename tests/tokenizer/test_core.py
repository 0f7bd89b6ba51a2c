"""Phi's vocabulary answers the same before and after HF's BPE is built, and builds it when it pays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings

from phi4mini.tokenizer.core import Phi4Core
from tests.tokenizer.test_tokenizer import TEXTS


@pytest.fixture(scope="module")
def quick() -> Phi4Core:
    """One that never builds, however much is encoded."""
    core = Phi4Core()
    core._left = 10**9
    return core


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_short_texts_are_merged_as_in_hf(quick, reference, golden, text):
    plain = reference.encode(text.replace("<|", "< |"), add_special_tokens=False).ids
    assert quick.encode(text.replace("<|", "< |")) == plain
    assert quick._built is None


def test_golden_without_hf(quick, golden):
    for case in golden["ordinary"]:
        assert quick.encode(case["text"]) == case["ids"]
    assert quick._built is None


@pytest.mark.parametrize("text", ["word " * 3300, "x" * 300, "long" * 70])
def test_a_long_text_or_word_builds(text):
    core = Phi4Core()
    ids = core.encode(text)
    assert core._built is not None and "".join(map(core.id_to_token, ids)).replace("Ġ", " ") == text


def test_threads_may_read_while_it_builds():
    core = Phi4Core()
    expected = core.encode("some words, unbelievable ones")

    def work(i: int) -> bool:
        if i == 20:
            return core.backend is not None
        ids = core.encode("some words, unbelievable ones")
        return ids == expected and core.id_to_token(ids[0]) == "some" and core.token_to_id("some") == ids[0]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(2000)))


def test_many_short_texts_build():
    core = Phi4Core()
    first = core.encode("a short text, again and again")
    for _ in range(16_384 // 29):
        assert core.encode("a short text, again and again") == first
    assert core._built is not None or core._left < 29
    assert core.encode("a short text, again and again") == first and core._built is not None
