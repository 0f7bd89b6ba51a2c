"""GGUF's quantised blocks -> `Blocks`: the same integers and the same scales, laid out in rows.

Promises: nothing is rounded; `Blocks` in the format `EXACT[type]` mean exactly the numbers of the GGUF. This file does
not know files. Source of the block layouts: llama.cpp's ggml-common.h; tests compare with the `gguf` package.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from phi4mini.formats.format_table import FORMATS, Format
from phi4mini.formats.matrix import Blocks

# type id -> name, weights of a block, bytes of a block; other types are refused by gguf.py
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    20: ("IQ4_NL", 32, 18),
    23: ("IQ4_XS", 256, 136),
    30: ("BF16", 1, 2),
}

# GGUF type -> the format that holds it exactly
EXACT: dict[str, Format] = {
    "Q4_0": FORMATS["q4"],
    "Q4_1": FORMATS["q4m"],
    "Q5_0": FORMATS["q8"],
    "Q5_1": FORMATS["q5m"],
    "Q8_0": FORMATS["q8"],
    "Q2_K": FORMATS["q2k"],
    "Q3_K": FORMATS["q6k"],
    "Q4_K": FORMATS["q4k"],
    "Q5_K": FORMATS["q5k"],
    "Q6_K": FORMATS["q6k"],
    "IQ4_NL": FORMATS["q8"],
    "IQ4_XS": FORMATS["q8k"],
}
_BLOCK_BYTES = {name: nbytes for name, _, nbytes in TYPES.values()}

# Integers of the 16 codes of IQ4_NL and IQ4_XS, in units of the scale (llama.cpp's kvalues_iq4nl), plus q8's zero point
_IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]) + FORMATS["q8"].zero
_IQ4 = _IQ4.astype(np.uint8)


def bits_more(kind: str) -> float:
    """Bits a weight that our format for a type takes beyond those in the file; 0 for floats."""
    if kind not in EXACT:
        return 0.0
    weights, nbytes = next((weights, nbytes) for name, weights, nbytes in TYPES.values() if name == kind)
    return EXACT[kind].bits_a_weight - 8 * nbytes / weights


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


def _q5_0(raw: np.ndarray) -> Blocks:
    return Blocks(_five_bits(raw[:, :, 2:]) + np.uint8(FORMATS["q8"].zero - 16), _half(raw, 0))


def _q5_1(raw: np.ndarray) -> Blocks:
    return Blocks(_five_bits(raw[:, :, 4:]), _half(raw, 0), _half(raw, 2))


def _q8_0(raw: np.ndarray) -> Blocks:
    return Blocks(_flat(raw[:, :, 2:] ^ 0x80), _half(raw, 0))  # s8 -> u8 with 128 as its zero


def _iq4_nl(raw: np.ndarray) -> Blocks:
    return Blocks(_IQ4[_nibble_halves(raw[:, :, 2:])], _half(raw, 0))


def _iq4_xs(raw: np.ndarray) -> Blocks:
    rows, blocks, _ = raw.shape
    low = raw[:, :, 4:8]
    low = np.stack([low & 15, low >> 4], axis=3).reshape(rows, blocks, 8)  # 4 bits of every group's scale
    high = raw[:, :, 2:4][:, :, [0, 0, 0, 0, 1, 1, 1, 1]] >> np.array([0, 2, 4, 6] * 2, np.uint8) & 3
    scale = (low | (high << 4)).astype(np.int8) - np.int8(32)
    groups = raw[:, :, 8:].reshape(rows, blocks * 8, 16)
    return Blocks(_IQ4[_nibble_halves(groups)], _flat(scale), None, _half(raw, 0))


def _q2_k(raw: np.ndarray) -> Blocks:
    scale, minimum = _flat(raw[:, :, :16] & 15), _flat(raw[:, :, :16] >> 4)
    return Blocks(_flat(_two_bits(raw[:, :, 16:80])), scale, minimum, _half(raw, 80), _half(raw, 82))


def _q3_k(raw: np.ndarray) -> Blocks:
    rows, blocks, _ = raw.shape
    third = (raw[:, :, None, :32] >> np.arange(8, dtype=np.uint8)[:, None]) & 1  # bit g belongs to the g-th 32 weights
    q = _two_bits(raw[:, :, 32:96]) | (third.reshape(rows, blocks, -1) << 2)  # 0 .. 7, 4 being the zero
    low, high = raw[:, :, 96:104], raw[:, :, 104:108]
    low = np.concatenate([low & 15, low >> 4], axis=2)
    high = np.concatenate([(high >> shift) & 3 for shift in (0, 2, 4, 6)], axis=2)
    scale = (low | (high << 4)).astype(np.int8) - np.int8(32)
    return Blocks(_flat(q) + np.uint8(FORMATS["q6k"].zero - 4), _flat(scale), None, _half(raw, 108))


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


def _five_bits(raw: np.ndarray) -> np.ndarray:
    """(rows, blocks, 4 + 16): a fifth bit of every weight in order, then nibbles as in Q4_0 -> (rows, cols) 0 .. 31."""
    fifth = np.unpackbits(raw[:, :, :4], axis=2, bitorder="little")
    return _nibble_halves(raw[:, :, 4:]) | (_flat(fifth) << 4)


def _two_bits(packed: np.ndarray) -> np.ndarray:
    """(rows, blocks, 64) -> (rows, blocks, 256): every 32 bytes hold four groups of 32, the low bits first."""
    halves = packed.reshape(*packed.shape[:2], 2, 1, 32)
    return ((halves >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3).reshape(*packed.shape[:2], 256)


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
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
}
