"""Every argument goes through the tables: what is neutral is taken, what is not is refused by name with the reason."""

from __future__ import annotations

import inspect

import pytest

from phi4mini import AutoConfig, AutoModelForCausalLM, AutoTokenizer, pipeline
from phi4mini.errors import BadInput, Phi4MiniError
from phi4mini.transformers_api import CausalLM, PretrainedTokenizer, TextGenerationPipeline
from phi4mini.transformers_api.arguments import check_on_cpu, generation_arguments, taken
from phi4mini.transformers_api.tables import ABSENT, METHODS

METHOD_OF = {
    "AutoModelForCausalLM.from_pretrained": AutoModelForCausalLM.from_pretrained,
    "AutoTokenizer.from_pretrained": AutoTokenizer.from_pretrained,
    "AutoConfig.from_pretrained": AutoConfig.from_pretrained,
    "tokenizer": PretrainedTokenizer.__call__,
    "decode": PretrainedTokenizer.decode,
    "apply_chat_template": PretrainedTokenizer.apply_chat_template,
    "model": CausalLM.__call__,
    "generate": CausalLM.generate,
    "pipe": TextGenerationPipeline.__call__,
    "pipeline": pipeline,
}
ALL = [(method, name) for method, rules in METHODS.items() for name in rules]


class Device:
    """Prints as torch's device does."""

    def __init__(self, name):
        self.name = name

    def __str__(self):
        return self.name


Device.__name__ = "device"


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_of_a_method_is_in_its_table(method):
    named = inspect.signature(METHOD_OF[method]).parameters.values()
    names = {p.name for p in named if p.kind not in (p.VAR_KEYWORD,)} - {"self", "pretrained_model_name_or_path"}
    assert names <= set(METHODS[method])


@pytest.mark.parametrize(("method", "name"), ALL)
def test_TF3_an_argument_is_taken_when_it_is_none_or_neutral_and_else_refused_by_name(method, name):
    rule = METHODS[method][name]
    assert taken(method, {name: None}) == {} and rule.why
    for neutral in rule.neutral:
        assert rule.fate == "refused" and taken(method, {name: neutral}) == {}
    odd = object()
    if rule.fate != "refused":
        assert taken(method, {name: odd}) == ({name: odd} if rule.fate == "used" else {})
        return
    with pytest.raises(BadInput) as caught:
        taken(method, {name: odd})
    message = str(caught.value)
    assert name in message and rule.why in message and "\n" not in message and len(message) < 300


@pytest.mark.parametrize(
    ("method", "name", "near"),
    [
        ("generate", "max_tokens", "max_new_tokens"),
        ("generate", "stop", "stop_strings"),
        ("generate", "temprature", "temperature"),
        ("generate", "num_return_sequence", "num_return_sequences"),
        ("tokenizer", "return_tensor", "return_tensors"),
        ("tokenizer", "pad", "padding"),
        ("decode", "skip_special_token", "skip_special_tokens"),
        ("apply_chat_template", "add_generation_promt", "add_generation_prompt"),
        ("model", "attention_masks", "attention_mask"),
        ("pipe", "return_full_txt", "return_full_text"),
        ("pipeline", "torch_dtyp", "torch_dtype"),
        ("AutoTokenizer.from_pretrained", "pad_side", "padding_side"),
    ],
)
def test_an_unknown_argument_is_refused_with_the_nearest(method, name, near):
    with pytest.raises(BadInput, match=f"{name}.*{near}"):
        taken(method, {name: 1})


def test_TF13_devices_and_dtypes_in_every_spelling():
    for device in ("cpu", "auto", {"": "cpu"}, {"": Device("cpu")}, Device("cpu"), None):
        assert taken("AutoModelForCausalLM.from_pretrained", {"device_map": device}) == {}
    for device in (-1, "cpu", Device("cpu"), None):
        assert taken("pipeline", {"device": device}) == {}
        check_on_cpu(None if device == -1 else device)
    for device in ("cuda", "cuda:0", 0, Device("cuda"), "mps", {"": 0}, {"": "cuda"}, "balanced", 1.0, True):
        for method, name in (("AutoModelForCausalLM.from_pretrained", "device_map"), ("pipeline", "device")):
            with pytest.raises(BadInput, match="CPU"):
                taken(method, {name: device})
    for wrong in ("cuda", "float16", Device("torch.bfloat16")):
        with pytest.raises(BadInput, match="float32 on the CPU"):
            check_on_cpu(wrong)


def test_TF13_arguments_of_loading_that_cards_carry(folder):
    neutral = {"token": None, "revision": "main", "trust_remote_code": False, "low_cpu_mem_usage": True}
    neutral |= {"use_safetensors": True, "attn_implementation": "eager", "quantization_config": None, "cache_dir": None}
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", torch_dtype="float32", **neutral)
    assert model.llm.store.recipe == "f32" and model.name_or_path == str(folder)
    model.llm.close()
    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=False, padding_side="left", pad_token="<|end|>")
    assert (tokenizer.padding_side, tokenizer.pad_token_id) == ("left", 321)
    for argument, reason in (("token", "HF_TOKEN"), ("cache_dir", "HF_HOME"), ("revision", "main")):
        with pytest.raises(BadInput, match=f"{argument}.*{reason}"):
            AutoModelForCausalLM.from_pretrained(folder, **{argument: "x"})
    with pytest.raises(BadInput, match=r"quantization_config=.*q4"):
        AutoModelForCausalLM.from_pretrained(folder, quantization_config={"load_in_4bit": True})


@pytest.mark.parametrize("name", ABSENT)
def test_TF16_methods_that_are_not_here_say_why(model, tok, name):
    for thing in (model, tok):
        if hasattr(thing, name):
            assert name == "chat_template" or thing is model
            continue
        with pytest.raises(Phi4MiniError, match=name) as caught:
            getattr(thing, name)
        assert isinstance(caught.value, AttributeError) and ABSENT[name] in str(caught.value)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = model.nonsense


def test_what_transformers_arguments_are_in_our_words():
    assert generation_arguments({"min_length": 9, "max_length": 12}, 5) == {"max_new_tokens": 7, "min_new_tokens": 4}
    assert generation_arguments({"min_length": 9, "max_new_tokens": 1}, 5) == {"max_new_tokens": 1, "min_new_tokens": 1}
    assert generation_arguments({"min_length": 3}, 5) == {"min_new_tokens": 0}
    assert generation_arguments({"eos_token_id": -1}, 5) == {"ignore_eos": True, "stop_ids": []}
    assert generation_arguments({"bad_words_ids": [[4], [5]], "suppress_tokens": [6]}, 5) == {"banned_ids": [4, 5, 6]}
    with pytest.raises(BadInput, match="bad_words_ids"):
        generation_arguments({"bad_words_ids": [[4, 5]]}, 5)


BAD_VALUES = [
    *[(name, value) for name in ("max_length", "min_length") for value in ("9", 1.5, True, -1, [9])],
    *[("num_return_sequences", value) for value in (0, "2", 1.5)],
    *[("max_new_tokens", value) for value in (0, "9", -1, 2.5)],
    *[("min_new_tokens", value) for value in (-1, "1")],
    *[("pad_token_id", value) for value in ("x", 1.5, -2, [3])],
    *[("eos_token_id", value) for value in ("x", [None], 330)],
    *[("max_time", "soon"), ("stop_strings", 3), ("stop_strings", [3]), ("seed", "x"), ("rope", "up")],
    *[("bad_words_ids", ["word"]), ("bad_words_ids", [[1, 2]]), ("suppress_tokens", "abc"), ("suppress_tokens", 330)],
    *[("repetition_penalty", "x"), ("repetition_penalty", 0.0), ("attention_mask", "x"), ("attention_mask", [[1]])],
]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_TF3_a_value_that_makes_no_sense_is_one_line(model, name, value):
    with pytest.raises(BadInput) as caught:
        most = {} if name == "max_length" else {"max_new_tokens": 3}
        model.generate([[39, 72]], **({"do_sample": True} | most | {name: value}))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_length": -1, "truncation": True}, {"max_length": "3", "truncation": True}, {"pad_to_multiple_of": 0},
        {"pad_to_multiple_of": 1.5}, {"max_length": 2.5, "padding": "max_length"}, {"return_tensors": True},
        {"padding": 3}, {"truncation": []}, {"padding_side": 0}, {"max_length": [3], "truncation": True},
    ],
)  # fmt: skip
def test_TF3_a_tokenizers_value_that_makes_no_sense_is_one_line(tok, arguments):
    with pytest.raises(BadInput):
        tok(["Hello", "Hi"], **({"padding": True} | arguments))
