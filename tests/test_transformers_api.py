"""The model card's sample on the demo model, and that nothing of it is silently ignored."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini import AutoModelForCausalLM, AutoTokenizer, pipeline
from phi4mini.errors import BadInput
from phi4mini.transformers_api.arguments import generation_arguments, quant_of_dtype

ANSWER = "The capital of France is Paris."
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
PHI = "microsoft/Phi-4-mini-instruct"


@pytest.fixture(scope="module")
def model(demo_store):
    demo_store("f32")
    loaded = AutoModelForCausalLM.from_pretrained(
        "demo", device_map="auto", torch_dtype="float32", trust_remote_code=True, kv="f32"
    )
    yield loaded
    loaded.llm.close()


@pytest.fixture(scope="module")
def tokenizer(demo_store):
    demo_store("q4")
    return AutoTokenizer.from_pretrained("demo")


@pytest.fixture(scope="module")
def phi():
    return AutoTokenizer.from_pretrained(PHI)


# --- the sample -----------------------------------------------------------------------------------------------------


def test_the_model_cards_sample(model, tokenizer):
    messages = [
        {"role": "system", "content": "You are a helpful AI assistant."},
        {"role": "user", "content": "Can you provide ways to eat bananas?"},
        {"role": "assistant", "content": "Sure! Mash them."},
        {"role": "user", "content": "What about solving 2x + 3 = 7?"},
    ]
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
    generation_args = {"max_new_tokens": 20, "return_full_text": False, "temperature": 0.0, "do_sample": False}
    output = pipe(messages, **generation_args)
    assert [list(item) for item in output] == [["generated_text"]]
    assert output[0]["generated_text"] == model.llm.chat(messages, max_new_tokens=20).content != ""


def test_a_conversation_comes_back_whole_unless_told_otherwise(model):
    pipe = pipeline("text-generation", model=model)
    (whole,) = pipe(MESSAGES)
    assert whole["generated_text"] == [*MESSAGES, {"role": "assistant", "content": ANSWER}]
    assert pipe(MESSAGES, return_full_text=False) == [{"generated_text": ANSWER}]


def test_texts_come_back_as_texts(model):
    pipe = pipeline("text-generation", model=model)
    prompt = "The capital of France is"
    assert pipe(prompt, max_new_tokens=2) == [{"generated_text": prompt + " Paris."}]
    several = pipe([prompt, MESSAGES], max_new_tokens=2, return_full_text=False)
    assert several == [[{"generated_text": " Paris."}], [{"generated_text": "The capital"}]]


def test_a_pipeline_takes_names(demo_store):
    demo_store("q4")
    pipe = pipeline("text-generation", model="demo", tokenizer="demo", device_map="cpu", torch_dtype="auto")
    assert pipe.model.llm.store.recipe == "q4"
    assert len(pipe(MESSAGES, max_new_tokens=3, return_full_text=False)[0]["generated_text"]) > 0
    pipe.model.llm.close()


# --- generate -------------------------------------------------------------------------------------------------------


def test_generate_returns_prompt_and_answer_as_rows(model, tokenizer):
    inputs = tokenizer("The capital of France is", return_tensors="np").to(model.device)
    out = model.generate(**inputs, max_new_tokens=2)
    assert out.dtype == np.int64 and out.shape == (1, 7) and (out[:, :5] == inputs.input_ids).all()
    assert tokenizer.batch_decode(out) == ["The capital of France is Paris."]
    assert (model.generate(inputs["input_ids"][0].tolist(), max_length=7) == out).all()


def test_rows_of_different_length_are_filled(model, tokenizer):
    ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True)
    padded = [[tokenizer.pad_token_id] * 2 + ids[: len(ids)], ids + ids[:2]]
    mask = [[0, 0] + [1] * len(ids), [1] * (len(ids) + 2)]
    out = model.generate(padded, attention_mask=mask, max_new_tokens=20)
    assert out[0, : len(ids) + 2].tolist() == padded[0]
    assert tokenizer.decode(out[0, len(ids) + 2 :], skip_special_tokens=True) == ANSWER
    assert model.generate([ids], max_new_tokens=20, eos_token_id=30).shape == (1, len(ids) + 7)  # ends with the dot


def test_sampling_is_off_unless_do_sample(model, tokenizer):
    ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True)
    greedy = model.generate([ids], max_new_tokens=8)
    assert (model.generate([ids], max_new_tokens=8, temperature=9.0, top_k=5) == greedy).all()
    drawn = [
        model.generate([ids], max_new_tokens=8, do_sample=True, temperature=5.0, seed=s).tolist() for s in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_call_gives_logits(model):
    logits = model([[1, 2, 3]]).logits
    assert logits.shape == (1, 3, model.config.vocab_size) and (logits[0] == model.llm.logits([1, 2, 3])).all()
    assert model.eval() is model and model.to("cpu") is model


# --- the tokenizer --------------------------------------------------------------------------------------------------


def test_phi_4_minis_tokenizer_needs_no_file(phi, tmp_path, monkeypatch):
    monkeypatch.setenv("PHI4MINI_HOME", str(tmp_path))
    assert AutoTokenizer.from_pretrained(PHI, trust_remote_code=True).encode("Hello world") == [13225, 2375]
    assert phi.encode("<|end|>") == [27, 91, 419, 91, 29] and phi.encode("<|end|>", parse_special=True) == [200020]
    assert phi.decode([13225, 200020]) == "Hello<|end|>"
    assert phi.decode(np.array([13225, 200020]), skip_special_tokens=True) == phi.decode(13225) == "Hello"
    assert (phi.eos_token, phi.eos_token_id, phi.vocab_size, len(phi)) == ("<|endoftext|>", 199999, 200064, 200029)
    assert phi.convert_tokens_to_ids(["<|user|>", "nonsense token"]) == [200021, None]


def test_calling_it_gives_ids_and_mask(phi):
    assert dict(phi("Hello world")) == {"input_ids": [13225, 2375], "attention_mask": [1, 1]}
    assert phi(["Hello", "Hello world"]).input_ids == [[13225], [13225, 2375]]
    assert phi("Hello", return_tensors="np").attention_mask.shape == (1, 1)
    for bad in ({"return_tensors": "pt"}, {"return_tensors": "np"}):
        with pytest.raises(BadInput, match=r"torch|lengths"):
            phi(["Hello", "Hello world"], **bad)


def test_apply_chat_template_has_every_form(phi):
    text = "<|user|>What is the capital of France?<|end|>"
    assert phi.apply_chat_template(MESSAGES, tokenize=False) == text + "<|endoftext|>"
    assert phi.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True) == text + "<|assistant|>"
    ids = phi.apply_chat_template(MESSAGES, add_generation_prompt=True)
    assert ids == phi.encode(text + "<|assistant|>", parse_special=True)
    as_dict = phi.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=True, return_tensors="np")
    assert as_dict.input_ids.tolist() == [ids] and as_dict["attention_mask"].shape == (1, len(ids))
    with_tools = phi.apply_chat_template(MESSAGES, tools=[{"name": "look", "parameters": {}}], tokenize=False)
    assert '<|tool|>[{"name": "look", "parameters": {}}]<|/tool|>' in with_tools


def test_add_tokens_counts_and_ends_at_the_models_rows():
    tokenizer = AutoTokenizer.from_pretrained(PHI)
    assert tokenizer.add_tokens(["<|a|>", "<|b|>", "<|a|>"]) == 2
    assert tokenizer.convert_tokens_to_ids("<|b|>") == 200030 and tokenizer.add_tokens("<|a|>") == 0
    with pytest.raises(BadInput, match="200064"):
        tokenizer.add_tokens([f"<|n{i}|>" for i in range(34)])


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"device_map": "cuda"}, "cuda"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"load_in_4bit": True}, "load_in_4bit"),
        ({"quantization_config": {}}, "quantization_config"),
        ({"attn_implementation": "flex"}, "flex"),
        ({"use_safetensors": False}, "use_safetensors"),
        ({"trust_remote_code": "yes"}, "trust_remote_code"),
    ],
)
def test_what_cannot_be_honoured_in_loading_is_refused_by_name(arguments, name):
    with pytest.raises(BadInput, match=name):
        AutoModelForCausalLM.from_pretrained("demo", **arguments)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"num_beams": 4}, "num_beams"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"max_tokens": 3}, "max_tokens"),
        ({"streamer": object()}, "streamer"),
        ({"max_length": 3}, "max_length"),
        ({"do_sample": True, "temperature": 0.0}, "temperature"),
        ({"do_sample": True, "top_p": 3.0}, "top_p"),
    ],
)
def test_what_cannot_be_honoured_in_generating_is_refused_by_name(model, arguments, name):
    with pytest.raises(BadInput, match=name):
        model.generate([[1, 2, 3, 4]], **arguments)


def test_other_refusals(model, tokenizer):
    for wrong in (lambda: pipeline("summarization", model=model), lambda: model.to("cuda")):
        with pytest.raises(BadInput, match=r"summarization|cuda"):
            wrong()
    for ids, mask in ((None, None), ("text", None), ({"input_ids": [1]}, None), ([[1, 2]], [[1]])):
        with pytest.raises(BadInput):
            model.generate(ids, attention_mask=mask)
    with pytest.raises(BadInput):
        pipeline("text-generation", model=model)([])
    with pytest.raises(BadInput, match="padding=True"):
        model([[1], [2, 3]])
    with pytest.raises(BadInput, match="bogus"):
        AutoTokenizer.from_pretrained(PHI, bogus=1)


def test_arguments_mean_what_they_mean_in_transformers():
    assert generation_arguments({"do_sample": False, "temperature": 0.7, "top_k": 3, "use_cache": True}, 5) == {}
    drawn = generation_arguments({"do_sample": True, "top_p": 0.9}, 5)
    assert drawn == {"temperature": 1.0, "top_k": 50, "top_p": 0.9}
    assert generation_arguments({"max_length": 8, "eos_token_id": [7, 8]}, 5) == {
        "max_new_tokens": 3,
        "ignore_eos": True,
        "stop_ids": [7, 8],
    }
    assert generation_arguments({"max_length": 8, "max_new_tokens": 9, "stop_strings": "x"}, 5) == {
        "max_new_tokens": 9,
        "stop": "x",
    }


def test_a_dtype_names_a_recipe():
    class Dtype:
        def __str__(self):
            return "torch.bfloat16"

    assert [quant_of_dtype(d) for d in (None, "auto", "float32", "torch.float32", Dtype())] == [
        None, None, "f32", "f32", "bf16"
    ]  # fmt: skip
