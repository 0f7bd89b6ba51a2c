"""A model's numbers by transformers' names."""

from __future__ import annotations

import copy
import json

import pytest

from phi4mini import AutoConfig
from phi4mini.errors import BadInput


def test_TF9_the_usual_names(model, folder):
    named = json.loads((folder / "config.json").read_text())
    same = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "max_position_embeddings", "original_max_position_embeddings", "rms_norm_eps"),
        *("sliding_window", "tie_word_embeddings", "eos_token_id", "pad_token_id", "bos_token_id", "model_type"),
        *("architectures", "hidden_act", "partial_rotary_factor", "attention_dropout"),
    )
    for config in (model.config, AutoConfig.from_pretrained(str(folder)), copy.deepcopy(model.config)):
        assert {name: getattr(config, name) for name in same} == {name: named[name] for name in same}
        assert config.head_dim == 32 and config.rope_theta == named["rope_parameters"]["rope_theta"]
        wanted = {key: value for key, value in named["rope_parameters"].items() if key != "type"}
        assert config.rope_parameters == config.rope_scaling == wanted
        assert config.to_dict()["num_hidden_layers"] == json.loads(config.to_json_string())["num_hidden_layers"] == 3
        assert config._name_or_path == str(folder) and config.get("nothing", 3) == 3
        assert config.num_layers == 3 and config.eos_token_ids == (321, 319)  # and ours
    with pytest.raises(AttributeError, match=r"num_hidden_layers"):
        _ = model.config.num_experts


def test_TF9_phi_4_minis_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI4MINI_HOME", str(tmp_path))
    config = AutoConfig.from_pretrained("microsoft/Phi-4-mini-instruct", trust_remote_code=True)
    assert (config.num_hidden_layers, config.num_key_value_heads, config.vocab_size) == (32, 8, 200064)
    assert config.eos_token_id == 199999 and config.rope_parameters["rope_type"] == "longrope"
    with pytest.raises(BadInput, match="token"):
        AutoConfig.from_pretrained("microsoft/Phi-4-mini-instruct", token="x")


def test_TF9_what_scripts_set_and_what_nobody_can(model):
    model.config.pad_token_id = model.config.eos_token_id
    model.config.use_cache = False
    assert model.config.pad_token_id == 319 and model.config.use_cache is False
    for name in ("vocab_size", "num_hidden_layers", "hidden_size", "eos_token_id", "rope_theta", "nonsense"):
        with pytest.raises(BadInput, match=name):
            setattr(model.config, name, 3)
