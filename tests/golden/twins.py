"""Reads the golden twins: a checkpoint folder into plain float32 arrays, independent of the weights room."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from phi4mini.model.config import Config

HERE = Path(__file__).parent
NAMES = ("phi3_longrope", "phi3_untied", "phi3_window", "llama")


def golden(name: str) -> dict:
    """What transformers answered: `ids`, `lengths`, `answers`, and `logits` by f32_<length> and f64_<length>."""
    folder = HERE / name
    with np.load(folder / "logits.npz") as rows:
        logits = {key: rows[key] for key in rows.files}
    return json.loads((folder / "golden.json").read_text()) | {"logits": logits}


def config_of(folder: Path) -> Config:
    """The Config of a checkpoint folder."""
    return Config.from_json(
        json.loads((folder / "config.json").read_text()), json.loads((folder / "generation_config.json").read_text())
    )


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of one safetensors file as float32; reads F32 and BF16."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    out = {}
    for name, entry in json.loads(raw[8:start]).items():
        if name == "__metadata__":
            continue
        begin, end = (start + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw[begin:end], "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw[begin:end], {"F32": "<f4"}[entry["dtype"]])
        out[name] = values.reshape(entry["shape"])
    return out


def fuse(tensors: dict[str, np.ndarray], config: Config) -> SimpleNamespace:
    """Hugging Face's names -> the shape of `Weights`, with float32 arrays in place of matrices."""
    layers = [_layer({k.split(".", 3)[3]: v for k, v in tensors.items() if k.startswith(f"model.layers.{i}.")})
              for i in range(config.num_layers)]  # fmt: skip
    embed = tensors["model.embed_tokens.weight"]
    head = embed if config.tie_word_embeddings else tensors["lm_head.weight"]
    return SimpleNamespace(config=config, embed=embed, layers=layers, norm=tensors["model.norm.weight"], head=head)


def _layer(t: dict[str, np.ndarray]) -> SimpleNamespace:
    if "self_attn.qkv_proj.weight" in t:
        qkv, gate_up = t["self_attn.qkv_proj.weight"], t["mlp.gate_up_proj.weight"]
    else:
        qkv = np.concatenate([t[f"self_attn.{part}_proj.weight"] for part in "qkv"])
        gate_up = np.concatenate([t[f"mlp.{part}_proj.weight"] for part in ("gate", "up")])
    return SimpleNamespace(
        input_norm=t["input_layernorm.weight"],
        qkv=qkv,
        o=t["self_attn.o_proj.weight"],
        post_norm=t["post_attention_layernorm.weight"],
        gate_up=gate_up,
        down=t["mlp.down_proj.weight"],
    )


def twin(name: str) -> SimpleNamespace:
    """A golden twin's weights, ready for `phi4mini.model.reference`."""
    folder = HERE / name
    return fuse(arrays(folder / "model.safetensors"), config_of(folder))
