"""From a checkpoint's config.json to the fields of `Config`: names, spellings of several years, limits.

Promises: reads Phi3ForCausalLM and LlamaForCausalLM as transformers 4 and 5 write them, and under the names that
training programs give them. A key that is missing, out of range or not supported raises `BadCheckpoint` with the key,
the value and the limit. This file does not know what the numbers mean; a quantisation config is read where tensors are
(weights/checkpoints/quantised_tensors.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from phi4mini.errors import BadCheckpoint

# Key of config.json, our field, smallest and largest value. The caps are far above any model of these families and far
# below what overflows an index: they stop a wrong or hostile file before it makes us allocate memory.
WHOLE_NUMBERS: tuple[tuple[str, str, int, int], ...] = (
    ("vocab_size", "vocab_size", 1, 1 << 22),
    ("hidden_size", "hidden_size", 1, 1 << 16),
    ("intermediate_size", "intermediate_size", 1, 1 << 20),
    ("num_hidden_layers", "num_layers", 1, 1 << 10),
    ("num_attention_heads", "num_heads", 1, 1 << 10),
    ("num_key_value_heads", "num_kv_heads", 1, 1 << 10),
    ("head_dim", "head_dim", 2, 1 << 10),
    ("rotary_dim", "rotary_dim", 2, 1 << 10),
    ("max_position_embeddings", "max_position_embeddings", 1, 1 << 24),
    ("original_max_position_embeddings", "original_max_position_embeddings", 1, 1 << 24),
)
_LIMITS = {key: (low, high) for key, _, low, high in WHOLE_NUMBERS} | {"sliding_window": (1, 1 << 31)}
LARGEST_FACTOR = 1e6
FAMILIES = ("phi3", "llama")
# Names that training programs write for the same model: the backbone alone, FSDP's class, wrappers around any model.
_SAME_MODEL = re.compile(r"(?:FSDP)?(Phi3|Llama)(?:ForCausalLM|Model)")
_WRAPPERS = re.compile(
    r"(?:Peft|Lora)Model(?:ForCausalLM)?|OptimizedModule|FullyShardedDataParallel|DistributedDataParallel"
    r"|(?:AutoModel|PreTrainedModel)(?:ForCausalLM)?(?:WithValueHead)?"
)
_MOST_STOP_IDS = 256
_LONGROPE_NAMES = ("longrope", "su", "yarn")  # Phi-3 checkpoints of 2024 call LongRoPE "su" or "yarn"


def short(value: object) -> str:
    """A value for an error line, at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def whole(key: str, value: Any) -> int:
    """The value, if it is a whole number (not a bool) within the limits of `key`."""
    low, high = _LIMITS[key]
    if type(value) is not int or not low <= value <= high:
        raise BadCheckpoint(f"config: {key} must be a whole number from {low} to {high}, got {short(value)}")
    return value


def positive(key: str, value: Any, high: float) -> float:
    """The value as a float, if it is a number above 0 and at most `high`."""
    if type(value) not in (int, float) or not 0 < value <= high:  # NaN fails the comparison
        raise BadCheckpoint(f"config: {key} must be a number above 0 and at most {high:g}, got {short(value)}")
    return float(value)


def read_fields(config: Mapping[str, Any], generation: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Config`, by name, from config.json and generation_config.json as parsed."""
    for name, parsed in (("config.json", config), ("generation_config.json", generation)):
        if not isinstance(parsed, Mapping):
            raise BadCheckpoint(f"config: {name} must hold an object, got {short(parsed)}")
    if isinstance(config.get("text_config"), Mapping) and "hidden_size" not in config:
        config = {**config, "architectures": None, **config["text_config"]}  # the language model among several
    family = _family(config)
    _refuse_unsupported(config, family)
    heads = whole("num_attention_heads", _need(config, "num_attention_heads"))
    kv_heads = config.get("num_key_value_heads")
    head_dim = _head_dim(config, heads)
    longest = whole("max_position_embeddings", _need(config, "max_position_embeddings"))
    return dict(
        architecture=family,
        vocab_size=_need(config, "vocab_size"),
        hidden_size=_need(config, "hidden_size"),
        intermediate_size=_need(config, "intermediate_size"),
        num_layers=_need(config, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=heads if kv_heads is None else kv_heads,
        head_dim=head_dim,
        rms_norm_eps=config.get("rms_norm_eps", 1e-5 if family == "phi3" else 1e-6),
        max_position_embeddings=longest,
        sliding_window=config.get("sliding_window"),
        tie_word_embeddings=config.get("tie_word_embeddings", False),
        bos_token_id=config.get("bos_token_id"),
        eos_token_ids=_stop_ids(config, generation),
        pad_token_id=None if _is_minus_one(config.get("pad_token_id")) else config.get("pad_token_id"),
        **_rope_fields(config, family, head_dim, longest),
    )


def _is_minus_one(token: Any) -> bool:
    """True for -1, which some programs write instead of null."""
    return type(token) is int and token == -1


def _need(config: Mapping[str, Any], key: str) -> Any:
    if key not in config:
        raise BadCheckpoint(f"config: the key {key} is missing")
    return config[key]


def _family(config: Mapping[str, Any]) -> Literal["phi3", "llama"]:
    names, kind = config.get("architectures"), config.get("model_type")
    family = kind if isinstance(kind, str) and kind in FAMILIES else None
    said = f"model_type {short(kind)}"
    if isinstance(names, list) and names:
        said = f"architectures {short(names[0])}"
        name = names[0] if isinstance(names[0], str) else ""
        same = _SAME_MODEL.fullmatch(name)
        family = same[1].lower() if same else family if _WRAPPERS.fullmatch(name) else None
    if family is None:
        raise BadCheckpoint(f"config: {said} is not supported; Phi3ForCausalLM and LlamaForCausalLM are")
    return "phi3" if family == "phi3" else "llama"


def _refuse_unsupported(config: Mapping[str, Any], family: str) -> None:
    for key in ("attention_bias", "mlp_bias", "lm_head_bias"):
        if config.get(key) not in (None, False):
            raise BadCheckpoint(f"config: {key} {short(config[key])} is not supported; only models without biases are")
    if config.get("hidden_act", "silu") != "silu":
        raise BadCheckpoint(f"config: hidden_act {short(config['hidden_act'])} is not supported; only silu is")
    if family == "llama" and config.get("sliding_window") is not None:
        raise BadCheckpoint(f"config: sliding_window {short(config['sliding_window'])} is not supported for llama")


def _head_dim(config: Mapping[str, Any], heads: int) -> int:
    if config.get("head_dim") is not None:
        return whole("head_dim", config["head_dim"])
    hidden = whole("hidden_size", _need(config, "hidden_size"))
    if hidden % heads:
        raise BadCheckpoint(f"config: hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    return hidden // heads


def _stop_ids(config: Mapping[str, Any], generation: Mapping[str, Any]) -> tuple[int, ...]:
    ids: list[int] = []
    for source in (generation, config):
        said = source.get("eos_token_id")
        said = said if isinstance(said, list) else [said]
        if len(said) > _MOST_STOP_IDS:
            raise BadCheckpoint(f"config: eos_token_id lists {len(said)} ids, more than the limit {_MOST_STOP_IDS}")
        for token in said:
            if token is not None and token not in ids:
                ids.append(token)
    return tuple(ids)


def _rope_fields(config: Mapping[str, Any], family: str, head_dim: int, longest: int) -> dict[str, Any]:
    """The rotary fields of `Config`, from `rope_scaling` (transformers 4), `rope_parameters` (5) or the top level."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(rope, Mapping):
        raise BadCheckpoint(f"config: rope_scaling must be an object or null, got {short(rope)}")
    fraction = positive("partial_rotary_factor", _first("partial_rotary_factor", rope, config, 1.0), 1.0)
    if family == "llama" and fraction != 1.0:
        raise BadCheckpoint(f"config: partial_rotary_factor {fraction:g} is not supported for llama; only 1 is")
    fields: dict[str, Any] = {
        "rope_theta": _first("rope_theta", rope, config, 10000.0),
        "rotary_dim": int(head_dim * fraction),
        "short_factor": None,
        "long_factor": None,
        "original_max_position_embeddings": _first("original_max_position_embeddings", config, rope, longest),
    }
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return fields
    if family == "llama" or kind not in _LONGROPE_NAMES:
        kinds = "no rope scaling is" if family == "llama" else "longrope is"
        raise BadCheckpoint(f"config: rope_scaling type {short(kind)} is not supported for {family}; {kinds}")
    fields["original_max_position_embeddings"] = _first("original_max_position_embeddings", config, rope, 4096)
    for key in ("short_factor", "long_factor"):
        factors = _need(rope, key)
        fields[key] = tuple(factors) if isinstance(factors, list) else factors
    return fields | {"attention_factor": rope.get("attention_factor"), "scale_factor": rope.get("factor")}


def _first(key: str, first: Mapping[str, Any], second: Mapping[str, Any], default: Any) -> Any:
    for source in (first, second):
        if source.get(key) is not None:
            return source[key]
    return default
