"""Adapters: the sum W + scale * B A, what is refused, and a fingerprint of every number and nothing else."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from phi4mini.errors import BadInput
from phi4mini.model import reference
from phi4mini.model.adapter import MATRICES, Adapter, LowRank
from phi4mini.model.config import Config
from tests.golden import twins


def low_rank(shape: tuple[int, int], rank: int = 4, scale: float = 0.5, seed: int = 0) -> LowRank:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((rank, shape[1])), rng.standard_normal((shape[0], rank))
    return LowRank((a / np.sqrt(shape[1])).astype(np.float32), (0.3 * b).astype(np.float32), scale)


def adapter_for(config: Config, which: tuple[str, ...] = MATRICES) -> Adapter:
    """Ranks and scales that differ from matrix to matrix; the last layer changes its qkv only."""
    layers = [
        {name: low_rank(config.layer_shapes[name], 2 + i, 0.25 * (i + 1), 9 * n + i) for i, name in enumerate(which)}
        for n in range(config.num_layers - 1)
    ]
    return Adapter([*layers, {"qkv": low_rank(config.layer_shapes["qkv"], 1, 2.0, 99)}])


def merged(weights: Any, adapter: Adapter) -> Any:
    """The model with scale * B A added to its matrices, in float64."""
    model = SimpleNamespace(**vars(weights))
    model.layers = [SimpleNamespace(**vars(layer)) for layer in weights.layers]
    for layer, parts in zip(model.layers, adapter.layers, strict=True):
        for name, part in parts.items():
            setattr(layer, name, np.asarray(getattr(layer, name), np.float64) + part.merged())
    return model


@pytest.mark.parametrize("name", twins.NAMES)
@pytest.mark.parametrize("which", [MATRICES, ("qkv", "down"), ("o",), ("gate_up",)])
def test_definition_an_adapter_is_the_merged_model(name: str, which: tuple[str, ...]) -> None:
    weights, ids = twins.twin(name), twins.golden(name)["ids"][:65]
    adapter = adapter_for(weights.config, which)
    got = reference.forward(weights, ids, dtype=np.float64, adapter=adapter)
    want = reference.forward(merged(weights, adapter), ids, dtype=np.float64)
    assert np.abs(got - want).max() < 1e-10
    assert np.abs(got - reference.forward(weights, ids, dtype=np.float64)).max() > 0.1
    assert np.abs(reference.forward(weights, ids, adapter=adapter) - want).max() < 2e-4  # as in test_reference.py


def test_an_adapter_reads_the_rounded_input_of_its_matrix() -> None:
    weights, ids = twins.twin("llama"), twins.golden("llama")["ids"][:12]
    adapter = adapter_for(weights.config)

    def coarse(x: np.ndarray) -> np.ndarray:
        return np.round(x * 8) / 8

    got = reference.forward(weights, ids, dtype=np.float64, round_input=coarse, adapter=adapter)
    want = reference.forward(merged(weights, adapter), ids, dtype=np.float64, round_input=coarse)
    assert np.abs(got - want).max() < 1e-10


def test_a_product_is_that_of_the_merged_matrix() -> None:
    part = low_rank((40, 24), rank=3, scale=1.5)
    assert part.rank == 3 and part.shape == (40, 24)
    rng = np.random.default_rng(1)
    x, matrix = rng.standard_normal((5, 24)), rng.standard_normal((40, 24))
    np.testing.assert_allclose(reference.product(x, matrix, part), x @ (matrix + part.merged()).T, atol=1e-12)
    assert reference.product(x.astype(np.float32), matrix, part).dtype == np.float32


def test_an_adapter_cannot_be_changed() -> None:
    a, b = np.ones((2, 8), np.float32), np.ones((6, 2), np.float32)
    part = LowRank(a, b, 1.0)
    adapter = Adapter([{"o": part}])
    before = adapter.fingerprint
    a[:] = 7
    assert (part.a == 1).all() and Adapter([{"o": part}]).fingerprint == before
    with pytest.raises(ValueError, match="read-only"):
        part.b[0, 0] = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        part.scale = 2.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        adapter.layers[0]["qkv"] = part  # type: ignore[index]
    assert adapter.nbytes == 4 * (16 + 12)


def test_the_fingerprint_is_of_every_number_and_nothing_else() -> None:
    def made(**changes: Any) -> Adapter:
        given = {"a": np.ones((2, 8), np.float32), "b": np.ones((6, 2), np.float32), "scale": 1.0, **changes}
        return Adapter([{}, {"o": LowRank(**given), "qkv": low_rank((8, 8))}])

    first = made()
    assert len(first.fingerprint) == 64 and first.fingerprint == made().fingerprint
    parts = dict(first.layers[1])
    assert Adapter([{}, {"qkv": parts["qkv"], "o": parts["o"]}]).fingerprint == first.fingerprint, "order"
    fortran = np.asfortranarray(np.arange(16, dtype=np.float32).reshape(2, 8))
    assert made(a=fortran).fingerprint == made(a=np.ascontiguousarray(fortran)).fingerprint, "order in memory"
    one = np.ones((2, 8), np.float32)
    one[1, 7] = np.nextafter(np.float32(1), np.float32(2))
    others = [
        made(a=one),
        made(b=np.zeros((6, 2), np.float32)),
        made(scale=np.nextafter(1.0, 2)),
        made(a=np.ones((8, 2), np.float32), b=np.ones((2, 8), np.float32)),
        Adapter([{}, {"qkv": parts["qkv"]}]),
        Adapter([parts, {}]),
        Adapter([{}, parts, {}]),
        Adapter([{}, {"gate_up": parts["o"], "qkv": parts["qkv"]}]),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("a", "b", "scale", "why"),
    [
        (np.ones((2, 8)), np.ones((6, 2), np.float32), 1.0, "float32 of two dimensions, got .* float64"),
        (np.ones(8, np.float32), np.ones((6, 2), np.float32), 1.0, "LoRA A must be float32 of two dimensions"),
        (np.ones((2, 8), np.float32), np.ones((0, 2), np.float32), 1.0, "LoRA B must be float32 of two dimensions"),
        (np.full((2, 8), np.nan, np.float32), np.ones((6, 2), np.float32), 1.0, "LoRA A holds NaN or infinity"),
        (np.ones((2, 8), np.float32), np.full((6, 2), np.inf, np.float32), 1.0, "LoRA B holds NaN or infinity"),
        (np.ones((2, 8), np.float32), np.ones((6, 3), np.float32), 1.0, "have different ranks"),
        (np.ones((2, 8), np.float32), np.ones((6, 2), np.float32), float("inf"), "scale must be a finite number"),
    ],
)
def test_what_is_no_low_rank_matrix_is_refused(a: np.ndarray, b: np.ndarray, scale: float, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        LowRank(a, b, scale)


def test_an_adapter_for_another_model_is_refused() -> None:
    config = twins.twin("llama").config
    with pytest.raises(BadInput, match="the adapter changes no matrix"):
        Adapter([{}, {}])
    with pytest.raises(BadInput, match="layer 0: 'embed' is not one of qkv, o, gate_up, down"):
        Adapter([{"embed": low_rank((8, 8))}])
    with pytest.raises(BadInput, match=f"the adapter has 1 layers, the model {config.num_layers}"):
        reference.forward(twins.twin("llama"), [5], adapter=Adapter([{"o": low_rank((8, 8))}]))
    with pytest.raises(BadInput, match=r"layer 0: the adapter's o is for \(8, 8\), the model's is"):
        Adapter([{"o": low_rank((8, 8))}, *([{}] * (config.num_layers - 1))]).check(config)
