"""Quantised checkpoints for the tests: random integers, scales and zero points written as other programs write them.

The writers set one nibble after the other, from the definitions in compressed-tensors, AutoAWQ, AutoGPTQ and GPTQModel;
they share nothing with what reads them. The values are scale * (integer - zero), taken in float64.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phi4mini.formats.matrix import to_bf16
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints import tensor_names
from tests.weights.twins import random_tensors, write_folder

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # AutoAWQ: the row of eight that each nibble of a word holds
DTYPE_NAMES = {"float32": "F32", "float16": "F16", "int8": "I8", "uint8": "U8", "int32": "I32", "int64": "I64"}


@dataclass
class Twin:
    """A quantised matrix: q (rows, cols), scale and zero (rows, groups), the group of every input."""

    q: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    group_of: np.ndarray
    bits: int = 4

    @property
    def values(self) -> np.ndarray:
        """What the matrix stands for: exact under scales of 16 bits, else rounded once to float32."""
        of = self.group_of
        exact = (self.q.astype(np.float64) - self.zero[:, of]) * self.scale.astype(np.float64)[:, of]
        once = exact.astype(np.float32)
        assert (once == exact).all() or not (self.scale == self.scale.astype(np.float16)).all()
        return once


def twin(
    rows: int, cols: int, group: int = 32, symmetric: bool = True, scale: str = "F16", bits: int = 4, seed: int = 0
) -> Twin:
    """Random numbers; `group` 0 is one group a row. Scales are what `scale` can hold."""
    rng = np.random.default_rng(seed)
    group = group or cols
    groups = -(-cols // group)
    scales = (rng.uniform(0.5, 2, (rows, groups)) * 0.01).astype(np.float32)
    scales = {"F32": scales, "F16": scales.astype(np.float16).astype(np.float32), "BF16": as_bf16(scales)}[scale]
    middle = 1 << (bits - 1)
    zero = np.full((rows, groups), middle) if symmetric else rng.integers(0, 2 * middle, (rows, groups))
    q = rng.integers(0, 2 * middle, (rows, cols))
    return Twin(q, scales, zero, np.arange(cols) // group, bits)


def as_bf16(values: np.ndarray) -> np.ndarray:
    return (to_bf16(values).astype(np.uint32) << 16).view(np.float32)


def words(integers: np.ndarray, bits: int, order: tuple[int, ...] | None = None) -> np.ndarray:
    """Integers (a, b) -> i32 (a, b / per word): entry order[j] of a word's entries goes to its j-th place."""
    per = 32 // bits
    places = order or tuple(range(per))
    padded = np.zeros((integers.shape[0], -(-integers.shape[1] // per) * per), np.uint64)
    padded[:, : integers.shape[1]] = integers
    out = np.zeros((padded.shape[0], padded.shape[1] // per), np.uint64)
    for word in range(out.shape[1]):
        for place, entry in enumerate(places):
            out[:, word] |= padded[:, word * per + entry] << np.uint64(bits * place)
    return out.astype(np.uint32).view(np.int32)


def pack_quantized(t: Twin, packed_zero: bool = True, always_zero: bool = False) -> dict[str, np.ndarray]:
    """compressed-tensors: signed integers plus half their range, along the inputs; zero points along the rows."""
    middle = 1 << (t.bits - 1)
    made = {
        "weight_packed": words(t.q, t.bits),
        "weight_shape": np.array(t.q.shape, np.int64),
        "weight_scale": t.scale,
    }
    if always_zero or (t.zero != middle).any():
        signed = (t.zero - middle).astype(np.int8)
        made["weight_zero_point"] = words((t.zero).T, t.bits).T.copy() if packed_zero else signed
    if not (np.diff(t.group_of) >= 0).all():
        made["weight_g_idx"] = t.group_of.astype(np.int32)
    return made


def int_quantized(t: Twin) -> dict[str, np.ndarray]:
    """compressed-tensors: signed bytes."""
    made = {"weight": (t.q - 128).astype(np.int8), "weight_scale": t.scale}
    return made if (t.zero == 128).all() else made | {"weight_zero_point": (t.zero - 128).astype(np.int8)}


def awq(t: Twin) -> dict[str, np.ndarray]:
    """AutoAWQ, GEMM."""
    return {
        "qweight": words(t.q.T, 4, AWQ_ORDER),
        "qzeros": words(t.zero.T, 4, AWQ_ORDER),
        "scales": t.scale.T.copy(),
    }


def gptq(t: Twin, version: int = 1, borrow: bool = False, with_order: bool = True) -> dict[str, np.ndarray]:
    """AutoGPTQ (version 1: zero points less one) and GPTQModel (version 2; `borrow`: 1 taken off whole words)."""
    ones = np.uint32(sum(1 << at for at in range(0, 32, t.bits)))
    if version == 2:
        zeros = words(t.zero.T, t.bits)
    elif borrow:
        zeros = (words(t.zero.T, t.bits).view(np.uint32) - ones).view(np.int32)
    else:
        zeros = words((t.zero.T - 1) % (1 << t.bits), t.bits)
    made = {"qweight": words(t.q, t.bits).T.copy(), "qzeros": zeros, "scales": t.scale.T.copy()}  # words of 8 inputs
    return made | ({"g_idx": t.group_of.astype(np.int32)} if with_order else {})


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], bf16: tuple[str, ...] = (), called: Mapping[str, str] | None = None
) -> None:
    """A file; float32 tensors whose last word is in `bf16` are written as BF16. `called`: a name -> the dtype told."""
    header, data = {}, []
    at = 0
    for name, array in tensors.items():
        kind = (called or {}).get(name) or DTYPE_NAMES[array.dtype.name]
        raw = np.ascontiguousarray(array)
        if name.rpartition(".")[2] in bf16:
            raw, kind = to_bf16(raw), "BF16"
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + raw.nbytes]}
        data.append(raw.tobytes())
        at += raw.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data))


def model_parts(config: Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the matrices that such programs quantise: all but embedding and head."""
    for ours, some in tensor_names.parts(config, "hf").items():
        if tensor_names.role(ours) in ("qkv", "o", "gate_up", "down"):
            yield from ((part.name, part.shape) for part in some)


def write_model(
    folder: Path, config_json: Mapping[str, Any], layout: Any, make: Any, quantisation: Mapping[str, Any] | None
) -> dict[str, np.ndarray]:
    """A whole folder whose matrices are `make(rows, cols, seed)` written by `layout`; returns its plain tensors."""
    config = Config.from_json(config_json)
    plain = random_tensors(config)
    stored = dict(plain)
    for seed, (name, (rows, cols)) in enumerate(model_parts(config)):
        matrix = make(rows, cols, seed)
        plain[name] = matrix.values
        del stored[name]
        stored |= {f"{name.removesuffix('weight')}{word}": array for word, array in layout(matrix).items()}
    write_folder(folder, {**config_json} | ({"quantization_config": quantisation} if quantisation else {}), {})
    write_safetensors(folder / "model.safetensors", stored)
    return plain
