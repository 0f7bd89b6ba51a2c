"""Promise 1, definition: reference.py and Hugging Face's models agree; tiny twins, golden files from transformers."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from phi4mini.errors import BadInput
from phi4mini.formats.format_table import FORMATS
from phi4mini.formats.rounding import quantize
from phi4mini.model import reference
from phi4mini.model.longrope import RopeMode
from tests.golden import twins

# Logits of the twins reach 10. Float32 transformers lies up to 4e-5 from float64 here, and another BLAS sums in another
# order: five times that. In float64 only the float32 rotary tables differ, by a last place (6e-8), which moves logits
# by up to 4.5e-6: four times that. The weakest mistake below (eps 1e-6 for 1e-5) moves them by 5e-3, the others by 3.
F32, F64, MISTAKE = 2e-4, 2e-5, 2e-3


@pytest.mark.parametrize("name", twins.NAMES)
@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, F32), (np.float64, F64)])
def test_definition_logits_equal_transformers(name: str, dtype: Any, limit: float) -> None:
    weights, golden = twins.twin(name), twins.golden(name)
    for length in golden["lengths"]:
        got = reference.forward(weights, golden["ids"][:length], dtype=dtype)
        assert got.shape == (length, weights.config.vocab_size) and got.dtype == dtype
        rows = got[[0, length // 2, length - 1]]
        assert np.abs(rows - golden["logits"][f"f64_{length}"]).max() < limit
        assert np.abs(rows - golden["logits"][f"f32_{length}"]).max() < F32


@pytest.mark.parametrize("name", twins.NAMES)
@pytest.mark.parametrize("place", ["before", "across", "at", "after"])
def test_definition_greedy_tokens_equal_generate(name: str, place: str) -> None:
    """A fresh pass over the first n tokens gives what `generate` gave with its cache, across the boundary at 64 too."""
    weights, answer = twins.twin(name), twins.golden(name)["answers"][place]
    assert answer["smallest_margin"] > 100 * F32
    ids = list(answer["prompt"])
    for token in answer["greedy"]:
        assert int(reference.forward(weights, ids)[-1].argmax()) == token
        ids.append(token)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("phi3_longrope", {"attention_factor": 1.0}),
        ("phi3_longrope", {"rotary_dim": 32, "short_factor": None, "long_factor": None}),
        ("phi3_longrope", {"original_max_position_embeddings": 65, "attention_factor": 1.3540064}),
        ("phi3_untied", {"rope_theta": 20000.0}),
        ("phi3_window", {"sliding_window": 25}),
        ("phi3_window", {"sliding_window": 23}),
        ("phi3_window", {"sliding_window": None}),
        ("llama", {"rope_theta": 10000.0}),
        ("llama", {"rms_norm_eps": 1e-6}),
    ],
)
def test_a_wrong_number_is_seen(name: str, change: dict[str, Any]) -> None:
    """The golden logits are sharp enough to tell each of these mistakes from rounding."""
    weights, golden = twins.twin(name), twins.golden(name)
    weights.config = dataclasses.replace(weights.config, **change)
    got = reference.forward(weights, golden["ids"][:65])[[0, 32, 64]]
    assert np.abs(got - golden["logits"]["f64_65"]).max() > MISTAKE


def test_longrope_set_follows_the_length_or_the_request() -> None:
    weights, ids = twins.twin("phi3_longrope"), twins.golden("phi3_longrope")["ids"]
    cases: list[tuple[int, RopeMode, RopeMode]] = [(64, "short", "long"), (65, "long", "short")]
    for length, own, other in cases:
        auto = reference.forward(weights, ids[:length])
        assert np.array_equal(auto, reference.forward(weights, ids[:length], rope=own))
        assert np.abs(auto - reference.forward(weights, ids[:length], rope=other)).max() > MISTAKE


def test_hidden_is_what_the_head_multiplies() -> None:
    weights, ids = twins.twin("phi3_untied"), twins.golden("phi3_untied")["ids"][:20]
    x = reference.hidden(weights, ids)
    assert x.shape == (20, 96)
    assert np.array_equal(x @ weights.head.T, reference.forward(weights, ids))


def test_later_tokens_change_nothing_before_them() -> None:
    weights, ids = twins.twin("llama"), twins.golden("llama")["ids"][:40]
    whole, part = reference.forward(weights, ids), reference.forward(weights, ids[:17])
    assert np.abs(whole[:17] - part).max() < F32


def test_stored_matrices_are_dequantised() -> None:
    weights, ids = twins.twin("llama"), twins.golden("llama")["ids"][:12]
    stored = SimpleNamespace(**vars(weights))
    stored.embed = stored.head = quantize(weights.embed, FORMATS["q8"])
    stored.layers = [SimpleNamespace(**vars(layer)) for layer in weights.layers]
    stored.layers[0].down = quantize(weights.layers[0].down, FORMATS["f32"])
    plain = SimpleNamespace(**vars(weights))
    plain.embed = plain.head = stored.embed.dequantize()
    assert np.array_equal(reference.forward(stored, ids), reference.forward(plain, ids))
    assert not np.array_equal(reference.forward(stored, ids), reference.forward(weights, ids))


def test_round_input_meets_every_product_and_round_kv_every_layer() -> None:
    weights, ids = twins.twin("phi3_longrope"), twins.golden("phi3_longrope")["ids"][:9]
    config, inputs, cached = weights.config, [], []

    def note_input(x: np.ndarray) -> np.ndarray:
        inputs.append(x.shape)
        return x

    def note_kv(x: np.ndarray) -> np.ndarray:
        cached.append(x.shape)
        return x

    got = reference.forward(weights, ids, round_input=note_input, round_kv=note_kv)
    assert np.array_equal(got, reference.forward(weights, ids))
    assert inputs == [(9, 128), (9, 128), (9, 128), (9, 192)] * config.num_layers + [(9, 128)]
    assert cached == [(config.num_kv_heads, 9, config.head_dim)] * 2 * config.num_layers
    coarse = reference.forward(weights, ids, round_input=lambda x: np.round(x * 8) / 8)
    assert 1e-3 < np.abs(coarse - got).max() < 10


@pytest.mark.parametrize("x", [-1000.0, -80.0, -1.0, 0.0, 1.0, 1000.0])
def test_silu(x: float) -> None:
    with np.errstate(over="raise"):
        got = reference.silu(np.array([x], np.float32))[0]
    assert got == pytest.approx(x / (1 + np.exp(-x, dtype=np.longdouble)), rel=1e-6, abs=1e-30)


@pytest.mark.parametrize("ids", [[], [[1, 2]], [1.5], ["a"], [-1], [320], [True]])
def test_ids_that_are_none_are_refused(ids: Any) -> None:
    with pytest.raises(BadInput, match="ids must be"):
        reference.forward(twins.twin("llama"), ids)
