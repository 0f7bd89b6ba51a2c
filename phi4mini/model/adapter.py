"""A LoRA adapter: matrices of low rank that are added to those of a model without changing them.

    y = W x + scale * B (A x)        A f32 (rank, inputs), B f32 (outputs, rank)

Promises: an `Adapter` that exists is well-formed and cannot change, and `fingerprint` is a function of all numbers in
it and of nothing else, so that a cache of keys and values can be keyed by it. It does not know files, names of
checkpoints, or how fast paths multiply. Source of the formula: Hu et al., LoRA, arXiv 2106.09685.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from phi4mini.errors import BadInput
from phi4mini.model.config import Config

MATRICES = ("qkv", "o", "gate_up", "down")  # of a layer, by the field of `LayerWeights`


@dataclass(frozen=True, eq=False)
class LowRank:
    """What is added to one matrix: scale * B A. The arrays become read-only. Raises `BadInput`."""

    a: np.ndarray  # float32 (rank, inputs)
    b: np.ndarray  # float32 (outputs, rank)
    scale: float  # alpha / rank, or alpha / sqrt(rank) where an adapter was trained so

    def __post_init__(self) -> None:
        for name, array in (("A", self.a), ("B", self.b)):
            if array.ndim != 2 or array.dtype != np.float32 or not array.size:
                raise BadInput(f"LoRA {name} must be float32 of two dimensions, got {array.shape} {array.dtype}")
            if not np.isfinite(array).all():
                raise BadInput(f"LoRA {name} holds NaN or infinity")
        if self.a.shape[0] != self.b.shape[1]:
            raise BadInput(f"LoRA A {self.a.shape} and B {self.b.shape} have different ranks")
        if not math.isfinite(self.scale):
            raise BadInput(f"LoRA scale must be a finite number, got {self.scale!r}")
        for name in ("a", "b"):
            copy = np.array(getattr(self, name), order="C")
            copy.flags.writeable = False
            object.__setattr__(self, name, copy)

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs) of the matrix it is for."""
        return self.b.shape[0], self.a.shape[1]

    def merged(self) -> np.ndarray:
        """scale * B A in float64, what is to be added to the matrix: (outputs, inputs)."""
        return self.scale * (self.b.astype(np.float64) @ self.a.astype(np.float64))


@dataclass(frozen=True, eq=False)
class Adapter:
    """One adapter: for each layer, the matrices it changes by their name in `MATRICES`; a layer may change none."""

    layers: Sequence[Mapping[str, LowRank]]
    fingerprint: str = field(init=False)  # sha256 as hex

    def __post_init__(self) -> None:
        layers = tuple(MappingProxyType(dict(layer)) for layer in self.layers)
        for number, layer in enumerate(layers):
            for name in layer:
                if name not in MATRICES:
                    raise BadInput(f"layer {number}: {name!r} is not one of {', '.join(MATRICES)}")
        if not any(layers):
            raise BadInput("the adapter changes no matrix")
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "fingerprint", _fingerprint(layers))

    @property
    def nbytes(self) -> int:
        """Bytes of all A and B."""
        return sum(part.a.nbytes + part.b.nbytes for layer in self.layers for part in layer.values())

    def check(self, config: Config) -> None:
        """Refuse a model of another shape. Raises `BadInput` naming the layer, the matrix and both shapes."""
        if len(self.layers) != config.num_layers:
            raise BadInput(f"the adapter has {len(self.layers)} layers, the model {config.num_layers}")
        for number, layer in enumerate(self.layers):
            for name, part in layer.items():
                if part.shape != config.layer_shapes[name]:
                    raise BadInput(
                        f"layer {number}: the adapter's {name} is for {part.shape}, the model's is "
                        f"{config.layer_shapes[name]}"
                    )


def _fingerprint(layers: Sequence[Mapping[str, LowRank]]) -> str:
    """A hash of every number and its place; the order in which matrices were given does not matter."""
    digest = hashlib.sha256(b"lora 1")
    for number, layer in enumerate(layers):
        for name, part in sorted(layer.items()):
            digest.update(f"|{number} {name} {part.shape} {part.rank} {float(part.scale).hex()}|".encode())
            digest.update(part.a.astype("<f4").tobytes())
            digest.update(part.b.astype("<f4").tobytes())
    digest.update(f"{len(layers)}".encode())
    return digest.hexdigest()
