"""The weights of a model in memory: which arrays there are, and their shapes.

Promises: the names are the same whether the arrays came from safetensors, GGUF or our store; Q, K, V and gate, up are
fused, as a `Stack` if their formats differ. This file does not know files, the bytes of a format, or how matrices are
multiplied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phi4mini.errors import BadInput
from phi4mini.formats.format_table import FORMATS, LANES, Format
from phi4mini.formats.matrix import Matrix
from phi4mini.model.config import Config

_PIECE = re.compile(r"(\w+)\*([1-9]\d{0,9})", re.ASCII)


class Stack:
    """A matrix whose rows are in several formats: parts of equal width, one below the other; every part but the last
    fills whole strips. Q4_K_M files, for example, keep V in more bits than Q and K.
    """

    def __init__(self, parts: Sequence[Matrix]) -> None:
        if len({part.cols for part in parts}) != 1 or any(part.rows % LANES for part in parts[:-1]):
            raise BadInput(f"parts of {[(part.rows, part.cols) for part in parts]} cannot be stacked")
        self.parts = list(parts)
        self.rows, self.cols = sum(part.rows for part in parts), parts[0].cols

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def dequantize(self) -> np.ndarray:
        """The matrix as float32 (rows, cols)."""
        return np.concatenate([part.dequantize() for part in self.parts])


Stored = Matrix | Stack


def pieces(matrix: Stored) -> list[Matrix]:
    """The single-format parts of a matrix, in the order of their rows."""
    return matrix.parts if isinstance(matrix, Stack) else [matrix]


@dataclass(frozen=True)
class StackFormat:
    """The formats of a stack, each with its number of rows."""

    parts: tuple[tuple[Format, int], ...]

    @property
    def name(self) -> str:
        """As the store states it: q4k*4096+q6k*1024."""
        return "+".join(f"{format.name}*{rows}" for format, rows in self.parts)


def row_formats(name: str, rows: int) -> list[tuple[Format, int]]:
    """(format, rows) of each part of a matrix, from the name in the store's header. Raises `BadInput` if it is none."""
    if name in FORMATS:
        return [(FORMATS[name], rows)]
    found = [_PIECE.fullmatch(piece) for piece in name.split("+")]
    parts = [(FORMATS[m[1]], int(m[2])) for m in found if m and m[1] in FORMATS]
    if len(parts) != len(found) or sum(n for _, n in parts) != rows or any(n % LANES for _, n in parts[:-1]):
        raise BadInput(f"{name[:60]!r} is no format of {rows} rows")
    return parts


@dataclass
class LayerWeights:
    """One decoder block. Norms are float32; a matrix has (output rows, input columns)."""

    input_norm: np.ndarray  # (hidden,) before attention
    qkv: Stored  # (qkv_rows, hidden) rows: all Q heads, all K heads, all V heads
    o: Matrix  # (hidden, num_heads * head_dim)
    post_norm: np.ndarray  # (hidden,) before the MLP
    gate_up: Stored  # (2 * intermediate, hidden) rows: gate first, then up
    down: Matrix  # (hidden, intermediate)


@dataclass
class Weights:
    """A whole model. If head and embedding are tied, `head` is the same object as `embed`."""

    config: Config
    embed: Matrix  # (vocab, hidden)
    layers: list[LayerWeights]
    norm: np.ndarray  # (hidden,) float32, before the head
    head: Matrix  # (vocab, hidden)

    @property
    def nbytes(self) -> int:
        """Bytes of all matrices, a tied head counted once: what one token reads, except for norms."""
        layers = sum(m.nbytes for w in self.layers for m in (w.qkv, w.o, w.gate_up, w.down))
        return layers + self.embed.nbytes + (0 if self.head is self.embed else self.head.nbytes)
