"""GGUF's quantised blocks -> our parts, bit for bit: the same integers and the same scales, only laid out in rows.

Promises: nothing is rounded; `Blocks` in the format `EXACT[type]` stand for the very numbers the GGUF stands for. It
does not know files. Source of the block layouts: llama.cpp's ggml-common.h; tests compare with the `gguf` package.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from phi4mini.formats import FORMATS, Blocks, Format

# GGUF type -> the format that carries it exactly
EXACT: dict[str, Format] = {
    "Q4_0": FORMATS["q4"],
    "Q4_1": FORMATS["q4m"],
    "Q8_0": FORMATS["q8"],
    "Q4_K": FORMATS["q4k"],
    "Q5_K": FORMATS["q5k"],
    "Q6_K": FORMATS["q6k"],
}
_BLOCK_BYTES = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210}


def decode(kind: str, raw: np.ndarray) -> Blocks:
    """Rows of one GGUF type, uint8 (rows, row_bytes), as the parts of `EXACT[kind]`."""
    return _DECODERS[kind](raw.reshape(raw.shape[0], -1, _BLOCK_BYTES[kind]))


def _half(raw: np.ndarray, at: int) -> np.ndarray:
    """The f16 at byte `at` of every block: (rows, blocks)."""
    return np.ascontiguousarray(raw[:, :, at : at + 2]).view(np.float16)[:, :, 0]


def _flat(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a).reshape(a.shape[0], -1)


def _q4_0(raw: np.ndarray) -> Blocks:
    return Blocks(_nibble_halves(raw[:, :, 2:]), _half(raw, 0))


def _q4_1(raw: np.ndarray) -> Blocks:
    return Blocks(_nibble_halves(raw[:, :, 4:]), _half(raw, 0), _half(raw, 2))


def _q8_0(raw: np.ndarray) -> Blocks:
    return Blocks(_flat(raw[:, :, 2:] ^ 0x80), _half(raw, 0))  # s8 -> u8 with 128 as its zero


def _q4_k(raw: np.ndarray) -> Blocks:
    scale, minimum = _six_bit_scales(raw[:, :, 4:16])
    return Blocks(_nibble_groups(raw[:, :, 16:]), scale, minimum, _half(raw, 0), _half(raw, 2))


def _q5_k(raw: np.ndarray) -> Blocks:
    scale, minimum = _six_bit_scales(raw[:, :, 4:16])
    group = np.arange(8, dtype=np.uint8)[:, None]
    fifth = (raw[:, :, 16:48][:, :, None, :] >> group) & 1  # (rows, blocks, 8 groups, 32): bit g belongs to group g
    return Blocks(_nibble_groups(raw[:, :, 48:]) | (_flat(fifth) << 4), scale, minimum, _half(raw, 0), _half(raw, 2))


def _q6_k(raw: np.ndarray) -> Blocks:
    rows, blocks, _ = raw.shape
    low = raw[:, :, :128].reshape(rows, blocks, 2, 64)  # per half of 128 weights
    low = np.stack([low & 15, low >> 4], axis=3).reshape(rows, blocks, 2, 4, 32)
    high = raw[:, :, 128:192].reshape(rows, blocks, 2, 1, 32)
    high = (high >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
    scale = _flat(raw[:, :, 192:208]).view(np.int8)
    return Blocks(_flat(low | (high << 4)), scale, None, _half(raw, 208))


def _nibble_halves(packed: np.ndarray) -> np.ndarray:
    """(rows, blocks, 16) -> (rows, cols): low nibbles are the first 16 weights of a block, high ones the last 16."""
    return _flat(np.concatenate([packed & 15, packed >> 4], axis=2))


def _nibble_groups(packed: np.ndarray) -> np.ndarray:
    """(rows, blocks, 128) -> (rows, cols): every 32 bytes hold two groups of 32, the low nibbles first."""
    pairs = packed.reshape(*packed.shape[:2], 4, 32)
    return _flat(np.stack([pairs & 15, pairs >> 4], axis=3))


def _six_bit_scales(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """12 bytes a block -> 8 scales and 8 minima of 6 bits, each uint8 (rows, groups)."""
    a, b, c = packed[:, :, 0:4], packed[:, :, 4:8], packed[:, :, 8:12]
    scale = np.concatenate([a & 63, (c & 15) | ((a >> 6) << 4)], axis=2)
    minimum = np.concatenate([b & 63, (c >> 4) | ((b >> 6) << 4)], axis=2)
    return _flat(scale), _flat(minimum)


_DECODERS: dict[str, Callable[[np.ndarray], Blocks]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
