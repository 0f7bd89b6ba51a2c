"""The weights of a model in memory: which arrays there are, and their shapes.

Promises: the same names whether the arrays came from safetensors, GGUF or our store; Q, K, V and gate, up are already
fused. It does not know files, formats inside a matrix, or how anything is multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phi4mini.config import Config
from phi4mini.formats import Matrix


@dataclass
class LayerWeights:
    """One decoder block. Norms are float32; a matrix has (output rows, input columns)."""

    input_norm: np.ndarray  # (hidden,) before attention
    qkv: Matrix  # (qkv_rows, hidden) rows: all Q heads, all K heads, all V heads
    o: Matrix  # (hidden, num_heads * head_dim)
    post_norm: np.ndarray  # (hidden,) before the MLP
    gate_up: Matrix  # (2 * intermediate, hidden) rows: gate first, then up
    down: Matrix  # (hidden, intermediate)


@dataclass
class Weights:
    """A whole model. `head` is the same object as `embed` when the two are tied."""

    config: Config
    embed: Matrix  # (vocab, hidden)
    layers: list[LayerWeights]
    norm: np.ndarray  # (hidden,) float32, before the head
    head: Matrix  # (vocab, hidden)

    @property
    def nbytes(self) -> int:
        """Bytes of all matrices, a tied head once: what one token reads, but for the norms."""
        layers = sum(m.nbytes for w in self.layers for m in (w.qkv, w.o, w.gate_up, w.down))
        return layers + self.embed.nbytes + (0 if self.head is self.embed else self.head.nbytes)
