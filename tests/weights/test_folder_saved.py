"""Folders as training programs leave them: adapters, prefixes, heads, joined matrices; read, or named in the error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from phi4mini.errors import BadCheckpoint
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints import tensor_names
from phi4mini.weights.checkpoints.folder import open_folder
from phi4mini.weights.checkpoints.safetensors import FloatRows
from phi4mini.weights.store.convert import convert
from phi4mini.weights.store.store import open_store
from tests.weights.checkpoints.test_folder import refused
from tests.weights.twins import config_json, random_tensors, small_folder, write_folder

ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "microsoft/Phi-4-mini-instruct", "r": 4}


def add_adapter(folder: Path, said: dict | None = ADAPTER, weights: str = "adapter_model.safetensors") -> None:
    lora = {
        f"base_model.model.model.layers.0.self_attn.o_proj.lora_{x}.weight": np.ones((4, 4), np.float32) for x in "AB"
    }
    save_file(lora, folder / weights)
    if said is not None:
        (folder / "adapter_config.json").write_text(json.dumps(said))


@pytest.mark.parametrize("config", [True, False])
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (ADAPTER, "a LORA adapter of 'microsoft/Phi-4-mini-instruct', not a whole model"),
        (ADAPTER | {"peft_type": "IA3"}, "a IA3 adapter of 'microsoft/Phi-4-mini-instruct'"),
        (ADAPTER | {"base_model_name_or_path": "../base"}, r"adapter of '\.\./base'"),
        (ADAPTER | {"base_model_name_or_path": None}, "a LORA adapter, not a whole model"),
        ({}, "an? adapter, not a whole model"),
        (None, "an? adapter, not a whole model"),
    ],
)
def test_CK1_an_adapter_folder_without_its_base_is_named(tmp_path, config, said, told):
    folder = small_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    if not config:
        (folder / "config.json").unlink()
    add_adapter(folder, said)
    assert "merge it into its base (peft: merge_and_unload, then save_pretrained)" in refused(folder, told)


def test_CK1_an_adapter_in_a_pickle_is_named_as_one(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(ADAPTER))
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    refused(tmp_path, "this is a LORA adapter of 'microsoft/Phi-4-mini-instruct'")
    (tmp_path / "adapter_config.json").write_text("[]")
    refused(tmp_path, r"adapter_config\.json is not an object")


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("said", [ADAPTER, ADAPTER | {"base_model_name_or_path": ""}, {}, None])
def test_CK2_an_adapter_beside_full_weights_is_said_not_to_be_applied(tmp_path, caplog, shards, said):
    tensors = random_tensors(Config.from_json(config_json()))
    folder = write_folder(tmp_path, config_json(), tensors, shards)
    add_adapter(folder, said)
    rows = open_folder(folder).arrays["layers.0.o"]
    np.testing.assert_array_equal(rows.values(0, 64), tensors["model.layers.0.self_attn.o_proj.weight"])
    assert len(caplog.records) == 1 and "beside the full weights is not applied" in caplog.text
    if said == ADAPTER:
        assert "LORA adapter of 'microsoft/Phi-4-mini-instruct'" in caplog.text


def test_CK2_weights_of_another_name_beside_an_adapter_are_the_weights(tmp_path, caplog):
    folder = small_folder(tmp_path)
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    add_adapter(folder)
    assert open_folder(folder).config.num_layers == 2 and "is not applied" in caplog.text


@pytest.mark.parametrize("family", ["Phi3", "Llama"])
@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "base_model.model.", "model.", "_orig_mod.module.", "language_model."]
)
def test_CK4_a_folder_of_prefixed_names_is_the_plain_one(tmp_path, family, prefix, caplog):
    tensors = random_tensors(Config.from_json(config_json(family)))
    saved = {prefix + name: array for name, array in tensors.items()}
    arrays = open_folder(write_folder(tmp_path, config_json(family), saved, shards=2)).arrays
    assert len(caplog.records) == 1 and "read without their wrapping" in caplog.text
    for ours, parts in tensor_names.parts(Config.from_json(config_json(family)), "hf").items():
        joined = np.concatenate([np.atleast_2d(tensors[part.name]) for part in parts])
        np.testing.assert_array_equal(arrays[ours].values(0, arrays[ours].rows), joined)


def test_CK4_a_backbone_alone_is_read_if_it_is_tied(tmp_path):
    for tied in (True, False):
        said = config_json(architectures=["Phi3Model"], model_type="phi3", tie_word_embeddings=tied)
        tensors = random_tensors(Config.from_json(said))
        tensors.pop("lm_head.weight", None)
        saved = {name.removeprefix("model."): array for name, array in tensors.items()}
        folder = write_folder(tmp_path / str(tied), said, saved)
        if tied:
            assert open_folder(folder).config.tie_word_embeddings
        else:
            refused(folder, r"1 missing \(lm_head\.weight\)")


@pytest.mark.parametrize("family", ["Phi3", "Llama"])
@pytest.mark.parametrize("which", ["both", "qkv", "gate_up"])
def test_CK9_matrices_joined_or_apart_in_the_other_familys_way_are_read(tmp_path, family, which):
    tensors = random_tensors(Config.from_json(config_json(family)))
    want = open_folder(write_folder(tmp_path / "plain", config_json(family), tensors)).arrays
    for n in range(2):
        for kind, words, cuts in (("qkv", ("q", "k", "v"), [64, 96]), ("gate_up", ("gate", "up"), [96])):
            if which not in ("both", kind):
                continue
            at = f"model.layers.{n}.{'self_attn' if kind == 'qkv' else 'mlp'}"
            apart = [f"{at}.{word}_proj.weight" for word in words]
            if family == "Phi3":
                pieces = np.split(tensors.pop(f"{at}.{kind}_proj.weight"), cuts)
                tensors |= {name: piece.copy() for name, piece in zip(apart, pieces, strict=True)}
            else:
                tensors[f"{at}.{kind}_proj.weight"] = np.concatenate([tensors.pop(name) for name in apart])
    arrays = open_folder(write_folder(tmp_path / "other", config_json(family), tensors)).arrays
    for ours, rows in want.items():
        np.testing.assert_array_equal(arrays[ours].values(0, rows.rows), rows.values(0, rows.rows))


def test_CK10_tensors_of_several_dtypes_are_each_read_as_they_are(tmp_path):
    tensors = random_tensors(Config.from_json(config_json()))
    for i, name in enumerate(tensors):
        tensors[name] = tensors[name].astype(np.float16 if i % 2 else np.float32)
    arrays = open_folder(write_folder(tmp_path, config_json(torch_dtype="bfloat16", dtype="float16"), tensors)).arrays
    for name in ("model.layers.0.self_attn.o_proj.weight", "model.layers.0.mlp.down_proj.weight"):
        ours, _ = tensor_names.inverse(Config.from_json(config_json()), "hf")[name]
        np.testing.assert_array_equal(arrays[ours].values(0, 64), tensors[name].astype(np.float32))


def test_CK10_half_floats_that_overflowed_are_named(tmp_path):
    tensors = random_tensors(Config.from_json(config_json()), dtype=np.float16)
    tensors["model.layers.1.mlp.down_proj.weight"][5, 6] = np.inf
    opened = open_folder(write_folder(tmp_path / "m", config_json(), tensors))
    with pytest.raises(BadCheckpoint, match=r"layers\.1\.down, rows 0 to 63: the weights hold NaN or infinity"):
        convert(opened, "q4", tmp_path / "m.phi4")


def test_CK10_integers_where_floats_belong_are_named(tmp_path):
    tensors = random_tensors(Config.from_json(config_json()))
    tensors["model.norm.weight"] = np.ones(64, np.int64)
    refused(
        write_folder(tmp_path, config_json(), tensors), "'model.norm.weight' has dtype I64; F32, F16, BF16 can be read"
    )


def test_CK3_an_unmerged_adapter_inside_a_full_save_is_named(tmp_path):
    tensors = random_tensors(Config.from_json(config_json()))
    base = "model.layers.0.self_attn.o_proj"
    tensors[f"{base}.base_layer.weight"] = tensors.pop(f"{base}.weight")
    tensors |= {f"{base}.lora_{x}.default.weight": np.ones((4, 64), np.float32) for x in "AB"}
    refused(write_folder(tmp_path, config_json(), tensors), "belongs to an adapter that is not merged")


@pytest.mark.parametrize("rows", [[0], [319], [7, 200], list(range(320))])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_CK7_a_head_trained_apart_from_a_tied_config_is_kept_with_one_line(tmp_path, caplog, rows, dtype):
    tensors = random_tensors(Config.from_json(config_json()), dtype=dtype)
    head = tensors["model.embed_tokens.weight"].copy()
    head[rows, 63] += dtype(1)
    opened = open_folder(write_folder(tmp_path / "m", config_json(), tensors | {"lm_head.weight": head}))
    assert not opened.config.tie_word_embeddings
    np.testing.assert_array_equal(opened.arrays["head"].values(0, 320), head.astype(np.float32))
    told = "tie_word_embeddings is true but lm_head.weight is another matrix; it is kept as the head"
    assert len(caplog.records) == 1 and told in caplog.text
    convert(opened, "f32", tmp_path / "m.phi4")
    ours = open_store(tmp_path / "m.phi4").weights
    assert ours.head is not ours.embed
    np.testing.assert_array_equal(ours.head.dequantize(), head.astype(np.float32))


@pytest.mark.parametrize("mixed", [False, True])
def test_CK7_a_head_equal_to_the_table_is_shared_without_a_line(tmp_path, caplog, mixed):
    tensors = random_tensors(Config.from_json(config_json()), dtype=np.float16)
    head = tensors["model.embed_tokens.weight"].copy()
    tensors["lm_head.weight"] = head.astype(np.float32) if mixed else head
    opened = open_folder(write_folder(tmp_path, config_json(), tensors))
    assert opened.config.tie_word_embeddings and "head" not in opened.arrays and not caplog.records


def test_CK7_heads_are_compared_a_few_rows_at_a_time(tmp_path, monkeypatch):
    tensors = random_tensors(Config.from_json(config_json(vocab_size=5000, hidden_size=512)))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    read: list[int] = []
    values = FloatRows.values
    monkeypatch.setattr(FloatRows, "values", lambda self, a, b: read.append((b - a) * self.cols) or values(self, a, b))
    open_folder(write_folder(tmp_path, config_json(vocab_size=5000, hidden_size=512), tensors))
    assert sum(read) == 2 * 5000 * 512 and max(read) <= 1 << 20


def test_CK7_a_head_of_another_shape_is_told_with_the_others(tmp_path):
    tensors = random_tensors(Config.from_json(config_json())) | {"lm_head.weight": np.zeros((300, 64), np.float32)}
    refused(
        write_folder(tmp_path, config_json(), tensors), r"1 of another shape \(lm_head\.weight \[300, 64\] instead of"
    )
