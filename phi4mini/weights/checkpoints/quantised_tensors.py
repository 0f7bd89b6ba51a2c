"""Finds the quantised matrices among a checkpoint's tensors, and refuses kinds of quantisation that cannot be read.

Promises: the tensors decide; the quantisation config is asked only for what they leave open. A config whose tensors are
plain floats is ignored with a warning; a kind that cannot be read is refused by name. This file does not know which
matrices a model needs. Read: compressed-tensors (pack-quantized, int-quantized), AutoAWQ (GEMM), GPTQ (versions 1 and
2).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from phi4mini.errors import BadCheckpoint
from phi4mini.model.config_json import short
from phi4mini.weights.checkpoints.quantised_layouts import (
    Awq,
    Gptq,
    Integers,
    IntQuantized,
    Kept,
    PackQuantized,
    Settings,
)
from phi4mini.weights.checkpoints.quantised_rows import QuantisedRows
from phi4mini.weights.checkpoints.safetensors import FLOATS, Stored

_log = logging.getLogger(__name__)

# Last words of the names of a matrix's tensors: (required, optional).
_COLUMNS = (("qweight", "qzeros", "scales"), ("g_idx",))
_PACKED = (("weight_packed", "weight_scale", "weight_shape"), ("weight_zero_point", "weight_g_idx"))
_BYTES = (("weight", "weight_scale"), ("weight_zero_point",))
_ACTIVATIONS = ("input_scale", "input_zero_point", "output_scale", "output_zero_point")
# A part of a tensor's name -> the kind of quantisation that writes it.
_KINDS = (
    (".quant_state.bitsandbytes__nf4", "bitsandbytes (nf4)"),
    (".quant_state.bitsandbytes__fp4", "bitsandbytes (fp4)"),
    (".absmax", "bitsandbytes (4 bit)"),
    (".SCB", "bitsandbytes (8 bit)"),
    (".weight_scale_2", "ModelOpt (fp4)"),
    (".weight_global_scale", "compressed-tensors (nvfp4)"),
    (".W_q", "HQQ"),
    (".qweight", "GPTQ or AWQ, of which qzeros or scales are missing"),
    (".weight_packed", "compressed-tensors, of which weight_scale or weight_shape is missing"),
)
_ADVICE = "use the 16-bit checkpoint, a GGUF, or int4 of compressed-tensors, AWQ or GPTQ"


def quantised(
    where: str, tensors: Mapping[str, Stored], config: Mapping[str, Any]
) -> tuple[dict[str, QuantisedRows], set[str]]:
    """The quantised matrices, by the name of the float matrix that each replaces (`...o_proj.weight`), and the names of
    all tensors that they use.

    `config` is the quantisation config ({}: none). Raises `BadCheckpoint` for a kind that cannot be read.
    """
    found: dict[str, QuantisedRows] = {}
    used: set[str] = set()
    settings, kept = _settings(where, config), Kept()
    for name in tensors:
        base, _, last = name.rpartition(".")
        if last not in ("qweight", "weight_packed", "weight"):
            continue
        must, may = {"qweight": _COLUMNS, "weight_packed": _PACKED, "weight": _BYTES}[last]
        if any(f"{base}.{word}" not in tensors for word in must) or (last == "weight" and tensors[name].dtype != "I8"):
            continue
        mine = {word: tensors[f"{base}.{word}"] for word in (*must, *may) if f"{base}.{word}" in tensors}
        found[f"{base}.weight"] = QuantisedRows(_opened(f"{where}: {base}", mine, settings, config, kept))
        used |= {f"{base}.{word}" for word in mine}
        used |= _empty_bias(where, base, tensors)
        used |= {name for name in (f"{base}.{word}" for word in _ACTIVATIONS) if name in tensors}
    _refuse_other_kinds(where, {name: stored for name, stored in tensors.items() if name not in used}, config)
    if any(name.endswith(_ACTIVATIONS) for name in used):
        _log.warning("%s: scales for quantised activations are not used; weights are read as they are", where)
    if config and not found:
        method = short(config.get("quant_method"))
        _log.warning("%s: its quantization_config (%s) is ignored; the tensors are plain floats", where, method)
    return found, used


def _opened(
    name: str, tensors: Mapping[str, Stored], settings: Settings, config: Mapping[str, Any], kept: Kept
) -> Integers:
    if "weight_packed" in tensors:
        return PackQuantized(name, tensors, settings)
    if "weight" in tensors:
        return IntQuantized(name, tensors, settings)
    version = str(config.get("version", "gemm")).lower()
    packed, scales = tensors["qweight"].shape, tensors["scales"].shape
    if len(packed) == len(scales) == 2 and packed[1] == scales[1]:
        return Gptq(name, tensors, settings, kept)
    if config.get("quant_method", "awq") == "awq" and version != "gemm":
        raise BadCheckpoint(f"{name}: AWQ's version {short(version)} is not read, only gemm is")
    return Awq(name, tensors, settings, kept)


def _settings(where: str, config: Mapping[str, Any]) -> Settings:
    size = config.get("group_size", config.get("q_group_size"))
    form = config.get("checkpoint_format") or config.get("format") or "gptq"
    if config.get("quant_method") == "gptq" and form not in ("gptq", "gptq_v2"):
        raise BadCheckpoint(f"{where}: GPTQ's checkpoint_format {short(form)} is not read; gptq and gptq_v2 are")
    groups = config.get("config_groups")
    if isinstance(groups, Mapping):
        weights = [group.get("weights") for group in groups.values() if isinstance(group, Mapping)]
        sizes = {some.get("group_size") for some in weights if isinstance(some, Mapping)}
        size = sizes.pop() if len(sizes) == 1 else None
    meta = config.get("meta")
    quantizer = str(meta.get("quantizer", "")) if isinstance(meta, Mapping) else ""
    return Settings(size if type(size) is int and size > 0 else None, form != "gptq_v2", "gptqmodel" in quantizer)


def _empty_bias(where: str, base: str, tensors: Mapping[str, Stored]) -> set[str]:
    """The bias that early GPTQ programs stored with every matrix: ignored if it is all zeros, else an error."""
    bias = tensors.get(f"{base}.bias")
    if bias is None or bias.dtype not in FLOATS:
        return set()
    if bias.array().any():
        raise BadCheckpoint(f"{where}: {base}.bias is not zero; only models without biases are supported")
    return {f"{base}.bias"}


def _refuse_other_kinds(where: str, rest: Mapping[str, Stored], config: Mapping[str, Any]) -> None:
    odd = [name for name, stored in rest.items() if stored.dtype not in FLOATS]
    kind = next((kind for part, kind in _KINDS if any(part in name for name in rest)), None)
    if kind is None and odd and any(rest[name].dtype.startswith("F8") for name in odd):
        kind = "fp8"
    if kind is None and odd and config:
        kind = str(config.get("quant_method"))[:60]
    if kind is not None:
        raise BadCheckpoint(f"{where}: its weights are quantised by {kind}, which is not read; {_ADVICE}")
