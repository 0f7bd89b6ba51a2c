"""A GGUF's metadata -> the config.json of the model it was made from, for `Config` to check.

Promises: metadata are refused by the name of the key if they need data that the file lacks, contradict its tensors, or
change the computation in a way that the engine does not support; nothing is ignored silently. The one exception is
Phi-4-mini: its rope factors are known, so a file of exactly its shapes may lack them. Of the weights only the two
factor tensors are read. Sources: llama.cpp's conversion/phi.py and conversion/llama.py for what is written, its
llama-model.cpp for what an absent key means, gguf-py's constants for names.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from phi4mini.errors import BadCheckpoint
from phi4mini.model.config import Config
from phi4mini.model.config_json import short
from phi4mini.weights.checkpoints.gguf import Tensor

FACTORS = {"short_factor": "rope_factors_short.weight", "long_factor": "rope_factors_long.weight"}
_STOP_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
_LONGROPE_NAMES = ("longrope", "su")
_log = logging.getLogger(__name__)

# Keys of an architecture that change the computation -> the values with which they do not.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.scale": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "logit_scale": (0.0, 1.0),
    "rope.scale_linear": (0.0, 1.0),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "use_parallel_residual": (False,),
}


class Gguf(Protocol):
    """An opened GGUF, whether it is one file or several."""

    @property
    def metadata(self) -> dict[str, Any]: ...
    @property
    def tensors(self) -> dict[str, Tensor]: ...

    def raw(self, tensor: Tensor, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop of a tensor as stored, uint8 (rows, row_bytes)."""
        ...


def gguf_config(file: Gguf, where: str) -> Config:
    """The checked config of an opened GGUF; `where` names it in log lines. Raises `BadCheckpoint`."""
    arch = _architecture(file)
    config = _config_json(file, arch)
    scaling = _rope_scaling(file, arch, config)
    if scaling is None:
        _log.warning(
            "%s: there are no rope factors in the file; it has Phi-4-mini's shapes, so Phi-4-mini's factors are used",
            where,
        )
        scaling = _own_scaling()
    return _with_stated_scale(Config.from_json(config | scaling), file)


def _architecture(file: Gguf) -> str:
    meta = file.metadata
    kind = meta.get("general.type", "model")
    if kind != "model":
        raise BadCheckpoint(f"general.type {short(kind)}: not a model's weights but a file that goes with a model")
    arch = meta.get("general.architecture")
    if arch not in ("phi3", "llama"):
        raise BadCheckpoint(f"GGUF architecture {short(arch)} is not supported; phi3 and llama are")
    for key, neutral in _NEUTRAL.items():
        value = meta.get(f"{arch}.{key}", neutral[0])
        if value not in neutral:
            raise BadCheckpoint(f"{arch}.{key} {short(value)} is not supported; only {neutral[-1]} is")
    return str(arch)


_PER_LAYER = ("attention.head_count", "feed_forward_length")  # llama.cpp gives these once or for every layer


def _config_json(file: Gguf, arch: str) -> dict[str, Any]:
    """The config.json this GGUF was made from, all but the rope scaling."""
    meta = file.metadata

    def need(key: str) -> Any:
        if f"{arch}.{key}" not in meta:
            raise BadCheckpoint(f"the metadata key {arch}.{key} is missing")
        layered = key in _PER_LAYER
        return _same_in_all_layers(meta, f"{arch}.{key}") if layered else meta[f"{arch}.{key}"]

    heads, hidden = need("attention.head_count"), need("embedding_length")
    kv_key = f"{arch}.attention.head_count_kv"
    config = {
        "architectures": ["Phi3ForCausalLM" if arch == "phi3" else "LlamaForCausalLM"],
        "vocab_size": _vocabulary(file, arch),
        "hidden_size": hidden,
        "intermediate_size": need("feed_forward_length"),
        "num_hidden_layers": need("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _same_in_all_layers(meta, kv_key) if kv_key in meta else heads,
        "max_position_embeddings": need("context_length"),
        "rms_norm_eps": need("attention.layer_norm_rms_epsilon"),
        "rope_theta": meta.get(f"{arch}.rope.freq_base", 10000.0),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "sliding_window": _sliding_window(meta, arch),
        "eos_token_id": [_token(meta, key) for key in _STOP_KEYS],
        "bos_token_id": _token(meta, "bos_token_id"),
        "pad_token_id": _token(meta, "padding_token_id"),
    }
    return config | _head_fields(meta, arch, hidden, heads)


def _token(meta: Mapping[str, Any], key: str) -> Any:
    """A token's id; None if there is none. Some programs write -1, as a signed or unsigned 32-bit number, for none."""
    value = meta.get(f"tokenizer.ggml.{key}")
    return None if value in (-1, 0xFFFFFFFF) else value


def _same_in_all_layers(meta: Mapping[str, Any], key: str) -> Any:
    """A value that may be given once or for every layer; layers that differ are refused."""
    value = meta[key]
    if not isinstance(value, list):
        return value
    if not value or any(one != value[0] for one in value):
        raise BadCheckpoint(f"{key} differs between layers ({short(value)}), which is not supported")
    layers = meta.get(f"{key.split('.')[0]}.block_count")
    if len(value) != layers:
        raise BadCheckpoint(f"{key} lists {len(value)} layers, block_count is {short(layers)}")
    return value[0]


def _head_fields(meta: Mapping[str, Any], arch: str, hidden: Any, heads: Any) -> dict[str, Any]:
    """head_dim and the rotated part of it."""
    fields: dict[str, Any] = {}
    head_dim, width = meta.get(f"{arch}.attention.key_length"), meta.get(f"{arch}.attention.value_length")
    if head_dim is not None:
        fields["head_dim"] = head_dim
    elif type(hidden) is int and type(heads) is int and heads > 0 and hidden % heads == 0:
        head_dim = hidden // heads
    if width is not None and width != head_dim:
        raise BadCheckpoint(
            f"{arch}.attention.value_length {short(width)} is not the width of a key, {short(head_dim)}"
        )
    rotary = meta.get(f"{arch}.rope.dimension_count")
    if rotary is None or type(head_dim) is not int or head_dim <= 0:
        return fields
    if type(rotary) is not int or not 0 < rotary <= head_dim:
        raise BadCheckpoint(f"{arch}.rope.dimension_count {short(rotary)} is not from 1 to the head's width {head_dim}")
    # config.json has a fraction, which is multiplied and cut: half a dimension more survives rounding
    fields["partial_rotary_factor"] = 1.0 if rotary == head_dim else (rotary + 0.5) / head_dim
    return fields


def _sliding_window(meta: Mapping[str, Any], arch: str) -> Any:
    """The sliding window; None if there is none. Conversions of Phi-4 write 0 for none. llama's attention has none."""
    key = f"{arch}.attention.sliding_window"
    window, longest = meta.get(key), meta.get(f"{arch}.context_length")
    if arch == "phi3" or not window:
        return window or None
    if type(window) is int and type(longest) is int and window >= longest:
        return None
    raise BadCheckpoint(f"{key} {short(window)} is less than the context {short(longest)}: not supported for llama")


def _vocabulary(file: Gguf, arch: str) -> int:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise BadCheckpoint("the tensor token_embd.weight is missing")
    rows, stated = embedding.shape[0], file.metadata.get(f"{arch}.vocab_size")
    if stated is not None and stated != rows:
        raise BadCheckpoint(f"{arch}.vocab_size {short(stated)} is not the {rows} rows of token_embd.weight")
    return rows


# ---- rope


def _rope_scaling(file: Gguf, arch: str, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The rope fields of config.json; None if the file has exactly Phi-4-mini's numbers and lacks the rope factors."""
    meta = file.metadata
    kind = meta.get(f"{arch}.rope.scaling.type", "none")
    present = [name for name in FACTORS.values() if name in file.tensors]
    if "rope_freqs.weight" in file.tensors:
        raise BadCheckpoint("rope_freqs.weight: the rope scaling of Llama 3.1 is not supported")
    _refuse_stretch(meta, arch, kind)
    if not present:
        asks = _asks_for_factors(meta, arch, kind)
        if _is_phi4_mini(config, meta):
            return None
        if asks and arch == "llama":
            raise BadCheckpoint(f"{asks}: rope scaling is not supported for llama")
        if asks:
            raise BadCheckpoint(f"{asks}, but the tensors {' and '.join(FACTORS.values())} are missing: convert again")
        return {}
    if len(present) != 2 or arch != "phi3":
        raise BadCheckpoint(f"{present[0]} is the only rope factor tensor of a {arch} file; phi3 has two")
    original = meta.get("phi3.rope.scaling.original_context_length")
    if original is None and not _is_phi4_mini(config, meta):
        raise BadCheckpoint("it holds rope factors, but phi3.rope.scaling.original_context_length is missing")
    scaling: dict[str, Any] = {key: _factors(file, name) for key, name in FACTORS.items()}
    return {
        "rope_scaling": {"type": "longrope"} | scaling,
        "original_max_position_embeddings": Config.phi4_mini().original_max_position_embeddings
        if original is None
        else original,
    }


def _refuse_stretch(meta: Mapping[str, Any], arch: str, kind: Any) -> None:
    """Refuse rope scalings other than LongRoPE: linear (llama.cpp's reading of a bare factor), yarn, dynamic."""
    prefix = f"{arch}.rope.scaling."
    factor, original = meta.get(f"{prefix}factor"), meta.get(f"{prefix}original_context_length")
    if kind == "linear" and factor in (0, 1):
        return
    if kind not in ("none", *_LONGROPE_NAMES):
        raise BadCheckpoint(f"{prefix}type: rope_scaling type {short(kind)} is not supported")
    if factor in (None, 0, 1):
        return
    if kind == "none":
        raise BadCheckpoint(f"{prefix}factor {short(factor)} stretches positions, which is not supported")
    longest = meta.get(f"{arch}.context_length")
    if type(original) is int and type(longest) is int and original > 0 and factor != longest / original:
        raise BadCheckpoint(
            f"{prefix}factor {short(factor)} is not context_length {longest} / original_context_length {original}"
        )


def _asks_for_factors(meta: Mapping[str, Any], arch: str, kind: Any) -> str:
    """The metadata that require factor tensors, as the beginning of an error message; "" if there are none."""
    prefix = f"{arch}.rope.scaling."
    if kind in _LONGROPE_NAMES:
        return f"{prefix}type is {kind}"
    if meta.get(f"{prefix}attn_factor", 1.0) != 1.0:
        return f"{prefix}attn_factor is {short(meta[f'{prefix}attn_factor'])}"
    original, longest = meta.get(f"{prefix}original_context_length"), meta.get(f"{arch}.context_length")
    if original is None or original == longest:
        return ""
    if type(original) is not int or type(longest) is not int or longest > original:
        return f"{arch}.context_length {short(longest)} is beyond {prefix}original_context_length {short(original)}"
    return ""


def _is_phi4_mini(config: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
    """True if a phi3 file has every number of Phi-4-mini on which the rope factors depend."""
    own, heads = Config.phi4_mini(), config["num_attention_heads"]
    original = meta.get("phi3.rope.scaling.original_context_length", own.original_max_position_embeddings)
    stated = meta.get("phi3.rope.scaling.attn_factor", own.rope_scale)
    wanted = {
        "architectures": ["Phi3ForCausalLM"],
        "vocab_size": own.vocab_size,
        "hidden_size": own.hidden_size,
        "intermediate_size": own.intermediate_size,
        "num_hidden_layers": own.num_layers,
        "num_attention_heads": own.num_heads,
        "num_key_value_heads": own.num_kv_heads,
        "max_position_embeddings": own.max_position_embeddings,
        "rope_theta": own.rope_theta,
    }
    return (
        all(config[key] == value for key, value in wanted.items())
        and config.get("head_dim", own.hidden_size // heads) == own.head_dim
        and int(own.head_dim * config.get("partial_rotary_factor", 1.0)) == own.rotary_dim
        and original == own.original_max_position_embeddings
        and isinstance(stated, float)
        and (stated == 1.0 or math.isclose(stated, own.rope_scale, rel_tol=1e-6))
    )


def _own_scaling() -> dict[str, Any]:
    own = Config.phi4_mini()
    assert own.short_factor is not None and own.long_factor is not None
    factors = {"short_factor": list(own.short_factor), "long_factor": list(own.long_factor)}
    original = own.original_max_position_embeddings
    return {"rope_scaling": {"type": "longrope"} | factors, "original_max_position_embeddings": original}


def _factors(file: Gguf, name: str) -> list[float]:
    """The numbers of a factor tensor, each as the shortest decimal that rounds to it in float32, as config.json has."""
    tensor = file.tensors[name]
    if tensor.type != "F32" or len(tensor.shape) != 1:
        raise BadCheckpoint(f"{name} is {tensor.type} {list(tensor.shape)}, not a list of F32")
    return [float(str(value)) for value in file.raw(tensor, 0, 1).reshape(-1).view("<f4")]


def _with_stated_scale(config: Config, file: Gguf) -> Config:
    """The config with the mscale that the file states, if it differs from LongRoPE's formula by more than float32."""
    held = FACTORS["short_factor"] in file.tensors  # where the factors are built in, so is the scale
    stated = file.metadata.get("phi3.rope.scaling.attn_factor")
    if stated is None or config.short_factor is None or not held:
        return config
    if isinstance(stated, float) and math.isclose(stated, config.rope_scale, rel_tol=1e-6):
        return config
    return replace(config, attention_factor=stated)
