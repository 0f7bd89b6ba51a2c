"""A tokenizer as transformers has it: calls, padding, special tokens, decoding, conversations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini import AutoTokenizer
from phi4mini.errors import BadInput
from phi4mini.transformers_api import PretrainedTokenizer
from phi4mini.transformers_api.ids import without_padding

PHI = AutoTokenizer.from_pretrained("microsoft/Phi-4-mini-instruct")
CONVERSATION = [{"role": "user", "content": "Hi"}]
TEXTS = st.lists(st.text("ab c\nß", max_size=12), min_size=1, max_size=4)


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["left", "right"]), st.sampled_from([True, "longest"]), st.integers(1, 8))
def test_TF7_padding_adds_only_what_the_mask_leaves_out(texts, side, how, step):
    made = PHI(texts, padding=how, padding_side=side, pad_to_multiple_of=step)
    rows, masks = made.input_ids, made.attention_mask
    assert without_padding(rows, masks) == [PHI.encode(text) for text in texts]
    assert len({len(row) for row in rows}) == 1 and len(rows[0]) % step == 0
    fill = [i for row, mask in zip(rows, masks, strict=True) for i, keep in zip(row, mask, strict=True) if not keep]
    assert set(fill) <= {PHI.pad_token_id}
    assert (
        PHI.pad([{"input_ids": PHI.encode(t)} for t in texts], padding_side=side)["input_ids"]
        == (PHI(texts, padding=True, padding_side=side)["input_ids"])
    )


def test_TF7_lengths_and_sides_in_every_form(tok):
    one, two = tok.encode("Hello"), tok.encode("Hi you there")
    assert tok("Hi you there", truncation=True, max_length=3).input_ids == two[:3]
    assert tok("Hi you there", max_length=3).input_ids == two[:3]  # as in transformers, which says so
    assert tok("Hi you there", truncation=False, max_length=3).input_ids == two
    assert tok(["Hello"], padding="max_length", max_length=6).input_ids == [one + [319] * (6 - len(one))]
    assert tok("Hello", padding=True, return_tensors="np").input_ids.tolist() == [one]
    assert tok.encode("Hello", return_tensors="np").tolist() == [one]
    assert tok.encode("Hello", add_special_tokens=False) == tok("Hello", split_special_tokens=True).input_ids == one
    assert tok("<|end|>", split_special_tokens=False).input_ids == [321]
    assert list(tok("Hello", return_attention_mask=False)) == ["input_ids"]
    tok.truncation_side = "left"
    assert tok("Hi you there", truncation=True, max_length=3).input_ids == two[-3:]
    tok.padding_side = "left"
    assert tok(["Hello", "Hi you there"], padding=True).attention_mask[0][0] == 0
    tok.model_max_length = 2
    assert tok("Hi you there", truncation=True).input_ids == two[-2:]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"padding": "most"}, "padding"),
        ({"padding_side": "top"}, "padding_side"),
        ({"truncation": "only_second"}, "truncation"),
        ({"return_tensors": "tf"}, "return_tensors"),
        ({"text_pair": "x"}, "text_pair"),
        ({"stride": 3}, "stride"),
        ({"return_offsets_mapping": True}, "return_offsets_mapping"),
        ({"is_split_into_words": True}, "is_split_into_words"),
        ({"return_overflowing_tokens": True}, "return_overflowing_tokens"),
        ({"bogus": 1}, "bogus"),
    ],
)
def test_TF7_what_a_tokenizer_cannot_do_is_said(tok, arguments, said):
    with pytest.raises(BadInput, match=said):
        tok("Hello", **arguments)


def test_TF7_special_tokens_can_be_named_anew(tok):
    tok.pad_token = tok.eos_token
    assert tok.pad_token_id == tok.eos_token_id == 319
    tok.pad_token_id = 321
    assert tok.pad_token == "<|end|>" and tok(["a", "bb"], padding=True).input_ids[0][-1] == 321
    tok.pad_token = None
    assert tok.pad_token_id is None and "pad_token" not in tok.special_tokens_map
    with pytest.raises(BadInput, match="pad_token = "):
        tok(["a", "bb"], padding=True)
    assert tok.add_special_tokens({"pad_token": "<pad>"}) == 1 and tok.pad_token_id == 329
    assert tok.add_special_tokens({"eos_token": "<|end|>"}) == 0 and tok.eos_token_id == 321
    for name, value in (("pad_token", "<none>"), ("pad_token_id", 330), ("pad_token_id", "3"), ("eos_token", "<x>")):
        with pytest.raises(BadInput, match=name):
            setattr(tok, name, value)
    for name, value in (("padding_side", "up"), ("chat_template", "{{ messages }}")):
        with pytest.raises(BadInput, match=name):
            setattr(tok, name, value)
    with pytest.raises(BadInput, match="nonsense"):
        tok.add_special_tokens({"nonsense": "<y>"})


def test_TF7_the_vocabulary_by_transformers_names(tok):
    assert tok.convert_ids_to_tokens([72, 275]) == tok.tokenize("i t") == ["i", "Ġt"]
    assert tok.convert_ids_to_tokens(321) == "<|end|>" and tok.convert_ids_to_tokens(329) is None
    assert tok.convert_ids_to_tokens([72, 321], skip_special_tokens=True) == ["i"]
    assert tok.convert_tokens_to_string(["i", "Ġt"]) == "i t" and tok.vocab["<|end|>"] == 321
    assert len(tok.get_vocab()) == len(tok) == 329 and tok.get_added_vocab()["<|tool|>"] == 324
    assert tok.all_special_ids[0] == 319 and set(tok.all_special_ids) == {317, 318, 319, 320, 321, 322, 323}
    assert tok.added_tokens_decoder[324].content == "<|tool|>" and tok.model_max_length == 2048


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 199997), max_size=6), min_size=1, max_size=4))
def test_TF6_rows_decode_to_a_list_whatever_they_come_in(rows):
    texts = [PHI.decode(row) for row in rows]
    assert all(isinstance(text, str) for text in texts)
    assert PHI.decode(rows) == PHI.batch_decode(rows) == texts
    assert PHI.decode(list(map(np.array, rows))) == texts and PHI.decode(tuple(map(tuple, rows))) == texts
    if len({len(row) for row in rows}) == 1:
        assert PHI.decode(np.array(rows, np.int64)) == texts


def test_TF6_relatives_of_decoding(tok):
    assert tok.decode([[39, 72], [39]]) == ["Hi", "H"] and tok.decode([[39]]) == ["H"] and tok.decode([[]]) == [""]
    assert tok.decode([]) == "" and tok.decode(39) == tok.decode(np.int64(39)) == tok.decode(np.array(39)) == "H"
    assert tok.decode([39, 321], skip_special_tokens=True) == "H" and tok.decode([39, 321]) == "H<|end|>"
    assert tok.batch_decode([39, 72]) == ["Hi"] and tok.batch_decode([]) == []  # a row alone, as in transformers 5
    assert tok.decode({"input_ids": [[39]]}) == ["H"] and tok.decode([39], clean_up_tokenization_spaces=True) == "H"
    for bad in ("text", [["a"]], [1.5, None], [330]):
        with pytest.raises(BadInput):
            tok.decode(bad)


def test_conversations_in_every_form(phi):
    ids = [200021, 12194, 200020, 200019]
    made = phi.apply_chat_template(CONVERSATION, add_generation_prompt=True)
    assert made == ids == made["input_ids"] == made.input_ids and dict(**made)["attention_mask"] == [1] * 4
    array = phi.apply_chat_template(CONVERSATION, add_generation_prompt=True, return_tensors="np")
    assert array.shape == (1, 4) and array["input_ids"].tolist() == [ids] and type(array + 1) is np.ndarray
    assert "input_ids" in array and dict(**array.to("cpu"))["attention_mask"].sum() == 4
    assert type(phi.apply_chat_template(CONVERSATION, return_dict=False)) is list
    both = phi.apply_chat_template([CONVERSATION, CONVERSATION * 2], padding=True, return_dict=True)
    assert [len(row) for row in both.input_ids] == [7, 7] and sum(both.attention_mask[0]) == 4
    texts = phi.apply_chat_template([CONVERSATION, CONVERSATION], tokenize=False)
    assert texts == ["<|user|>Hi<|end|><|endoftext|>"] * 2
    answered = [*CONVERSATION, {"role": "assistant", "content": "Hi"}]
    masked = phi.apply_chat_template(answered, return_dict=True, return_assistant_tokens_mask=True)
    assert masked.assistant_masks == [0, 0, 0, 0, 1, 1, 0]
    parsed = phi.apply_chat_template([{"role": "user", "content": "<|end|>"}], sanitize_control_tokens=False)
    assert parsed == [200021, 200020, 200020, 199999]


def test_TF1_a_final_message_is_left_open(phi):
    for content in ("Sure, ", "  Sure", "", "Sure<|end|>", "a\n", "ß", " ", "1.\n2.", "{", "x" * 50):
        begun = [*CONVERSATION, {"role": "assistant", "content": content}]
        text = phi.apply_chat_template(begun, tokenize=False, continue_final_message=True)
        assert text == "<|user|>Hi<|end|><|assistant|>" + content
        ids = phi.apply_chat_template(begun, continue_final_message=True)
        assert ids == phi.encode(text) and ids[:4] == [200021, 12194, 200020, 200019]
        assert not phi.backend.control_ids.intersection(ids[4:])
    calls = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    for wrong in (CONVERSATION, [], [*CONVERSATION, calls]):
        with pytest.raises(BadInput, match="continue_final_message"):
            phi.apply_chat_template(wrong, continue_final_message=True)
    with pytest.raises(BadInput, match="give one"):
        phi.apply_chat_template(CONVERSATION, continue_final_message=True, add_generation_prompt=True)


def test_a_model_without_a_known_template_says_so(phi):
    with pytest.raises(BadInput, match="continues text"):
        PretrainedTokenizer(phi.backend, "none").apply_chat_template(CONVERSATION)
