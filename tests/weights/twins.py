"""Small checkpoints for the tests of this room: a folder as Hugging Face has it, and the same model as a GGUF."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import save_file

from phi4mini.model.config import Config
from phi4mini.weights.checkpoints import tensor_names

GOLDEN = Path(__file__).parents[1] / "golden"
TOKENIZER = GOLDEN / "llama"  # a byte-level BPE of 320 ids
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def config_json(family: str = "Phi3", **changes: Any) -> dict[str, Any]:
    """A config.json of a tiny model; `changes` win."""
    return {
        "architectures": [f"{family}ForCausalLM"],
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "bos_token_id": 317,
        "eos_token_id": 319,
    } | changes


def random_tensors(config: Config, seed: int = 0, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Every tensor of a Hugging Face checkpoint, random."""
    rng = np.random.default_rng(seed)
    return {
        part.name: (rng.standard_normal(part.shape) * 0.05).astype(dtype)
        for some in tensor_names.parts(config, "hf").values()
        for part in some
    }


def write_folder(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray] | None = None, shards: int = 1
) -> Path:
    """A checkpoint folder; with `shards` > 1 the tensors are dealt out and an index says where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder / name)
    tensors = random_tensors(Config.from_json(config)) if tensors is None else tensors
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors")
        return folder
    files = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    weight_map = {name: files[i % shards] for i, name in enumerate(tensors)}
    for file in files:
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def small_folder(folder: Path, family: str = "Phi3", shards: int = 1, **changes: Any) -> Path:
    """A whole random checkpoint in one call."""
    return write_folder(folder, config_json(family, **changes), shards=shards)


# ---- GGUF


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """What llama's conversion does to q and k (convert_hf_to_gguf.py, LlamaModel.permute)."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


HALVES = {  # bytes of a block at which its f16 scales lie, where they are not 0 and 2
    "Q8_0": [0], "Q4_0": [0], "Q5_0": [0], "IQ4_NL": [0], "IQ4_XS": [0],
    "Q6_K": [208], "Q3_K": [108], "Q2_K": [80, 82],
}  # fmt: skip


def random_blocks(kind: str, rows: int, cols: int, seed: int = 0) -> np.ndarray:
    """Random rows of a GGUF type as bytes: every integer may be anything, scales are finite."""
    rng = np.random.default_rng(seed)
    weights, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    raw = rng.integers(0, 256, (rows, cols // weights, nbytes), np.uint8)
    for at in HALVES.get(kind, [0, 2]):
        half = (rng.standard_normal((rows, cols // weights, 1)) * 0.01).astype(np.float16)
        raw[:, :, at : at + 2] = half.view(np.uint8)
    return raw.reshape(rows, -1)


def write_gguf(
    path: Path,
    config: Config,
    kinds: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    extra: Iterable[tuple[str, np.ndarray]] = (),
    leave_out: Iterable[str] = (),
    default: str = "F32",
    split: int = 0,
) -> dict[str, np.ndarray]:
    """A GGUF of random weights by the `gguf` package; returns the float32 values it holds, by GGUF name.

    kinds: word of a tensor's name (attn_v, ffn_down, ...) -> type; metadata: keys to add or, with None, to leave out;
    split: tensors of a part, where the file is to be in parts.
    """
    writer = gguf.GGUFWriter(path, config.architecture, split_max_tensors=split)
    for key, value in (_metadata(config) | dict(metadata or {})).items():
        if value is not None:
            _add(writer, key, value)
    values: dict[str, np.ndarray] = {}
    arrays = tensor_names.parts(config, "gguf").values()
    parts = [part for some in arrays for part in some if part.name not in leave_out]
    for i, part in enumerate(parts):
        kind = "F32" if len(part.shape) == 1 else (kinds or {}).get(part.name.split(".")[-2], default)
        values[part.name] = _add_tensor(writer, part.name, part.shape, kind, seed=i)
    for name, array in extra:
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def _add_tensor(writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], kind: str, seed: int) -> np.ndarray:
    what = gguf.GGMLQuantizationType[kind]
    if kind in ("F32", "F16", "BF16"):
        values = (np.random.default_rng(seed).standard_normal(shape) * 0.05).astype(np.float32)
        raw = gguf.quants.quantize(values, what)
    else:
        raw = random_blocks(kind, *shape, seed=seed)
    writer.add_tensor(name, raw, raw_dtype=what)
    return gguf.quants.dequantize(raw, what).reshape(shape)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    else:
        {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32, bool: writer.add_bool}[type(value)](
            key, value
        )


def _metadata(config: Config) -> dict[str, Any]:
    arch = config.architecture
    tree = json.loads((TOKENIZER / "tokenizer.json").read_text())
    vocabulary = tree["model"]["vocab"] | {token["content"]: token["id"] for token in tree["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tree["model"]["merges"]]
    return {
        f"{arch}.block_count": config.num_layers,
        f"{arch}.context_length": config.max_position_embeddings,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": config.num_heads,
        f"{arch}.attention.head_count_kv": config.num_kv_heads,
        f"{arch}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{arch}.rope.freq_base": config.rope_theta,
        f"{arch}.rope.dimension_count": config.rotary_dim,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if i >= 317 else 1 for i in range(len(tokens))],
        "tokenizer.ggml.merges": merges or ["a b"],
        "tokenizer.ggml.eos_token_id": 319,
        "tokenizer.ggml.bos_token_id": 317,
    }
