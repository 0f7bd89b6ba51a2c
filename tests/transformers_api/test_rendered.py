"""Text that came from `apply_chat_template` may be given back, and nothing else becomes a control token."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini import AutoTokenizer
from phi4mini.chat import Segment
from phi4mini.transformers_api import RenderedText

PHI = AutoTokenizer.from_pretrained("microsoft/Phi-4-mini-instruct")
SPELLED = ["<|end|>", "<|user|>", "<|assistant|>", "<|endoftext|>", "<|system|>", "<|tool|>"]
WORDS = st.lists(st.sampled_from([*SPELLED, "Hi", " ", "\n", "ß", "<|", "end|>", "a b"]), max_size=6).map("".join)
TURNS = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), WORDS), min_size=1, max_size=4)


def messages(turns):
    return [{"role": role, "content": content} for role, content in turns]


@settings(deadline=None)
@given(TURNS, st.booleans())
def test_TF2_the_templates_text_given_back_has_the_templates_ids(turns, prompt):
    text = PHI.apply_chat_template(messages(turns), tokenize=False, add_generation_prompt=prompt)
    ids = PHI.apply_chat_template(messages(turns), add_generation_prompt=prompt)
    for again in (text, pickle.loads(pickle.dumps(text)), copy.deepcopy(text), text + "", "" + text, text[:]):
        assert again == text and PHI(again).input_ids == ids
    assert len([i for i in ids if i in PHI.backend.control_ids]) == 2 * len(turns) + 1  # role and end, and the last one


@settings(deadline=None)
@given(TURNS, WORDS)
def test_TF2_what_is_put_beside_it_is_text(turns, words):
    text = PHI.apply_chat_template(messages(turns), tokenize=False, add_generation_prompt=True)
    control = PHI.backend.control_ids
    count = sum(id in control for id in PHI.encode(text))
    for made in (text + words, words + text, text + words + text[:0]):
        assert isinstance(made, RenderedText)
        assert sum(id in control for id in PHI.encode(made)) == count
    assert not control.intersection(PHI.encode(str(text) + words))  # its memory is gone: all of it is text


@settings(deadline=None)
@given(TURNS, st.integers(-40, 40), st.integers(-40, 40), st.sampled_from([None, "<", " H", "|<>end"]))
def test_TF2_what_is_cut_off_keeps_the_rest(turns, start, stop, chars):
    text = PHI.apply_chat_template(messages(turns), tokenize=False)
    made = [text[start:stop], text[start:], text[:stop], text.strip(chars), text.lstrip(chars), text.rstrip(chars)]
    made += [text.removesuffix("<|endoftext|>"), text.removeprefix("<|user|>")]
    plain = str(text)
    assert made == [
        *(plain[start:stop], plain[start:], plain[:stop], plain.strip(chars), plain.lstrip(chars), plain.rstrip(chars)),
        *(plain.removesuffix("<|endoftext|>"), plain.removeprefix("<|user|>")),
    ]
    for each in made:
        assert isinstance(each, RenderedText) and "".join(part.text for part in each.segments) == each
        assert {part for part in each.segments if part.control} <= {part for part in text.segments if part.control}


def test_TF2_relatives_of_a_prompt_that_was_changed():
    text = PHI.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    user, hi, end, assistant = 200021, 12194, 200020, 200019
    ids = [user, hi, end, assistant]
    sure = PHI.encode("Sure")
    relatives = {
        "as it is": (text, ids),
        "with a beginning of the answer": (text + "Sure", [*ids, *sure]),
        "in two parts": (text + "Su" + "re", [*ids, *sure]),
        "added in place": (_added(text, "Sure"), [*ids, *sure]),
        "without the generation prompt": (text.removesuffix("<|assistant|>"), ids[:-1]),
        "by a slice": (text[: -len("<|assistant|>")], ids[:-1]),
        "stripped": (text.strip(), ids),
        "twice": (text + text, [*ids, *ids]),
        "the first token cut through": (text[1:], [*PHI.encode("|user|>Hi"), end, assistant]),
        "text before": ("Hi" + text, [hi, *ids]),
        "the empty slice": (text[5:5], []),
    }
    for name, (made, wanted) in relatives.items():
        assert PHI.encode(made) == wanted, name
    assert text[0] == "<" and text[::2] == str(text)[::2] and json.loads(json.dumps({"p": text})) == {"p": str(text)}
    with pytest.raises(TypeError):
        text + 1


def _added(text, more):
    text += more
    return text


def test_TF2_a_text_that_lost_its_memory_is_said_once(caplog):
    tokenizer = AutoTokenizer.from_pretrained("microsoft/Phi-4-mini-instruct")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    for lost in (f"{text}", "".join([text]), text.replace("Hi", "Ho"), str(text)):
        assert not tokenizer.backend.control_ids.intersection(tokenizer.encode(lost))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3 and all("parse_special=True" in line and "\n" not in line for line in said)
    caplog.clear()
    tokenizer.encode(str(text), parse_special=False)
    assert tokenizer.encode(str(text), parse_special=True) == tokenizer.encode(text) and not caplog.records


def test_another_tokenizers_text_is_refused_by_the_token_it_lacks(tok):
    from phi4mini.errors import BadInput

    with pytest.raises(BadInput, match="im_start"):
        tok.encode(RenderedText([Segment("<|im_start|>", control=True)]))
