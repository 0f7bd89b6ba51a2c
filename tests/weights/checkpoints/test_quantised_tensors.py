"""Whole folders of quantised safetensors: opened, carried into a store, equal to the plain folder they stand for."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from phi4mini.errors import BadCheckpoint
from phi4mini.model import reference
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints.folder import open_folder
from phi4mini.weights.checkpoints.quantised_rows import QuantisedRows
from phi4mini.weights.store.convert import convert
from phi4mini.weights.store.store import open_store
from tests.golden.twins import fuse
from tests.weights import quantised_twins
from tests.weights.quantised_twins import twin, write_model, write_safetensors
from tests.weights.twins import config_json, random_tensors, small_folder, write_folder

WIDE = dict(hidden_size=128, intermediate_size=192)
CT4 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 64, "symmetric": True}}},
    "ignore": ["lm_head"],
}
CT8 = {"quant_method": "compressed-tensors", "format": "int-quantized"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"}
FOLDERS: dict[str, tuple[Any, Any, dict[str, Any] | None, str]] = {  # layout, matrix, config, format
    "compressed-tensors": (quantised_twins.pack_quantized, dict(group=64), CT4, "q4"),
    "compressed-tensors, zero points": (quantised_twins.pack_quantized, dict(group=64, symmetric=False), CT4, "q8"),
    "compressed-tensors by row": (quantised_twins.pack_quantized, dict(group=0), CT4, "q4"),
    "compressed-tensors int8": (quantised_twins.int_quantized, dict(group=0, bits=8), CT8, "q8"),
    "awq": (quantised_twins.awq, dict(group=64, symmetric=False), AWQ, "q8"),
    "awq, symmetric": (quantised_twins.awq, dict(group=32), AWQ | {"group_size": 32}, "q4"),
    "gptq": (quantised_twins.gptq, dict(group=64), GPTQ, "q4"),
    "gptq without a config": (quantised_twins.gptq, dict(group=32), None, "q4"),
    "gptq v2": (
        lambda t: quantised_twins.gptq(t, 2),
        dict(group=64, symmetric=False),
        GPTQ | {"checkpoint_format": "gptq_v2", "sym": False},
        "q8",
    ),
    "gptqmodel": (
        lambda t: quantised_twins.gptq(t, borrow=True),
        dict(group=64, symmetric=False),
        GPTQ | {"checkpoint_format": "gptq", "meta": {"quantizer": ["optimum:1.24", "gptqmodel:2.0.0"]}},
        "q8",
    ),
    "gptq 8 bits": (quantised_twins.gptq, dict(group=64, bits=8), GPTQ | {"bits": 8}, "q8"),
}  # fmt: skip


@pytest.mark.parametrize("family", ["Phi3", "Llama"])
@pytest.mark.parametrize("what", sorted(FOLDERS))
def test_CK11_and_CK12_and_CK13_and_CK14_a_whole_folder_is_the_plain_one(tmp_path, what, family, caplog):
    layout, numbers, said, format = FOLDERS[what]
    numbers_of_model = config_json(family, **WIDE)
    plain = write_model(
        tmp_path / "m", numbers_of_model, layout, lambda r, c, seed: twin(r, c, seed=seed, **numbers), said
    )
    opened = open_folder(tmp_path / "m")
    assert not caplog.records
    want = fuse(plain, Config.from_json(numbers_of_model))
    convert(opened, "q4", tmp_path / "q4.phi4")
    ours = open_store(tmp_path / "q4.phi4", verify=True).weights
    for mine, other in zip(ours.layers, want.layers, strict=True):
        for field in ("qkv", "o", "gate_up", "down"):
            assert getattr(mine, field).format.name == format
            np.testing.assert_array_equal(getattr(mine, field).dequantize(), getattr(other, field), err_msg=field)
    assert ours.embed.format.name == "q4" and not caplog.records  # what is plain there goes by the recipe
    ids = [1, 5, 200, 17, 3]
    same_ends = SimpleNamespace(
        config=want.config, embed=ours.embed, layers=want.layers, norm=want.norm, head=ours.head
    )
    np.testing.assert_array_equal(reference.forward(ours, ids), reference.forward(same_ends, ids))
    convert(opened, "f32", tmp_path / "f32.phi4")
    full = open_store(tmp_path / "f32.phi4").weights
    np.testing.assert_array_equal(reference.forward(full, ids), reference.forward(want, ids))


def test_CK15_matrices_that_no_format_carries_are_decoded_and_said(tmp_path, caplog):
    def ordered(rows: int, cols: int, seed: int) -> quantised_twins.Twin:
        made = twin(rows, cols, 32, seed=seed)
        made.group_of = np.random.default_rng(seed).permutation(made.group_of)
        return made

    plain = write_model(
        tmp_path / "m", config_json(**WIDE), quantised_twins.gptq, ordered, GPTQ | {"group_size": 32, "desc_act": True}
    )
    convert(open_folder(tmp_path / "m"), "q4", tmp_path / "m.phi4")
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "layers.0.qkv and 7 more are decoded and rounded to q8: inputs are in another order (act-order); "
        "-q f32 keeps their values"
    ]
    ours = open_store(tmp_path / "m.phi4").weights
    want = plain["model.layers.0.self_attn.o_proj.weight"]
    assert ours.layers[0].o.format.name == "q8"
    np.testing.assert_allclose(ours.layers[0].o.dequantize(), want, atol=np.abs(want).max() / 200)
    caplog.clear()
    convert(open_folder(tmp_path / "m"), "f32", tmp_path / "f.phi4")
    np.testing.assert_array_equal(open_store(tmp_path / "f.phi4").weights.layers[0].o.dequantize(), want)
    assert not caplog.records


def test_settings_beside_the_config_are_read(tmp_path):
    """AutoGPTQ's quantize_config.json, where config.json says nothing: version 2 changes every value."""
    layout = FOLDERS["gptq v2"][0]
    plain = write_model(
        tmp_path, config_json(**WIDE), layout, lambda r, c, seed: twin(r, c, 64, False, seed=seed), None
    )
    (tmp_path / "quantize_config.json").write_text(json.dumps({"checkpoint_format": "gptq_v2", "group_size": 64}))
    rows = open_folder(tmp_path).arrays["layers.1.down"]
    np.testing.assert_array_equal(rows.values(0, 128), plain["model.layers.1.mlp.down_proj.weight"])
    (tmp_path / "quantize_config.json").write_text("[]")
    with pytest.raises(BadCheckpoint, match=r"quantize_config\.json is not an object"):
        open_folder(tmp_path)


def test_a_matrix_whose_tensors_lie_in_several_shards(tmp_path):
    want = write_model(tmp_path, config_json(**WIDE), quantised_twins.gptq, lambda r, c, s: twin(r, c, seed=s), GPTQ)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    shards = {name: f"model-0000{i % 3 + 1}-of-00003.safetensors" for i, name in enumerate(tensors)}
    for shard in set(shards.values()):
        write_safetensors(tmp_path / shard, {name: array for name, array in tensors.items() if shards[name] == shard})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    arrays = open_folder(tmp_path).arrays
    for n in (0, 1):
        plain = want[f"model.layers.{n}.self_attn.o_proj.weight"]
        np.testing.assert_array_equal(arrays[f"layers.{n}.o"].values(0, 128), plain)


@pytest.mark.parametrize("prefix", ["base_model.model.", "_orig_mod."])
def test_prefixes_of_packed_tensors_are_left_out_as_well(tmp_path, prefix):
    want = write_model(tmp_path, config_json(**WIDE), quantised_twins.awq, lambda r, c, s: twin(r, c, seed=s), AWQ)
    tensors = {prefix + name: array for name, array in load_file(tmp_path / "model.safetensors").items()}
    write_safetensors(tmp_path / "model.safetensors", tensors)
    rows = open_folder(tmp_path).arrays["layers.1.down"]
    np.testing.assert_array_equal(rows.values(0, 128), want["model.layers.1.mlp.down_proj.weight"])


def test_a_quantised_head_beside_a_tied_table_is_kept(tmp_path, caplog):
    write_model(tmp_path, config_json(**WIDE), quantised_twins.gptq, lambda r, c, s: twin(r, c, seed=s), GPTQ)
    tensors = load_file(tmp_path / "model.safetensors")
    head = twin(320, 128, 64)
    tensors |= {f"lm_head.{word}": array for word, array in quantised_twins.gptq(head).items()}
    write_safetensors(tmp_path / "model.safetensors", tensors)
    opened = open_folder(tmp_path)
    assert not opened.config.tie_word_embeddings and len(caplog.records) == 1
    assert opened.arrays["head"].format is not None
    np.testing.assert_array_equal(opened.arrays["head"].values(0, 320), head.values)


def test_matrices_left_in_16_bits_go_by_the_recipe(tmp_path):
    write_model(tmp_path, config_json(**WIDE), quantised_twins.awq, lambda r, c, seed: twin(r, c, seed=seed), AWQ)
    arrays = open_folder(tmp_path).arrays
    assert isinstance(arrays["layers.0.o"].parts[0], QuantisedRows) and arrays["embed"].format is None


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_zero_biases_of_early_gptq_are_passed_over(tmp_path, value):
    def biased(t: quantised_twins.Twin) -> dict[str, np.ndarray]:
        return quantised_twins.gptq(t) | {"bias": np.full(t.q.shape[0], value, np.float16)}

    write_model(tmp_path, config_json(**WIDE), biased, lambda r, c, seed: twin(r, c, seed=seed), GPTQ)
    if value == 0:
        assert open_folder(tmp_path).config.num_layers == 2
        return
    with pytest.raises(BadCheckpoint, match=r"model\.layers\.0\.self_attn\.\w+\.bias is not zero"):
        open_folder(tmp_path)


def test_a_shape_that_the_config_does_not_ask_for_is_told_with_the_others(tmp_path):
    write_model(tmp_path, config_json(**WIDE), quantised_twins.awq, lambda r, c, seed: twin(r, c, seed=seed), AWQ)
    (tmp_path / "config.json").write_text(json.dumps(config_json(**WIDE | {"intermediate_size": 224})))
    with pytest.raises(BadCheckpoint, match=r"4 of another shape \(.*gate_up_proj\.weight \[384, 128\] instead of"):
        open_folder(tmp_path)


def test_scales_for_activations_are_said_not_to_be_used(tmp_path, caplog):
    def static(t: quantised_twins.Twin) -> dict[str, np.ndarray]:
        return quantised_twins.int_quantized(t) | {"input_scale": np.ones(1, np.float32)}

    write_model(tmp_path, config_json(**WIDE), static, lambda r, c, seed: twin(r, c, 0, bits=8, seed=seed), CT4)
    assert open_folder(tmp_path).config.num_layers == 2
    assert len(caplog.records) == 1 and "scales for quantised activations are not used" in caplog.text


O_PROJ = "model.layers.0.self_attn.o_proj"
BYTES, ONES = np.zeros((64, 32), np.uint8), np.ones(64, np.float32)
STATE = np.zeros(9, np.uint8)
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}
OTHER_KINDS: dict[str, tuple[dict[str, np.ndarray], Any, str]] = {  # tensors in place of o_proj.weight, config, told
    "nf4": ({"weight": BYTES, "weight.absmax": ONES, "weight.quant_state.bitsandbytes__nf4": STATE}, BNB, r"\(nf4\)"),
    "nf4, no config": ({"weight": BYTES, "weight.quant_state.bitsandbytes__nf4": STATE}, None, r"bitsandbytes \(nf4\)"),
    "fp4": ({"weight": BYTES, "weight.quant_state.bitsandbytes__fp4": STATE}, BNB, r"bitsandbytes \(fp4\)"),
    "bnb int8": ({"weight": np.zeros((64, 64), np.int8), "SCB": ONES}, None, r"bitsandbytes \(8 bit\)"),
    "ModelOpt": ({"weight": BYTES, "weight_scale_2": ONES}, None, "ModelOpt"),
    "nvfp4": ({"weight_packed": BYTES, "weight_global_scale": ONES}, None, "nvfp4"),
    "HQQ": ({"W_q": BYTES}, {"quant_method": "hqq"}, "HQQ"),
    "half a GPTQ": ({"qweight": np.zeros((8, 64), np.int32)}, GPTQ, "qzeros or scales are missing"),
    "half a pack-quantized": ({"weight_packed": np.zeros((64, 8), np.int32)}, CT4, "weight_shape is missing"),
    "one without a name here": ({"weight": BYTES}, {"quant_method": "quanto"}, "quanto"),
    "GPTQ of another form": ({}, GPTQ | {"checkpoint_format": "marlin"}, "checkpoint_format 'marlin' is not read"),
    "a config that is none": ({}, [1], "must be an object or null"),
}


@pytest.mark.parametrize("what", sorted(OTHER_KINDS))
def test_CK16_other_quantisations_are_named(tmp_path, what):
    changed, said, told = OTHER_KINDS[what]
    tensors = random_tensors(Config.from_json(config_json()))
    if changed:
        del tensors[f"{O_PROJ}.weight"]
    tensors |= {f"{O_PROJ}.{word}": array for word, array in changed.items()}
    write_folder(tmp_path, config_json(quantization_config=said), tensors)
    with pytest.raises(BadCheckpoint, match=told) as caught:
        open_folder(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_CK16_fp8_is_named(tmp_path, dtype):
    folder = small_folder(tmp_path)
    tensors = random_tensors(Config.from_json(config_json())) | {f"{O_PROJ}.weight": np.zeros((64, 64), np.uint8)}
    write_safetensors(folder / "model.safetensors", tensors, called={f"{O_PROJ}.weight": dtype})
    with pytest.raises(BadCheckpoint, match="quantised by fp8, which is not read; use the 16-bit checkpoint"):
        open_folder(folder)


@pytest.mark.parametrize("version", ["gemv", "gemv_fast", "marlin"])
def test_CK16_other_versions_of_awq_are_named(tmp_path, version):
    told = AWQ | {"version": version}
    write_model(tmp_path, config_json(**WIDE), quantised_twins.awq, lambda r, c, s: twin(r, c, seed=s), told)
    with pytest.raises(BadCheckpoint, match=f"AWQ's version '{version}' is not read, only gemm is"):
        open_folder(tmp_path)


LEFT_OVER = [
    {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    {"quant_method": "bitsandbytes", "load_in_8bit": True},
    {"_load_in_4bit": True, "quant_method": "bitsandbytes", "llm_int8_skip_modules": None},
    {"quant_method": "fp8"},
    {"quant_method": "torchao"},
    {"quant_method": "hqq"},
    {"load_in_4bit": True},
    CT4,
    AWQ,
    GPTQ,
]


@pytest.mark.parametrize("said", LEFT_OVER, ids=range(len(LEFT_OVER)))
def test_CK6_a_quantisation_config_left_in_a_16_bit_merge_is_ignored_with_one_line(tmp_path, said, caplog):
    tensors = random_tensors(Config.from_json(config_json()), dtype=np.float16)
    arrays = open_folder(write_folder(tmp_path, config_json(quantization_config=said), tensors)).arrays
    assert len(caplog.records) == 1 and "quantization_config" in caplog.text and "is ignored" in caplog.text
    np.testing.assert_array_equal(arrays["layers.0.o"].values(0, 64), tensors[f"{O_PROJ}.weight"].astype(np.float32))


def test_an_empty_quantisation_config_is_none(tmp_path, caplog):
    for nothing in ({}, None):
        assert open_folder(small_folder(tmp_path, quantization_config=nothing)).arrays
    assert not caplog.records
