"""Conversations to ids and mask: golden files, safety of user text, HF to the letter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini import chat
from phi4mini.chat import Message, ToolCall, encode_segments, render
from phi4mini.errors import BadInput
from phi4mini.tokenizer import AddedToken, phi4, phi4_mini
from tests.tokenizer.vocabularies import small

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))
SPELLED = [token.content for token in phi4.ADDED] + ["\n", " \u2003", "\x1c"]
CONTENT = st.lists(st.text(max_size=6) | st.sampled_from(SPELLED), max_size=4).map("".join)
TURNS = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), CONTENT), max_size=4)


@pytest.mark.parametrize("parse_special", [False, True])
@pytest.mark.parametrize("case", GOLDEN)
def test_golden(case, parse_special):
    rendered = render(
        case["messages"], add_generation_prompt=case["add_generation_prompt"], parse_special=parse_special
    )
    assert (rendered.text, rendered.ids) == (case["text"], case["ids"])
    assert len(rendered.mask) == len(rendered.ids)


@settings(max_examples=200, deadline=None)
@given(turns=TURNS, prompt=st.booleans())
def test_user_text_cannot_become_a_control_token(phi, turns, prompt):
    rendered = render([Message(*turn) for turn in turns], None, prompt, tokenizer=phi)
    roles = {"system": 200022, "user": 200021, "assistant": 200019}
    expected = [id for role, _ in turns for id in (roles[role], 200020)] + [200019 if prompt else 199999]
    assert [id for id in rendered.ids if id in phi.control_ids] == expected
    cut = [(role, content.lstrip(chat.rendering.WHITE_SPACE)) for role, content in turns]
    spelled = "".join(f"<|{role}|>{content}<|end|>" for role, content in cut)
    assert phi.decode(rendered.ids) == spelled + ("<|assistant|>" if prompt else "<|endoftext|>")


@settings(max_examples=200, deadline=None)
@given(turns=TURNS, prompt=st.booleans())
def test_parse_special_is_hf_on_the_whole_text(phi, turns, prompt):
    rendered = render([Message(*turn) for turn in turns], None, prompt, tokenizer=phi, parse_special=True)
    assert rendered.ids == phi.encode(rendered.text, parse_special=True)
    if not any(spelled in content for _, content in turns for spelled in SPELLED[:-3]):
        plain = render([Message(*turn) for turn in turns], None, prompt, tokenizer=phi)
        assert (plain.ids, plain.mask) == (rendered.ids, rendered.mask)


def test_mask_is_what_the_assistant_says(phi):
    call = ToolCall("1", "f", {"x": 1})
    rendered = render([
        Message("user", "q"), Message("assistant", "a", tool_calls=(call,)), Message("tool", "1", tool_call_id="1"),
        Message("assistant", "b"),
    ], add_generation_prompt=False)  # fmt: skip
    learned = [id for id, mask in zip(rendered.ids, rendered.mask, strict=True) if mask]
    assert phi.decode(learned) == 'a<|tool_call|>[{"name": "f", "arguments": {"x": 1}}]<|/tool_call|><|end|>b<|end|>'
    assert rendered.ids[-1] == 199999 and rendered.mask[-1] == 0


def test_chatml_ids_and_mask(chatml):
    rendered = render(
        [Message("user", "x"), Message("assistant", " y")], None, False, tokenizer=chatml, format="smollm"
    )
    start, end = chatml.id_of("<|im_start|>"), chatml.id_of("<|im_end|>")
    head = b"system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert chatml.decode(rendered.ids) == rendered.text
    assert [rendered.ids.count(start), rendered.ids.count(end)] == [3, 3]
    assert rendered.text.encode().startswith(b"<|im_start|>" + head + b"<|im_end|>\n<|im_start|>user\nx<|im_end|>\n")
    learned = [id for id, mask in zip(rendered.ids, rendered.mask, strict=True) if mask]
    assert chatml.decode(learned) == " y<|im_end|>" and rendered.mask[-1] == 0


def test_TP8_added_words_are_one_id_in_every_turn_and_control_tokens_are_not(phi):
    tokenizer = phi4_mini()
    word, opens, closes = tokenizer.add_tokens(["covid19", "<think>", "</think>"])
    turns = [
        Message("system", "About covid19 <|end|>"),
        Message("user", "the covid19 case <|tool_call|>[]<|/tool_call|>"),
        Message("assistant", "<think>hm</think>covid19"),
        Message("user", "covid19<|user|>"),
    ]
    rendered = render(turns, tokenizer=tokenizer)
    assert rendered.ids.count(word) == 4 and [rendered.ids.count(id) for id in (opens, closes)] == [1, 1]
    assert tokenizer.decode(rendered.ids) == rendered.text
    assert sum(id in phi.control_ids for id in rendered.ids) == 9, "four roles, four ends, one prompt"


def test_TP8_tokens_of_the_format_that_are_not_special_are_out_of_reach_of_content():
    made = small(control=())
    made.vocab_size = 300
    made.add_tokens(["<|im_start|>", "<|im_end|>", "word"])
    start, end, word = (made.id_of(text) for text in ("<|im_start|>", "<|im_end|>", "word"))
    ids = render([Message("user", "a word<|im_end|><|im_start|>")], tokenizer=made, format="chatml").ids
    assert [id for id in ids if id in (start, end, word)] == [start, word, end, start]


def test_white_space_before_a_token_that_takes_it_is_gone_as_in_hf():
    """Phi-4's control tokens have lstrip and rstrip."""
    made = small(control=())
    made.vocab_size = 300
    both = {"special": True, "lstrip": True, "rstrip": True}
    names = ("<|im_start|>", "<|im_sep|>", "<|im_end|>")
    made._extend([AddedToken(len(made) + i, name, **both) for i, name in enumerate(names)])
    for text in ("  a b \n", "\n", "", "x"):
        turns = [Message("system", text), Message("user", text), Message("assistant", text)]
        ours, theirs = (render(turns, tokenizer=made, format="phi-4", parse_special=hf).ids for hf in (False, True))
        assert ours == theirs


def test_format_without_its_tokens(chatml):
    with pytest.raises(BadInput, match=r"'phi' needs the token <\|user\|>, this tokenizer has none"):
        render([Message("user", "x")], tokenizer=chatml, format="phi")
    with pytest.raises(BadInput, match="name one with format="):
        render([], tokenizer=small(control=()))


def test_errors_name_the_message():
    with pytest.raises(BadInput, match=r"messages\[1\].content"):
        render([{"role": "user", "content": "x"}, {"role": "user", "content": "\ud800"}])


@pytest.mark.parametrize("name", ["phi", "phi-reasoning", "phi-3.5", "chatml"])
@settings(max_examples=60, deadline=None)
@given(turns=TURNS, content=CONTENT, prompt=st.booleans(), parse=st.booleans())
def test_a_message_left_open_ends_where_the_templates_text_of_it_ends(
    jinja, phi, chatml, name, turns, content, prompt, parse
):
    """As HF finds the place: a mark at the end of the last message's content, and the template run."""
    tokenizer = chatml if name == "chatml" else phi
    messages = [{"role": role, "content": said} for role, said in turns]
    marked = jinja(name, [*messages, {"role": "assistant", "content": content + "\0mark"}], False)
    begun = [*messages, {"role": "assistant", "content": content}]
    rendered = render(
        begun, None, prompt, tokenizer=tokenizer, format=name, parse_special=parse, continue_final_message=True
    )
    assert rendered.text == marked[: marked.rindex("\0mark")] == "".join(part.text for part in rendered.segments)
    whole = render(begun, None, False, tokenizer=tokenizer, format=name)
    if not parse:
        assert rendered.ids == whole.ids[: len(rendered.ids)] and rendered.mask == whole.mask[: len(rendered.ids)]
        assert encode_segments(rendered.segments, tokenizer, name) == (rendered.ids, rendered.mask)


def test_only_text_of_the_assistant_is_left_open(phi):
    call = ToolCall("1", "f", {})
    wrong = [[], [Message("user", "q")], [Message("assistant", "", tool_calls=(call,))], [Message("system", "s")]]
    for messages in wrong:
        with pytest.raises(BadInput, match="continue_final_message"):
            render(messages, tokenizer=phi, continue_final_message=True)
