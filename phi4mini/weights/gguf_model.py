"""A model in a GGUF file (architectures phi3 and llama) -> `Checkpoint`.

Promises: metadata pass through the same checks as a config.json; quantised blocks stay what they are; the rows of q
and k that llama's conversion interleaved are put back in order. What a model would be computed wrongly with is
refused by name. Sources: llama.cpp's convert_hf_to_gguf.py and gguf-py's constants.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from phi4mini.config import Config
from phi4mini.config_json import short
from phi4mini.errors import BadCheckpoint
from phi4mini.formats import Blocks, Matrix, pack_blocks
from phi4mini.weights.checkpoint import Checkpoint, assemble, finish
from phi4mini.weights.gguf import GgufFile, Tensor
from phi4mini.weights.gguf_blocks import EXACT, decode
from phi4mini.weights.rows import Rows
from phi4mini.weights.safetensors import to_f32

_FACTORS = {"short_factor": "rope_factors_short.weight", "long_factor": "rope_factors_long.weight"}
_STOP_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


def open_gguf(path: Path) -> Checkpoint:
    """Open a GGUF model. Raises `NotFound` or `BadCheckpoint`; reads metadata and rope factors, no weights."""
    file = GgufFile(path)
    try:
        config = _with_stated_scale(Config.from_json(_config_json(file)), file)
        tokenizer = _tokenizer(file, config)
    except BadCheckpoint as error:
        message = str(error)
        raise BadCheckpoint(message if message.startswith(str(path)) else f"{path}: {message}") from error
    config, chat_format = finish(config, tokenizer, file.metadata.get("tokenizer.chat_template"), str(path))

    def part(ours: str, index: int, name: str) -> Rows:
        rows = GgufRows(file, file.tensors[name])
        if config.architecture != "llama" or not ours.endswith(".qkv") or index == 2:
            return rows
        return Reordered(rows, _interleaved((config.num_heads, config.num_kv_heads)[index], rows.rows))

    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    ignored = _FACTORS.values() if config.short_factor else ()
    arrays = assemble(str(path), config, "gguf", shapes, part, ignored)
    return Checkpoint(str(path), config, tokenizer, chat_format, arrays)


class GgufRows:
    """A matrix (a vector is one row) of any type in a GGUF file."""

    def __init__(self, file: GgufFile, tensor: Tensor) -> None:
        self.file, self.tensor = file, tensor
        self.rows, self.cols = tensor.nbytes // tensor.row_bytes, tensor.shape[-1]
        self.format = EXACT.get(tensor.type)

    def values(self, start: int, stop: int) -> np.ndarray:
        if self.format is None:
            raw = self.file.raw(self.tensor, start, stop)
            return to_f32(raw.reshape(-1), self.tensor.type).reshape(stop - start, self.cols)
        packed = pack_blocks(self.blocks(start, stop), self.format)
        return Matrix(self.format, stop - start, self.cols, packed).dequantize()

    def blocks(self, start: int, stop: int) -> Blocks:
        return decode(self.tensor.type, self.file.raw(self.tensor, start, stop))


class Reordered:
    """Rows in another order: row i is row order[i] of `inner`. Reads the span a range of rows comes from."""

    def __init__(self, inner: GgufRows, order: np.ndarray) -> None:
        self.inner, self.order = inner, order
        self.rows, self.cols, self.format = inner.rows, inner.cols, inner.format

    def values(self, start: int, stop: int) -> np.ndarray:
        low, high, picked = self._span(start, stop)
        return self.inner.values(low, high)[picked]

    def blocks(self, start: int, stop: int) -> Blocks:
        low, high, picked = self._span(start, stop)
        wide = self.inner.blocks(low, high)
        rest = [None if part is None else part[picked] for part in (wide.minimum, wide.d, wide.dmin)]
        return Blocks(wide.q[picked], wide.scale[picked], *rest)

    def _span(self, start: int, stop: int) -> tuple[int, int, np.ndarray]:
        wanted = self.order[start:stop]
        low = int(wanted.min())
        return low, int(wanted.max()) + 1, wanted - low


def _interleaved(heads: int, rows: int) -> np.ndarray:
    """Where llama's conversion put each row of q or k: half h, pair j of a head lies at 2 j + h."""
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def _config_json(file: GgufFile) -> dict[str, Any]:
    """The config.json this GGUF was made from, as far as its metadata tell."""
    meta = file.metadata
    arch = meta.get("general.architecture")
    if arch not in ("phi3", "llama"):
        raise BadCheckpoint(f"GGUF architecture {short(arch)} is not supported; phi3 and llama are")
    if meta.get("split.count", 1) not in (0, 1):
        raise BadCheckpoint(f"one of {short(meta['split.count'])} pieces of a split GGUF; join them first")

    def need(key: str) -> Any:
        if f"{arch}.{key}" not in meta:
            raise BadCheckpoint(f"the metadata key {arch}.{key} is missing")
        return meta[f"{arch}.{key}"]

    heads, hidden = need("attention.head_count"), need("embedding_length")
    config = {
        "architectures": ["Phi3ForCausalLM" if arch == "phi3" else "LlamaForCausalLM"],
        "vocab_size": _vocabulary(file),
        "hidden_size": hidden,
        "intermediate_size": need("feed_forward_length"),
        "num_hidden_layers": need("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": meta.get(f"{arch}.attention.head_count_kv", heads),
        "max_position_embeddings": need("context_length"),
        "rms_norm_eps": need("attention.layer_norm_rms_epsilon"),
        "rope_theta": meta.get(f"{arch}.rope.freq_base", 10000.0),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "sliding_window": meta.get(f"{arch}.attention.sliding_window") or None,
        "eos_token_id": [meta[k] for k in map("tokenizer.ggml.{}".format, _STOP_KEYS) if k in meta],
        "bos_token_id": meta.get("tokenizer.ggml.bos_token_id"),
        "pad_token_id": meta.get("tokenizer.ggml.padding_token_id"),
    }
    if arch == "llama":
        config["sliding_window"] = None
    head_dim = meta.get(f"{arch}.attention.key_length")
    if head_dim is not None:
        config["head_dim"] = head_dim
    elif type(hidden) is int and type(heads) is int and heads > 0 and hidden % heads == 0:
        head_dim = hidden // heads
    rotary = meta.get(f"{arch}.rope.dimension_count")
    if type(rotary) is int and type(head_dim) is int and head_dim > 0:
        config["partial_rotary_factor"] = rotary / head_dim
    return config | _rope_scaling(file, arch)


def _vocabulary(file: GgufFile) -> int:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise BadCheckpoint("the tensor token_embd.weight is missing")
    return embedding.shape[0]


def _rope_scaling(file: GgufFile, arch: str) -> dict[str, Any]:
    """LongRoPE from the factor tensors of a phi3 file; any other scaling is named, for `Config` to refuse."""
    meta = file.metadata
    kind = meta.get(f"{arch}.rope.scaling.type", "none")
    present = [name for name in _FACTORS.values() if name in file.tensors]
    if "rope_freqs.weight" in file.tensors:
        raise BadCheckpoint("rope_freqs.weight: the rope scaling of Llama 3.1 is not supported")
    if not present:
        return {} if kind == "none" else {"rope_scaling": {"type": kind}}
    if len(present) != 2 or arch != "phi3":
        raise BadCheckpoint(f"{present[0]} is the only rope factor tensor of a {arch} file; phi3 has two")
    original = f"{arch}.rope.scaling.original_context_length"
    scaling: dict[str, Any] = {"type": "longrope"}
    for key, name in _FACTORS.items():
        tensor = file.tensors[name]
        if tensor.type != "F32" or len(tensor.shape) != 1:
            raise BadCheckpoint(f"{name} is {tensor.type} {list(tensor.shape)}, not a list of F32")
        scaling[key] = [_plain(value) for value in GgufRows(file, tensor).values(0, 1)[0]]
    return {"rope_scaling": scaling, "original_max_position_embeddings": meta.get(original, 4096)}


def _with_stated_scale(config: Config, file: GgufFile) -> Config:
    """The file's own mscale, where it is another one than LongRoPE's formula gives (it states it in float32)."""
    stated = file.metadata.get("phi3.rope.scaling.attn_factor")
    if stated is None or config.short_factor is None:
        return config
    if isinstance(stated, float) and math.isclose(stated, config.rope_scale, rel_tol=1e-6):
        return config
    return replace(config, attention_factor=stated)


def _plain(value: Any) -> float:
    """A float32 as the shortest decimal that stands for it: 1.1183207 rather than 1.1183207035064697."""
    return float(str(np.float32(value)))


def _tokenizer(file: GgufFile, config: Config) -> Any:
    from phi4mini.tokenizer import Tokenizer

    prefix = "tokenizer.ggml."
    meta = {key.removeprefix(prefix): value for key, value in file.metadata.items() if key.startswith(prefix)}
    if meta.get("model") != "gpt2":
        raise BadCheckpoint(
            f"its tokenizer is of kind {short(meta.get('model'))}, only gpt2 (byte-level BPE) can be read from a GGUF; "
            f"use the safetensors checkpoint"
        )
    lists = [meta.get(key) for key in ("tokens", "merges")]
    for key, value in zip(("tokens", "merges"), lists, strict=True):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadCheckpoint(f"tokenizer.ggml.{key} is not a list of strings")
    if len(meta["tokens"]) > config.vocab_size:
        raise BadCheckpoint(f"the tokenizer has {len(meta['tokens'])} tokens, the model {config.vocab_size} rows")
    types = meta.get("token_type")
    return Tokenizer.from_bpe(
        meta["tokens"],
        meta["merges"],
        types if isinstance(types, list) and all(type(kind) is int for kind in types) else None,
        pre=None if meta.get("pre") is None else str(meta["pre"]),
        bos_id=config.bos_token_id,
        eos_ids=config.eos_token_ids,
        pad_id=config.pad_token_id,
        rows=config.vocab_size,
    )
