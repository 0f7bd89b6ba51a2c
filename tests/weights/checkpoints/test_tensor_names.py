"""The table of names: complete, one to one, and its inverse the inverse."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phi4mini.model.config import Config
from phi4mini.weights.checkpoints import tensor_names
from tests.weights.twins import config_json


def configs() -> list[Config]:
    llama = Config.from_json(config_json("Llama"))
    return [Config.phi4_mini(), llama, replace(llama, tie_word_embeddings=False)]


@pytest.mark.parametrize("config", configs(), ids=["phi3", "llama", "untied"])
@pytest.mark.parametrize("dialect", ["hf", "gguf"])
def test_inverse_leads_back(config, dialect):
    parts, inverse = tensor_names.parts(config, dialect), tensor_names.inverse(config, dialect)
    assert sum(map(len, parts.values())) == len(inverse), "two arrays share a tensor"
    for ours, some in parts.items():
        for i, part in enumerate(some):
            assert inverse[part.name] == (ours, i)


@pytest.mark.parametrize("config", configs(), ids=["phi3", "llama", "untied"])
def test_parts_add_up_to_the_array(config):
    for ours, shape in tensor_names.arrays(config).items():
        parts = tensor_names.parts(config, "hf")[ours]
        assert sum(part.shape[0] for part in parts) == shape[0]
        assert {part.shape[1:] for part in parts} == {shape[1:]}


def test_phi4_mini_has_the_194_tensors_of_its_index():
    inverse = tensor_names.inverse(Config.phi4_mini(), "hf")
    assert len(inverse) == 194
    assert inverse["model.layers.31.self_attn.qkv_proj.weight"] == ("layers.31.qkv", 0)
    assert inverse["model.embed_tokens.weight"] == ("embed", 0)
    assert "lm_head.weight" not in inverse


def test_llama_parts_are_in_the_order_of_rows():
    parts = tensor_names.parts(Config.from_json(config_json("Llama")), "hf")
    assert [part.name.split(".")[-2] for part in parts["layers.0.qkv"]] == ["q_proj", "k_proj", "v_proj"]
    assert [part.shape[0] for part in parts["layers.0.qkv"]] == [64, 32, 32]
    assert [part.name.split(".")[-2] for part in parts["layers.1.gate_up"]] == ["gate_proj", "up_proj"]


@pytest.mark.parametrize("family", ["Phi3", "Llama"])
def test_CK9_the_other_familys_names_are_taken_only_where_they_are_whole(family):
    config, other = (Config.from_json(config_json(one)) for one in (family, "Llama" if family == "Phi3" else "Phi3"))
    own, theirs = tensor_names.parts(config, "hf"), tensor_names.parts(other, "hf")
    present = {part.name for some in theirs.values() for part in some}
    assert tensor_names.parts(config, "hf", present) == theirs
    assert tensor_names.parts(config, "hf", {part.name for some in own.values() for part in some}) == own
    for missing in sorted(present):
        found = tensor_names.parts(config, "hf", present - {missing})
        ours, _ = tensor_names.inverse(other, "hf")[missing]
        assert found[ours] == own[ours]
    assert tensor_names.parts(config, "gguf", present) == tensor_names.parts(config, "gguf")


def test_index_of_the_hub_is_the_table():
    from tests.shared import SHARED

    path = SHARED / "facts" / "model.safetensors.index.json"
    if not path.exists():
        pytest.skip("needs the shared facts beside the checkout")
    import json

    assert set(json.loads(path.read_text())["weight_map"]) == set(tensor_names.inverse(Config.phi4_mini(), "hf"))
