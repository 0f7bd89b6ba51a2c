"""Vocabularies of GGUF files: splits, token types, free rows, and lists that contradict each other."""

from __future__ import annotations

import pytest
import tokenizers

from phi4mini.errors import BadCheckpoint
from phi4mini.tokenizer import Tokenizer, from_bpe, from_bytes, phi4, phi4_mini, ranks, to_bytes
from phi4mini.tokenizer.bytelevel import CHARS
from tests.tokenizer.vocabularies import CHATML, MERGES, small

TEXTS = ["hello world", "12345 a1b22", "It's\n\n  x", "naïve 你好 🌍", "<|im_end|> hello", ""]


def hf_smollm(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """SmolLM2's own pipeline over the same vocabulary."""
    made = tokenizers.Tokenizer.from_str(tokenizer.parsing_backend.to_str())
    parts = tokenizers.pre_tokenizers
    made.pre_tokenizer = parts.Sequence([parts.Digits(individual_digits=True), parts.ByteLevel(add_prefix_space=False)])
    return made


@pytest.mark.parametrize("text", TEXTS)
def test_smollm_split_is_hf(text):
    ours = small("smollm")
    assert ours.encode(text, parse_special=True) == hf_smollm(ours).encode(text).ids
    assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "gpt-4o", "llama-bpe"])
def test_every_known_split_round_trips(pre):
    ours = small(pre)
    for text in TEXTS:
        assert ours.decode(ours.encode(text)) == text
        assert ours.control_ids.isdisjoint(ours.encode(text))


def test_unknown_split_is_named():
    with pytest.raises(BadCheckpoint, match="'deepseek-llm' is not supported"):
        small("deepseek-llm")


def test_token_types():
    tokens = [*CHARS, "<c>", "<u>", "[PAD]"]
    ours = from_bpe(tokens, [], [1] * 256 + [3, 4, 5], pre="gpt-2", bos_id=256, eos_ids=[257], pad_id=258, rows=300)
    assert ours.control_ids == {256} and ours.encode("<u><c>") == [257, *b"<c>"]
    assert ours.decode([256, 257, 258], skip_special_tokens=True) == "<u>", "type 5 is a free row"
    assert len(ours) == 258
    assert (ours.bos_id, ours.eos_ids, ours.pad_id, ours.vocab_size) == (256, (257,), 258, 300)


@pytest.mark.parametrize(
    ("tokens", "merges", "types", "told"),
    [
        ([*CHARS, "a"], [], None, "257 tokens, only 256 of them different"),
        ([*CHARS], ["a b c"], None, "not two tokens: 'a b c'"),
        ([*CHARS], ["ab"], None, "not two tokens: 'ab'"),
        ([*CHARS], ["a b"], None, "do not fit its tokens"),
        ([*CHARS], [], [1], "256 tokens but 1 token types"),
    ],
)
def test_lying_gguf_lists(tokens, merges, types, told):
    with pytest.raises(BadCheckpoint, match=told):
        from_bpe(tokens, merges, types, pre="gpt-2")


def phi_lists() -> tuple[list[str], list[str], list[int]]:
    vocabulary, merges = ranks.vocabulary_and_merges()
    names = vocabulary | phi4.PLACEHOLDERS | {token.content: token.id for token in phi4.ADDED}
    tokens = sorted(names, key=names.__getitem__) + ["<|mine|>"] + [f"[PAD{i}]" for i in range(200030, 200064)]
    types = [1] * 199999 + [3] + [1] * 18 + [3] * 12 + [5] * 34
    return tokens, [f"{left} {right}" for left, right in merges], types


@pytest.mark.parametrize("pre", ["gpt-4o", None, "", "default"])
def test_TP10_phi_in_a_gguf_is_the_shipped_one_whether_its_split_is_named_or_not(pre):
    tokens, merges, types = phi_lists()
    ours = from_bpe(tokens, merges, types, pre=pre)
    assert ours.encode("L'été: getUserName()") == phi4_mini().encode("L'été: getUserName()")
    assert ours.is_phi4 and ours.encode("<|user|> \n Hi<|mine|>", parse_special=True) == [200021, 12194, 200029]
    assert len(to_bytes(ours)) < 1000


@pytest.mark.parametrize("change", ["one token", "two tokens", "a control token", "shorter", "none of it"])
@pytest.mark.parametrize("pre", [None, "default"])
def test_TP10_a_vocabulary_that_is_not_known_needs_the_name_of_its_split(change, pre):
    tokens, merges, types = phi_lists()
    if change == "one token":
        tokens[100_000] += "x"
    elif change == "two tokens":
        tokens[5], tokens[6] = tokens[6], tokens[5]
    elif change == "a control token":
        tokens[200_020] = "<|finish|>"
    elif change == "shorter":
        tokens, types = tokens[:200_020], types[:200_020]
    else:
        tokens, merges, types = list(CHARS), [], [1] * 256
    with pytest.raises(BadCheckpoint, match=r"does not name its pre-tokenizer \(tokenizer\.ggml\.pre\)"):
        from_bpe(tokens, merges, types, pre=pre)


def test_TP10_llama_3_is_known_by_its_tokens():
    tokens = [*CHARS, *(f"Ġ{i}" for i in range(128_256 - 256))]
    tokens[128_000], tokens[128_001], tokens[128_009] = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
    named, unnamed = (from_bpe(tokens, [], None, pre=pre) for pre in ("llama-bpe", None))
    for text in ("It's 12345\n\n x", "DON'T  a1b22"):
        assert unnamed.encode(text) == named.encode(text)


def test_TP9_unused_rows_are_free_rows_wherever_they_lie():
    kinds = [1] * 256 + [5, 3, 5, 4, 5, 5]
    tokens = [*CHARS, "[PAD256]", "<s>", "[PAD258]", "word", "[PAD260]", "[PAD261]"]
    ours = from_bpe(tokens, [], kinds, pre="gpt-2", rows=270)
    for tokenizer in (ours, from_bytes(to_bytes(ours))):
        assert tokenizer.unused_ids == {256, 258} and len(tokenizer) == 260
        assert tokenizer.decode(range(256, 270)) == "<s>word"
        assert tokenizer.encode("[PAD256]word") == [*b"[PAD256]", 259]
        assert [tokenizer.token_bytes(id) for id in (256, 258, 261)] == [b""] * 3
    assert ours.add_tokens(["new"]) == [260] and ours.encode("new") == [260]


def test_small_is_what_the_other_tests_think():
    assert small().encode("hello") == [256 + MERGES.index("hell o")]
    assert [small().id_of(token) for token in CHATML] == [261, 262, 263]
