"""Model folders: what is read, what is refused, and that nothing outside the folder is touched."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from phi4mini.errors import BadCheckpoint, NotFound
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints import tensor_names
from phi4mini.weights.checkpoints.folder import INDEX, open_folder
from phi4mini.weights.store.convert import convert
from phi4mini.weights.store.store import open_store
from tests.golden import twins as golden
from tests.weights.twins import CHATML, config_json, random_tensors, small_folder, write_folder


@pytest.mark.parametrize("name", golden.NAMES)
def test_the_twins_of_transformers_are_read_exactly(tmp_path, name):
    folder = golden.HERE / name
    convert(open_folder(folder), "f32", tmp_path / "m.phi4")
    ours = open_store(tmp_path / "m.phi4", verify=True).weights
    theirs = golden.fuse(golden.arrays(folder / "model.safetensors"), golden.config_of(folder))
    np.testing.assert_array_equal(ours.embed.dequantize(), theirs.embed)
    np.testing.assert_array_equal(ours.head.dequantize(), theirs.head)
    np.testing.assert_array_equal(ours.norm, theirs.norm)
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        for field in tensor_names.LAYER_ARRAYS:
            array = getattr(mine, field)
            array = array if isinstance(array, np.ndarray) else array.dequantize()
            np.testing.assert_array_equal(array, getattr(other, field), err_msg=field)


def test_shards_hold_what_one_file_holds(tmp_path):
    tensors = random_tensors(Config.from_json(config_json("Llama")))
    one = open_folder(write_folder(tmp_path / "one", config_json("Llama"), tensors))
    three = open_folder(write_folder(tmp_path / "three", config_json("Llama"), tensors, shards=3))
    for name, rows in one.arrays.items():
        np.testing.assert_array_equal(rows.values(0, rows.rows), three.arrays[name].values(0, rows.rows))


def test_a_lone_file_of_another_name_is_read(tmp_path):
    folder = small_folder(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert open_folder(folder).config.num_layers == 2


def test_the_chat_template_names_the_format(tmp_path):
    folder = small_folder(tmp_path / "m")
    assert open_folder(folder).chat_format == "none"
    tree = json.loads((folder / "tokenizer.json").read_text())
    for token, content in zip(tree["added_tokens"], ["<|im_start|>", "<|im_end|>", "<|endoftext|>"], strict=True):
        token["content"] = content
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHATML}))
    opened = open_folder(folder)
    assert opened.chat_format == "chatml" and "read, not run, it writes chatml" in opened.chat.note
    assert opened.config.eos_token_ids == (318, 319), "the turn's end stops although the config does not name it"


def test_a_phi4_checkpoint_without_tokenizer_gets_the_shipped_one(tmp_path):
    folder = small_folder(tmp_path / "m", vocab_size=200064, hidden_size=8, eos_token_id=199999, bos_token_id=199999)
    (folder / "tokenizer.json").unlink()
    opened = open_folder(folder)
    assert opened.tokenizer.is_phi4 and opened.chat_format == "phi"
    assert opened.config.eos_token_ids == (200020, 199999)


def test_old_rotary_tables_are_passed_over(tmp_path):
    tensors = random_tensors(Config.from_json(config_json("Llama")))
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    assert "embed" in open_folder(write_folder(tmp_path, config_json("Llama"), tensors)).arrays


# ---- what must be refused (rows A of the table of faults)


def refused(folder: Path, told: str, kind: type[Exception] = BadCheckpoint) -> str:
    with pytest.raises(kind, match=told) as caught:
        open_folder(folder)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    return message


def test_A1_a_truncated_shard_is_named_with_both_sizes(tmp_path):
    folder = small_folder(tmp_path / "m", shards=2)
    shard = folder / "model-00002-of-00002.safetensors"
    size = shard.stat().st_size
    os.truncate(shard, size - 1000)
    message = refused(folder, "truncated")
    assert shard.name in message and f"{size} bytes expected, the file has {size - 1000}" in message


def test_A4_all_differences_are_told_in_one_line(tmp_path):
    tensors = random_tensors(Config.from_json(config_json()))
    del tensors["model.norm.weight"], tensors["model.layers.1.mlp.down_proj.weight"]
    tensors["model.layers.0.self_attn.qkv_proj.bias"] = np.zeros(4, np.float32)
    tensors["model.layers.0.input_layernorm.weight"] = np.zeros(32, np.float32)
    message = refused(write_folder(tmp_path / "m", config_json(), tensors), "do not fit the config")
    assert "2 missing (model.layers.1.mlp.down_proj.weight, model.norm.weight)" in message
    assert "1 unexpected (model.layers.0.self_attn.qkv_proj.bias)" in message
    assert "1 of another shape (model.layers.0.input_layernorm.weight [32] instead of [64])" in message


def test_A4_many_differences_are_counted_and_cut(tmp_path):
    folder = small_folder(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(config_json(num_hidden_layers=200)))
    message = refused(folder, "1188 missing .* and 1182 more")
    assert len(message) < 1000


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (dict(num_hidden_layers=10**9), "num_hidden_layers"),
        (dict(num_attention_heads=-4), "num_attention_heads"),
        (dict(vocab_size=1 << 40), "vocab_size"),
        (dict(vocab_size=100), "tokenizer|eos_token_id"),
        (dict(architectures=["GPT2LMHeadModel"]), "GPT2LMHeadModel"),
        (dict(rope_scaling={"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}), "short_factor"),
    ],
)
def test_A5_a_lying_config_is_refused(tmp_path, changes, told):
    folder = small_folder(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(config_json() | changes))
    refused(folder, told)


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "a/../../outside.safetensors", "a\0b"])
def test_A6_an_index_that_points_outside_is_refused(tmp_path, shard):
    folder = small_folder(tmp_path / "m", shards=2)
    shutil.copy(folder / "model-00001-of-00002.safetensors", tmp_path / "outside.safetensors")
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = shard
    (folder / INDEX).write_text(json.dumps(index))
    refused(folder, "lies outside the folder")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_A6_a_link_out_of_the_folder_is_refused(tmp_path, name):
    folder = small_folder(tmp_path / "m")
    shutil.move(folder / name, tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    refused(folder, "is a link out of the folder")


def test_A6_a_linked_folder_around_the_shard_is_refused(tmp_path):
    folder = small_folder(tmp_path / "m", shards=2)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(folder / "model-00001-of-00002.safetensors", tmp_path / "elsewhere" / "x.safetensors")
    (folder / "in").symlink_to(tmp_path / "elsewhere")
    index = (folder / INDEX).read_text().replace("model-00001-of-00002.safetensors", "in/x.safetensors")
    (folder / INDEX).write_text(index)
    refused(folder, "is a link out of the folder")


def test_the_hubs_own_links_to_blobs_are_followed(tmp_path):
    repo = tmp_path / "models--a--b"
    folder = small_folder(repo / "snapshots" / "0123abc")
    (repo / "blobs").mkdir()
    for i, path in enumerate(sorted(folder.iterdir())):
        shutil.move(path, repo / "blobs" / f"{i}")
        path.symlink_to(f"../../blobs/{i}")
    assert open_folder(folder).config.num_layers == 2
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("../../../secret")
    (tmp_path / "secret").write_text("{}")
    refused(folder, "is a link out of the folder")


def test_A6_a_missing_shard_is_named(tmp_path):
    folder = small_folder(tmp_path / "m", shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, "model-00002-of-00002.safetensors' .* is missing", NotFound)


@pytest.mark.parametrize("index", [[], {}, {"weight_map": []}, {"weight_map": {"a": 5}}, {"weight_map": {}}])
def test_A6_a_nonsense_index_is_refused(tmp_path, index):
    folder = small_folder(tmp_path / "m", shards=2)
    (folder / INDEX).write_text(json.dumps(index))
    refused(folder, "weight_map|missing")


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    folder = small_folder(tmp_path / "m", shards=2)
    tensors = random_tensors(Config.from_json(config_json()))
    for i in (1, 2):
        save_file(tensors, folder / f"model-0000{i}-of-00002.safetensors")
    refused(folder, "is in model-00001-of-00002.safetensors and in model-00002-of-00002.safetensors")


class Canary:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_A7_a_pickle_checkpoint_is_refused_and_not_run(tmp_path, name):
    folder = small_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Canary(tmp_path / "ran")))
    refused(folder, f"{name} is a pickle file, which can run code and is never opened")
    assert not (tmp_path / "ran").exists()


def test_A7_auto_map_code_is_not_run(tmp_path, monkeypatch):
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": "evil.Tok"}
    folder = small_folder(tmp_path / "m", auto_map=auto_map)
    (folder / "evil.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()")
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto_map, "eos_token": "<|endoftext|>"}))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    convert(open_folder(folder), "q4", tmp_path / "m.phi4")
    assert open_store(tmp_path / "m.phi4").tokenizer.encode("hi")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("config.json", b"{", "not JSON"),
        ("config.json", b"[1]", "must hold an object"),
        ("config.json", b"\xff\xfe", "not JSON"),
        ("config.json", b"[" * 200_000, "not JSON"),
        ("generation_config.json", b"[]", "must hold an object"),
        ("tokenizer_config.json", b"[]", "is not an object"),
        ("tokenizer.json", b"{}", "no model"),
        ("tokenizer.json", b"{" * 100_000, "not JSON"),
        ("tokenizer.json", b'{"model": {"type": "Unigram"}}', "Unigram"),
    ],
)
def test_A8_malformed_files_are_refused(tmp_path, name, data, told):
    folder = small_folder(tmp_path / "m")
    (folder / name).write_bytes(data)
    refused(folder, told)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "tokenizer_config.json"])
def test_A8_a_file_of_200_mb_is_refused_unread(tmp_path, name):
    folder = small_folder(tmp_path / "m")
    with open(folder / name, "wb") as file:
        file.truncate(200 << 20)  # sparse
    refused(folder, f"{name}: more than the limit")


def test_A8_a_tokenizer_larger_than_the_model_is_refused(tmp_path):
    folder = small_folder(tmp_path / "m", vocab_size=256, eos_token_id=1, bos_token_id=1)
    refused(folder, "tokenizer has 320 ids")


def test_missing_files_are_named(tmp_path):
    refused(tmp_path / "none", "no such folder", NotFound)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "config.json: no such file", NotFound)
    folder = small_folder(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    refused(folder, "tokenizer.json: no such file", NotFound)
    (folder / "model.safetensors").unlink()
    refused(folder, "no model.safetensors and no", NotFound)
