"""Promise 1, definition: the f32 engine agrees with reference.py, quantised ones with it under their rounding."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini import reference
from phi4mini.config import Config
from phi4mini.engine.buffers import MAX_ROWS, PADDING, PARTIAL_ROWS, rows_that_fit
from phi4mini.engine.engine import Engine
from phi4mini.engine.forward import check_shapes
from phi4mini.errors import BadInput
from phi4mini.kernels import matmul
from phi4mini.kernels.attention import partial_floats
from phi4mini.kernels.kv import CHUNK
from phi4mini.weights.arrays import Weights
from tests import tiny
from tests.engine import quantized

MODELS = {
    "Phi-3, LongRoPE, groups of 2, tied": tiny.config(),
    "Phi-3, window, no groups, untied": tiny.config(num_kv_heads=4, sliding_window=20, tie_word_embeddings=False),
    "Llama, groups of 4, tied": tiny.llama(num_kv_heads=1),
    "Llama, groups of 3, heads of 64, odd widths": tiny.llama(
        num_heads=3, num_kv_heads=1, head_dim=64, rotary_dim=64, hidden_size=96, intermediate_size=160, vocab_size=163,
        tie_word_embeddings=False, eos_token_ids=(),
    ),
}  # fmt: skip

# Float32 rounding, u = 6e-8, in units of a logit of 10: each row passes 8 products and a head of 128 terms with
# relative errors around sqrt(128) u, two softmaxes and four norms around 10 u; these add up like a random walk of 15
# steps of 1e-6 x 10, and attention and SwiGLU may enlarge a step a few times. NumPy's own float32 lies 5e-5 from
# float64 here.
LIMIT = 2e-4


@pytest.mark.parametrize("name", MODELS)
def test_definition_f32_engine_equals_reference(name: str) -> None:
    weights = tiny.weights(MODELS[name], "f32")
    ids = tiny.ids(150)
    engine = tiny.engine(weights, "f32")
    got, want = engine.logits(ids), reference.forward(tiny.dense_arrays(weights), ids, dtype=np.float64)
    assert got.shape == want.shape and got.dtype == np.float32
    worst = np.unravel_index(np.abs(got - want).argmax(), got.shape)
    print(f"{name}: worst {np.abs(got - want)[worst]:.2g} at {worst} of logits to {np.abs(want).max():.3g}")
    assert np.abs(got - want).max() < LIMIT
    ranked = np.sort(want, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 2 * LIMIT
    assert clear.mean() > 0.9 and np.array_equal(got.argmax(1)[clear], want.argmax(1)[clear])


@pytest.mark.parametrize("rope", ["short", "long"])
def test_definition_rope_of_the_request(rope: str) -> None:
    weights, ids = tiny.weights(tiny.config(), "f32"), tiny.ids(90)
    arrays = tiny.dense_arrays(weights)
    got = tiny.engine(weights, "f32").logits(ids, rope)
    assert np.abs(got - reference.forward(arrays, ids, rope, dtype=np.float64)).max() < LIMIT
    other = "long" if rope == "short" else "short"
    assert np.abs(got - reference.forward(arrays, ids, other, dtype=np.float64)).max() > 1


def mixed_recipe() -> Weights:
    """A format for each kind of matrix: k-quants in one place, dense in another, the head apart."""
    made = {f: tiny.weights(tiny.config(tie_word_embeddings=False), f) for f in ("q4m", "q6k", "q4k", "bf16", "q8")}
    weights = made["q4m"]
    for i, layer in enumerate(weights.layers):
        layer.down, layer.o = made["q6k"].layers[i].down, made["bf16"].layers[i].o
        layer.gate_up = made["q4k"].layers[i].gate_up
    weights.head, weights.embed = made["q6k"].head, made["q8"].embed
    return weights


TRIALS = 24


@pytest.mark.parametrize("kv", ["f32", "int8"])
@pytest.mark.parametrize("format", ["q8", "q4", "q4m", "q5m", "q2k", "q4k", "q5k", "q6k", "q8k", "bf16", "mixed"])
def test_definition_quantised_engine_equals_reference_under_its_rounding(format: str, kv: str) -> None:
    """Many short sequences. In each, all roundings to int8 fall as in float64 and the logits agree like floats, or
    float32 has decided a tie otherwise and one number is a step (1/127 of a group's largest) off. About 1,500 numbers
    of 6 rows are rounded, each with a chance of 127 x 10 u x 2 = 2e-4 to lie that near a tie; an int8 cache rounds 500
    more, after longer chains. So half of the trials (a quarter with that cache) must agree closely, and 20 times
    closer than rounding itself moves anything.
    """
    weights = mixed_recipe() if format == "mixed" else tiny.weights(tiny.config(), format)
    engine = tiny.engine(weights, kv)
    errors, effects, agree = [], [], []
    for seed in range(TRIALS):
        ids = tiny.ids(6, seed)
        got, want = engine.logits(ids), quantized.logits(weights, ids, kv)
        exact = reference.forward(tiny.dense_arrays(weights), ids, dtype=np.float64)
        errors.append(np.abs(got - want).max())
        effects.append(np.abs(got - exact).max())
        agree.append(got.argmax(1) == want.argmax(1))
    errors, effects = np.sort(errors), np.sort(effects)
    show = " ".join(f"{e:.1e}" for e in errors[:: TRIALS // 4])
    print(f"{format}, {kv}: errors {show} .. {errors[-1]:.1e}; of rounding itself {np.median(effects):.2g}")
    close = errors[TRIALS // (4 if kv == "int8" else 2)]
    assert close < 1e-3
    if (format, kv) != ("bf16", "f32"):  # where nothing is rounded
        assert effects[0] > 20 * close and errors[-1] < effects[-1]
    assert np.mean(agree) > 0.97


# limits ---------------------------------------


@pytest.mark.parametrize(
    "changes", [{"hidden_size": 80}, {"intermediate_size": 100}, {"head_dim": 48}, {"head_dim": 24}]
)
def test_shapes_that_vectors_cannot_tile_are_refused(changes: dict) -> None:
    with pytest.raises(BadInput, match=f"{next(iter(changes))} is {next(iter(changes.values()))}; .* multiple of 32"):
        check_shapes(tiny.config(**changes))


def test_no_shape_of_a_pass_outgrows_its_buffers() -> None:
    for longest in (1, 1023, 1024, 4096, 100_000, 131_072, 1 << 20):
        rows, chunks = rows_that_fit(longest), longest // CHUNK + 1
        assert 8 <= rows <= MAX_ROWS
        config = Config.phi4_mini()
        if longest <= config.max_position_embeddings:
            assert rows * chunks <= PARTIAL_ROWS + MAX_ROWS + PADDING
            assert rows * chunks * config.num_heads * partial_floats(config.head_dim) * 4 < 100e6
    for wide in (1, 2, 3, 4):
        assert -(-MAX_ROWS // matmul.tile_rows(wide)) * matmul.tile_rows(wide) <= MAX_ROWS + PADDING


def test_an_engine_says_what_it_cannot_be() -> None:
    weights = tiny.weights(tiny.config(num_layers=1))
    with pytest.raises(BadInput, match="kv must be int8 or f32, got 'f16'"):
        Engine(weights, kv="f16")
    for ctx in (0, 1, 2049):
        with pytest.raises(BadInput, match=f"ctx must be from 2 to 2048, the model's longest context, got {ctx}"):
            Engine(weights, ctx=ctx)
