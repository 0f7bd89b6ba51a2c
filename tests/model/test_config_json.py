"""A config.json as training programs write it: other names for the same model, other spellings of the same numbers."""

from __future__ import annotations

from typing import Any

import pytest

from phi4mini.errors import BadCheckpoint
from phi4mini.model.config import Config
from tests.model.test_config import LLAMA, PHI35


@pytest.mark.parametrize("base", [PHI35, LLAMA], ids=["phi3", "llama"])
@pytest.mark.parametrize(
    "name",
    [
        "FSDP{}ForCausalLM",
        "{}Model",
        "FSDP{}Model",
        "PeftModelForCausalLM",
        "PeftModel",
        "LoraModel",
        "OptimizedModule",
        "FullyShardedDataParallel",
        "DistributedDataParallel",
        "AutoModelForCausalLMWithValueHead",
        "AutoModelForCausalLM",
        None,
    ],
)
def test_CK5_names_that_training_programs_write_for_the_same_model(base: dict[str, Any], name: str | None) -> None:
    kind = "phi3" if base is PHI35 else "llama"
    named = None if name is None else [name.format(kind.capitalize())]
    config = Config.from_json(base | {"architectures": named, "model_type": kind})
    assert config == Config.from_json(base)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("PeftModelForCausalLM", None),
        ("PeftModelForCausalLM", "qwen2"),
        ("OptimizedModule", "mistral"),
        ("Phi3ForSequenceClassification", "phi3"),
        ("Phi3ForTokenClassification", "phi3"),
        ("LlamaForSequenceClassification", "llama"),
        ("Phi3VForCausalLM", "phi3_v"),
        ("Phi3SmallForCausalLM", "phi3small"),
        ("Phi4MMForCausalLM", "phi4mm"),
        ("MistralForCausalLM", "llama"),
        ("PhiMoEForCausalLM", "phi3"),
        ("FSDPQwen2ForCausalLM", "phi3"),
    ],
)
def test_CK5_names_of_other_models_are_refused(name: str, kind: str | None) -> None:
    with pytest.raises(BadCheckpoint, match=f"architectures '{name}' is not supported"):
        Config.from_json(PHI35 | {"architectures": [name], "model_type": kind})


@pytest.mark.parametrize("base", [PHI35, LLAMA], ids=["phi3", "llama"])
def test_CK8_a_pad_id_of_minus_one_is_none(base: dict[str, Any]) -> None:
    assert Config.from_json(base | {"pad_token_id": -1}).pad_token_id is None
    assert Config.from_json(base | {"pad_token_id": None}).pad_token_id is None
    assert Config.from_json(base | {"pad_token_id": 0}).pad_token_id == 0
    for lie in (-2, -100, -1.0, "-1", True, 1 << 40, [-1], 1.5, {}, -(1 << 63)):
        with pytest.raises(BadCheckpoint, match=r"pad_token_id .* is not an id"):
            Config.from_json(base | {"pad_token_id": lie})


def test_CK17_keys_that_say_nothing_about_numbers() -> None:
    for more in (
        {"torch_dtype": "bfloat16"},
        {"dtype": "float16"},
        {"torch_dtype": None},
        {"quantization_config": {"bits": 4}},
        {"transformers_version": "5.0.0"},
        {"_name_or_path": "x"},
        {"auto_map": {}},
        {"use_cache": False},
        {"unsloth_fixed": True},
        {"_attn_implementation": "sdpa"},
        {"rope_scaling": PHI35["rope_scaling"], "rope_parameters": None},
    ):
        assert Config.from_json(PHI35 | more) == Config.from_json(PHI35)


@pytest.mark.parametrize("base", [PHI35, LLAMA], ids=["phi3", "llama"])
def test_CK17_the_text_model_of_a_nested_config(base: dict[str, Any]) -> None:
    kind = "phi3" if base is PHI35 else "llama"
    nested = {"architectures": ["SomeForConditionalGeneration"], "text_config": base | {"model_type": kind}}
    assert Config.from_json(nested | {"model_type": "some", "vision_config": {}}) == Config.from_json(base)
    inner = {key: value for key, value in base.items() if key != "architectures"} | {"model_type": "qwen2"}
    with pytest.raises(BadCheckpoint, match="model_type 'qwen2' is not supported"):
        Config.from_json(nested | {"text_config": inner})
