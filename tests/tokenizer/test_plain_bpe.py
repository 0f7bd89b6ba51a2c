"""Phi's vocabulary answers the same before and after HF's BPE is built, and builds it when it pays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings

from phi4mini.tokenizer.plain_bpe import Phi4Bpe
from tests.tokenizer.test_tokenizer import TEXTS


@pytest.fixture(scope="module")
def quick() -> Phi4Bpe:
    """One that never builds, however much is encoded."""
    bpe = Phi4Bpe()
    bpe._left = 10**9
    return bpe


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
    bpe = Phi4Bpe()
    ids = bpe.encode(text)
    assert bpe._built is not None and "".join(map(bpe.id_to_token, ids)).replace("Ġ", " ") == text


def test_threads_may_read_while_it_builds():
    bpe = Phi4Bpe()
    expected = bpe.encode("some words, unbelievable ones")

    def work(i: int) -> bool:
        if i == 20:
            return bpe.backend is not None
        ids = bpe.encode("some words, unbelievable ones")
        return ids == expected and bpe.id_to_token(ids[0]) == "some" and bpe.token_to_id("some") == ids[0]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(2000)))


def test_many_short_texts_build():
    bpe = Phi4Bpe()
    first = bpe.encode("a short text, again and again")
    for _ in range(16_384 // 29):
        assert bpe.encode("a short text, again and again") == first
    assert bpe._built is not None or bpe._left < 29
    assert bpe.encode("a short text, again and again") == first and bpe._built is not None
