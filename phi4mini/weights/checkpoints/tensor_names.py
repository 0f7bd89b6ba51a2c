"""The names of tensors in checkpoints: one table for each family, from our names to theirs; the inverse is derived.

Promises: every array of `Weights` has one entry; a fused matrix lists its parts in the order of its rows. This file
does not know what is inside a tensor.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from phi4mini.model.config import Config

Dialect = Literal["hf", "gguf"]

# Ours -> theirs, {n} being the number of the layer. Rows of qkv: Q, K, V. Rows of gate_up: gate, up.
_HF_COMMON: dict[str, tuple[str, ...]] = {
    "embed": ("model.embed_tokens.weight",),
    "layers.{n}.input_norm": ("model.layers.{n}.input_layernorm.weight",),
    "layers.{n}.o": ("model.layers.{n}.self_attn.o_proj.weight",),
    "layers.{n}.post_norm": ("model.layers.{n}.post_attention_layernorm.weight",),
    "layers.{n}.down": ("model.layers.{n}.mlp.down_proj.weight",),
    "norm": ("model.norm.weight",),
    "head": ("lm_head.weight",),
}
_GGUF_COMMON: dict[str, tuple[str, ...]] = {
    "embed": ("token_embd.weight",),
    "layers.{n}.input_norm": ("blk.{n}.attn_norm.weight",),
    "layers.{n}.o": ("blk.{n}.attn_output.weight",),
    "layers.{n}.post_norm": ("blk.{n}.ffn_norm.weight",),
    "layers.{n}.down": ("blk.{n}.ffn_down.weight",),
    "norm": ("output_norm.weight",),
    "head": ("output.weight",),
}
TABLES: Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]] = {
    ("hf", "phi3"): _HF_COMMON
    | {
        "layers.{n}.qkv": ("model.layers.{n}.self_attn.qkv_proj.weight",),
        "layers.{n}.gate_up": ("model.layers.{n}.mlp.gate_up_proj.weight",),
    },
    ("hf", "llama"): _HF_COMMON
    | {
        "layers.{n}.qkv": tuple(f"model.layers.{{n}}.self_attn.{part}_proj.weight" for part in "qkv"),
        "layers.{n}.gate_up": tuple(f"model.layers.{{n}}.mlp.{part}_proj.weight" for part in ("gate", "up")),
    },
    ("gguf", "phi3"): _GGUF_COMMON
    | {
        "layers.{n}.qkv": ("blk.{n}.attn_qkv.weight",),
        "layers.{n}.gate_up": ("blk.{n}.ffn_up.weight",),
    },
    ("gguf", "llama"): _GGUF_COMMON
    | {
        "layers.{n}.qkv": tuple(f"blk.{{n}}.attn_{part}.weight" for part in "qkv"),
        "layers.{n}.gate_up": tuple(f"blk.{{n}}.ffn_{part}.weight" for part in ("gate", "up")),
    },
}
LAYER_ARRAYS = ("input_norm", "qkv", "o", "post_norm", "gate_up", "down")  # fields of LayerWeights, in reading order
MATRICES = ("embed", "qkv", "o", "gate_up", "down", "head")  # the roles that have a format; the rest are norms


@dataclass(frozen=True)
class Part:
    """One tensor of a checkpoint: its name there, and the shape it must have."""

    name: str
    shape: tuple[int, ...]


def arrays(config: Config) -> dict[str, tuple[int, ...]]:
    """Our name of every array a model has -> its shape, in the order of the store; a tied head is not in it."""
    shapes: dict[str, tuple[int, ...]] = {"embed": (config.vocab_size, config.hidden_size)}
    for n in range(config.num_layers):
        for field in LAYER_ARRAYS:
            shapes[f"layers.{n}.{field}"] = config.layer_shapes.get(field, (config.hidden_size,))
    shapes["norm"] = (config.hidden_size,)
    if not config.tie_word_embeddings:
        shapes["head"] = (config.vocab_size, config.hidden_size)
    return shapes


def role(name: str) -> str:
    """The role of an array, whichever layer it belongs to: the last word of our name, such as qkv or norm."""
    return name.rsplit(".", 1)[-1]


def parts(config: Config, dialect: Dialect, present: Collection[str] = ()) -> dict[str, tuple[Part, ...]]:
    """Our name -> the checkpoint's tensors whose rows, joined, make the array.

    `present`: the tensors of the checkpoint. If they have the other family's names (q, k, v apart in a phi3 checkpoint,
    or joined in a llama one), those are returned; the hf dialect orders rows alike in both families.
    """
    table = TABLES[dialect, config.architecture]
    other = TABLES["hf", "llama" if config.architecture == "phi3" else "phi3"] if dialect == "hf" else table
    found = {}
    for name, shape in arrays(config).items():
        number = name.split(".")[1] if name.startswith("layers.") else ""
        pattern = f"layers.{{n}}.{role(name)}" if number else name
        theirs, others = ([name.replace("{n}", number) for name in some[pattern]] for some in (table, other))
        if others != theirs and not any(name in present for name in theirs) and all(name in present for name in others):
            theirs = others
        pieces = _split(config, role(name), shape, len(theirs))
        found[name] = tuple(Part(their, piece) for their, piece in zip(theirs, pieces, strict=True))
    return found


def inverse(config: Config, dialect: Dialect) -> dict[str, tuple[str, int]]:
    """The checkpoint's name -> (our name, number of the part); for writing checkpoints and for error messages."""
    return {part.name: (ours, i) for ours, some in parts(config, dialect).items() for i, part in enumerate(some)}


def _split(config: Config, array: str, shape: tuple[int, ...], pieces: int) -> list[tuple[int, ...]]:
    if pieces == 1:
        return [shape]
    if array == "qkv":
        return [(rows, shape[1]) for rows in (config.q_rows, config.kv_rows, config.kv_rows)]
    return [(shape[0] // pieces, shape[1])] * pieces
