"""Added words in plain text: HF's ids wherever no control token is spelled, and control tokens out of reach always."""

from __future__ import annotations

import time

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.tokenizer import AddedToken, Tokenizer, from_bpe, from_bytes, phi4_mini, to_bytes
from phi4mini.tokenizer.bytelevel import CHARS
from tests.tokenizer.vocabularies import small

# single_word, lstrip, rstrip and normalized in many mixtures; words inside of others, in other scripts, with blanks
WORDS = [
    ("covid19", {}),
    ("covid", {"single_word": True}),
    ("<think>", {"normalized": True}),
    ("</think>", {"rstrip": True}),
    ("<|word|>", {"lstrip": True}),
    ("naïve", {"lstrip": True, "rstrip": True}),
    ("你好", {}),
    (" two words", {"single_word": True, "normalized": True}),
    ("hello", {"lstrip": True, "single_word": True}),
    ("ell", {}),
    ("🌍", {"rstrip": True, "normalized": True}),
    ("\n\n", {}),
]
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PIECES = st.one_of(
    st.text(max_size=6),
    st.sampled_from([text for text, _ in WORDS]),
    st.sampled_from(
        ["hello world", " ", "  ", "\n", "\t", "\xa0", "covid20", "Covid19", "<think", "ell", "words", "wé", "_"]
    ),
)
TEXTS = st.lists(PIECES, max_size=9).map("".join)


def with_words(pre: str = "gpt-2", lower: bool = False) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    """The same vocabulary as ours and as HF's, with the words added to both."""
    ours = small(pre)
    ours.vocab_size = 300
    for text, flags in WORDS:
        known = ours.id_of(text)  # a word of the vocabulary keeps its id
        ours._extend([AddedToken(len(ours) if known is None else known, text, **flags)])
    if lower:
        ours._plain.backend.normalizer = tokenizers.normalizers.Lowercase()
        ours._forget("_words", "parsing_backend")
    return ours, tokenizers.Tokenizer.from_str(ours.parsing_backend.to_str())


PAIRS = {
    name: with_words(*made) for name, made in {"gpt-2": (), "llama": ("llama-bpe",), "lower": ("gpt-2", True)}.items()
}


@pytest.fixture(scope="module")
def phi_with_words(shared_phi) -> Tokenizer:
    made = phi4_mini()
    for text, flags in WORDS:
        known = made.id_of(text)
        made._extend([AddedToken(len(made) if known is None else known, text, **flags)])
    return made


@pytest.mark.parametrize("name", PAIRS)
@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_TP8_plain_text_is_cut_at_added_words_as_hf_does(name, text):
    ours, hf = PAIRS[name]
    if not any(token in text for token in CONTROL):
        assert ours.encode(text) == hf.encode(text, add_special_tokens=False).ids


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_TP8_in_phis_own_vocabulary_too(phi_with_words, text):
    assert phi_with_words.encode(text) == phi_with_words.encode(text, parse_special=True)


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(
        st.one_of(PIECES, st.sampled_from([*CONTROL, "<|tool_call|>", "<|im_end", "endoftext|>"])), max_size=9
    )
)
def test_TP8_control_tokens_stay_out_of_reach_beside_words(phi_with_words, pieces):
    text = "".join(pieces)
    for ours in (PAIRS["gpt-2"][0], PAIRS["llama"][0], phi_with_words):
        ids = ours.encode(text)
        assert ours.control_ids.isdisjoint(ids)
        assert {ours.id_of("covid19"), ours.id_of("<|word|>")}.isdisjoint(ours.control_ids)
        if not any(flag.lstrip or flag.rstrip for flag in ours.added_tokens if flag.id in ids):
            assert ours.decode(ids) == text


def test_TP8_the_example_of_a_folder_and_of_a_gguf():
    for ours, _ in (PAIRS["gpt-2"], PAIRS["llama"]):
        ids = ours.encode("the covid19 case")
        assert ids.count(ours.id_of("covid19")) == 1 and ours.decode(ids) == "the covid19 case"
    kinds = [1] * 256 + [3, 4]
    gguf = from_bpe([*CHARS, "<s>", "covid19"], [], kinds, pre="gpt-2")
    assert gguf.encode("a covid19<s>") == [*gguf.encode("a "), 257, *b"<s>"]


def test_TP8_a_formats_own_tokens_are_kept_out_although_they_are_not_special():
    """Phi's tool tokens are special=False; another vocabulary with them, or ChatML's so added, must hold them back."""
    ours = small(control=())
    ours.vocab_size = 300
    ours._extend([AddedToken(len(ours) + i, text) for i, text in enumerate(["<|tool_call|>", "<|im_end|>", "word"])])
    tool, end, word = (ours.id_of(text) for text in ("<|tool_call|>", "<|im_end|>", "word"))
    assert ours.encode("<|tool_call|><|im_end|>word").count(tool) == 0
    assert {end, word} <= set(ours.encode("<|tool_call|><|im_end|>word"))
    ours.keep_out(["<|im_end|>", "<|not there|>"])
    assert ours.encode("<|im_end|>word") == [*b"<|im_end|>", word]
    assert ours.encode("<|im_end|>word", parse_special=True) == [end, word]


def test_TP8_what_is_stored_cuts_at_the_same_words():
    for ours, _ in (PAIRS["gpt-2"], PAIRS["llama"]):
        again = from_bytes(to_bytes(ours))
        for text in ("covid19 covid <think>x</think>  hello  你好", "<|im_end|> naïve "):
            assert again.encode(text) == ours.encode(text)


def test_text_without_a_word_takes_the_plain_way(shared_phi, phi_with_words):
    """The way with words is not even built for it."""
    made = phi4_mini()
    made.add_tokens(["covid19"])
    text = "A text of ordinary words. " * 20
    assert made.encode(text) == shared_phi.encode(text)
    assert "bpe" not in vars(made._words) and made._plain._built is None
    many = phi4_mini()
    words = [f"word{i}!" for i in range(35)]
    many.add_tokens(words)
    began = time.perf_counter()
    for _ in range(1000):
        many._words.may_be_in(text)
    assert time.perf_counter() - began < 1
