"""`pipe(...)`: messages, text, lists and generators of them; a begun answer is continued; prompts may be given back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini import AutoTokenizer, pipeline
from phi4mini.errors import BadInput
from tests.tiny_chat import ID

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi there"}]
N = {"max_new_tokens": 5}
_OPEN: list = []  # the pipeline, for properties, which take no fixtures
WORDS = st.lists(st.sampled_from(["<|end|>", "<|user|>", "Hi", " ", "a b", "<|"]), min_size=1, max_size=5).map("".join)


@pytest.fixture(autouse=True)
def opened_here(pipe):
    _OPEN[:] = [pipe]


def begun(content):
    return [*ASKED, {"role": "assistant", "content": content}]


def said(pipe, prompt, **arguments):
    return pipe(prompt, return_full_text=False, **(N | arguments))[0]["generated_text"]


@settings(deadline=None, max_examples=25)
@given(WORDS)
def test_TF1_a_begun_answer_is_continued_and_comes_back_merged(content):
    (pipe,) = _OPEN
    (whole,) = pipe(begun(content), **N)
    more = said(pipe, begun(content))
    assert whole["generated_text"] == begun(content + more)
    head = [ID["<|system|>"], *pipe.tokenizer.encode("Be brief.", False), ID["<|end|>"]]
    head += [ID["<|user|>"], *pipe.tokenizer.encode("Hi there", False), ID["<|end|>"], ID["<|assistant|>"]]
    ids = head + pipe.tokenizer.encode(content.lstrip(), False)  # the token before takes white space in, as in HF
    assert pipe.tokenizer.decode(pipe.model.generate([ids], **N)[0, len(ids) :], skip_special_tokens=True) == more


def test_TF1_relatives_of_a_begun_answer(pipe):
    sure = begun("Sure,")
    more = said(pipe, sure)
    parts = begun([{"type": "text", "text": "Sure,"}])
    new_turn = pipe(sure, continue_final_message=False, **N)[0]["generated_text"]
    assert (
        len(new_turn) == 4
        and new_turn[:3] == sure
        and new_turn[3]["content"] == said(pipe, sure, continue_final_message=False)
    )
    assert pipe(sure, continue_final_message=True, **N)[0]["generated_text"] == begun("Sure," + more)
    assert pipe(parts, **N)[0]["generated_text"] == begun("Sure," + more)
    assert pipe([sure, ASKED], **N)[0][0]["generated_text"] == begun("Sure," + more)
    assert pipe([sure, ASKED], **N)[1] == pipe(ASKED, **N) and len(pipe(ASKED, **N)[0]["generated_text"]) == 3
    assert pipe(tuple(sure), **N)[0]["generated_text"] == begun("Sure," + more)
    two = pipe(sure, do_sample=True, seed=1, num_return_sequences=2, **N)
    assert [each["generated_text"][-1]["content"][:5] for each in two] == ["Sure,"] * 2
    assert pipe(begun(""), **N)[0]["generated_text"][-1]["content"] == said(pipe, ASKED)
    ids = pipe(sure, return_tensors=True, **N)[0]["generated_token_ids"]
    assert ids[:-5] == pipe.tokenizer.apply_chat_template(sure, continue_final_message=True)
    with pytest.raises(BadInput, match="continue_final_message"):
        pipe(ASKED, continue_final_message=True)
    calls = [*ASKED, {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}]
    with pytest.raises(BadInput, match="tool calls"):
        pipe(calls)


@settings(deadline=None, max_examples=25)
@given(WORDS)
def test_TF2_a_prompt_of_the_template_says_what_its_messages_say(content):
    (pipe,) = _OPEN
    messages = [{"role": "user", "content": content}]
    prompt = pipe.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    answer = said(pipe, messages)
    assert said(pipe, prompt) == answer
    (whole,) = pipe(prompt, **N)
    assert whole["generated_text"] == prompt + answer
    further = pipe(whole["generated_text"], **N)[0]["generated_text"]  # and the whole of it may be given back
    assert further == whole["generated_text"] + said(pipe, whole["generated_text"])


def test_TF2_control_tokens_typed_by_hand(pipe, tok, caplog):
    typed = "<|user|>Hi there<|end|><|assistant|>"
    messages = [{"role": "user", "content": "Hi there"}]
    assert said(pipe, typed, parse_special=True) == said(pipe, messages)
    assert said(pipe, typed) == said(pipe, typed, parse_special=False) != said(pipe, messages)
    assert [("parse_special=True" in record.getMessage()) for record in caplog.records] == [True] * 3
    ids = pipe([*messages, {"role": "user", "content": typed}], parse_special=True, return_tensors=True, **N)
    assert ids[0]["generated_token_ids"].count(ID["<|user|>"]) == 3


def test_TF3_arguments_that_cards_carry(pipe, model):
    plain = pipe("Hello", **N)
    idle = {
        "pad_token_id": pipe.tokenizer.eos_token_id,
        "batch_size": 8,
        "num_workers": 2,
        "use_cache": True,
        "clean_up_tokenization_spaces": True,
        "add_special_tokens": False,
        "padding": True,
        "num_beams": 1,
        "return_text": True,
        "do_sample": False,
        "temperature": 0.0,
        "eos_token_id": [321, 319],
        "skip_special_tokens": True,
        "length_penalty": 1.0,
        "handle_long_generation": None,
        "return_dict_in_generate": False,
        "generation_config": None,
        "tokenizer": pipe.tokenizer,
    }
    for name, value in idle.items():
        assert pipe("Hello", **N, **{name: value}) == plain, name
    assert pipe("Hello", **N, **idle) == plain
    for device in ("cpu", -1, None):
        made = pipeline("text-generation", model=model, tokenizer=pipe.tokenizer, device=device, batch_size=4, **N)
        assert made("Hello") == plain and made("Hello", max_new_tokens=1) == pipe("Hello", max_new_tokens=1)
    assert pipeline(model=model, **N)("Hello") == plain and pipe.device == "cpu"
    with pytest.raises(BadInput, match="device"):
        pipeline("text-generation", model=model, device=0)
    with pytest.raises(BadInput, match="bogus"):
        pipeline("text-generation", model=model, bogus=0)
    for wrong in ({"num_beams": 2}, {"handle_long_generation": "hole"}, {"documents": ["x"]}, {"bogus": 1}):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            pipe("Hello", **wrong)


def test_what_is_used(pipe):
    tok = pipe.tokenizer
    whole = said(pipe, "Hello", max_new_tokens=12)
    first = whole[:1]
    assert said(pipe, "Hello", stop_sequence=first) == said(pipe, "Hello", stop_strings=[first]) == first
    assert said(pipe, "Hello", prefix="Hi ") == said(pipe, "Hi Hello")
    cut = tok.decode(tok.encode("Hi you there")[:3])
    assert said(pipe, "Hi you there", truncation=True, max_length=3) == said(pipe, cut)
    end = tok.encode("Hello", return_tensors="np")
    stopped = pipe.model.generate(end, max_new_tokens=1)[0, -1]
    assert said(pipe, "Hello", eos_token_id=int(stopped), max_new_tokens=9) == tok.decode([stopped])
    tools = [{"name": "look", "parameters": {}}]
    with_tools = pipe(ASKED, tools=tools, return_tensors=True, **N)[0]["generated_token_ids"]
    assert ID["<|tool|>"] in with_tools
    with pytest.raises(BadInput, match="streamer"):
        pipe(["a", "b"], streamer=object(), **N)


def test_every_form_of_input(pipe):
    one, two = pipe("Hello", **N), pipe("Hi you there", **N)
    texts = ["Hello", "Hi you there"]
    assert pipe(texts, **N) == pipe(tuple(texts), **N) == [one, two] and pipe(["Hello"], **N) == [one]
    assert list(pipe((text for text in texts), **N)) == list(pipe(iter(texts), **N)) == [one, two]
    assert pipe(text_inputs="Hello", **N) == one and pipe([ASKED, "Hello"], **N) == [pipe(ASKED, **N), one]
    for wrong in ([], 3, {"role": "user"}, [3], ["a", 3], [[]], None, np.zeros(3)):
        with pytest.raises(BadInput, match="pipeline takes"):
            pipe(wrong)


def test_a_pipeline_by_names(folder):
    made = pipeline("text-generation", model=str(folder), tokenizer=str(folder), device_map="auto", token=None,
                    model_kwargs={"torch_dtype": "float32"}, max_new_tokens=2, trust_remote_code=False)  # fmt: skip
    assert made.model.llm.store.recipe == "f32" and made.tokenizer.chat_format == "phi"
    assert made("Hello")[0]["generated_text"].startswith("Hello")
    made.model.llm.close()
    assert AutoTokenizer.from_pretrained(str(folder)).chat_format == "phi"
