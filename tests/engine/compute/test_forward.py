"""Promise 1, definition: the f32 engine agrees with reference.py, quantised ones with it under their rounding."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from phi4mini.engine.compute.buffers import MAX_ROWS, PADDING, PARTIAL_ROWS, rows_that_fit
from phi4mini.engine.compute.forward import check_shapes
from phi4mini.engine.engine import Engine
from phi4mini.errors import BadInput
from phi4mini.formats.format_table import FORMATS, LANES
from phi4mini.kernels import matmul
from phi4mini.kernels.attention import partial_floats
from phi4mini.kernels.kv import CHUNK
from phi4mini.model import reference
from phi4mini.model.arrays import Stack, Weights
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints.gguf_model import open_gguf
from phi4mini.weights.store.convert import convert
from phi4mini.weights.store.store import open_store
from tests import tiny
from tests.engine import quantized
from tests.weights.twins import config_json, write_gguf

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


# matrices in parts ---------------------------------------


def cut(weights: Weights, others: dict[int, Weights] | None = None, at: tuple[int, ...] = (128, 192)) -> Weights:
    """The same weights, QKV (and gate, up) as stacks; part i is taken from others[i] where there is one."""

    def stack(name: str, layer: int, bounds: list[int]) -> Stack:
        parts = []
        for i, (first, end) in enumerate(pairwise(bounds)):
            m = getattr((others or {}).get(i, weights).layers[layer], name)
            parts.append(
                tiny.stored(m.strips()[first // LANES : end // LANES].reshape(-1), m.format, end - first, m.cols)
            )
        return Stack(parts)

    c = weights.config
    layers = [
        replace(
            w,
            qkv=stack("qkv", i, [0, *at, c.qkv_rows]),
            gate_up=stack("gate_up", i, [0, c.intermediate_size, 2 * c.intermediate_size]),
        )
        for i, w in enumerate(weights.layers)
    ]
    return replace(weights, layers=layers)


def same_in_every_pass(one: Engine, two: Engine) -> None:
    """Passes of one row, a few and many: the same bits."""
    for ids in (tiny.ids(1), tiny.ids(2), tiny.ids(7), tiny.ids(40)):
        np.testing.assert_array_equal(one.logits(ids).view(np.uint32), two.logits(ids).view(np.uint32))


@pytest.mark.parametrize("format", [*FORMATS])
@pytest.mark.parametrize("at", [(128, 192), (16,)], ids=["q, k, v", "a strip"])
def test_GG10_a_matrix_cut_into_parts_computes_the_same_bits(format: str, at: tuple[int, ...]) -> None:
    """Whatever the format and wherever the cut."""
    whole = tiny.weights(tiny.config(num_layers=1), format)
    same_in_every_pass(tiny.engine(cut(whole, at=at)), tiny.engine(whole))


@pytest.mark.parametrize(
    "formats",
    [("q4k", "q4k", "q6k"), ("q5k", "q5k", "q6k"), ("q2k", "q2k", "q4k"), ("q8", "q5k", "q6k"), ("q4", "q4m", "q4"),
     ("f32", "q4", "bf16"), ("q8k", "q8k", "q5k"), ("q4m", "f32", "q4m"), ("q5m", "q8", "q2k"), ("q6k", "q4", "q4k")],
    ids="-".join,
)  # fmt: skip
@pytest.mark.parametrize("threads", [1, 3])
def test_GG10_each_part_is_what_it_is_in_a_matrix_of_its_format(formats: tuple[str, ...], threads: int) -> None:
    """Rows of Q, K and V, and of gate and up, equal those of unsplit models in the part's own format, bit for bit."""
    config = tiny.config(num_layers=1)
    made = {name: tiny.weights(config, name) for name in set(formats)}
    stacked = tiny.engine(cut(made[formats[0]], {1: made[formats[1]], 2: made[formats[2]]}), threads=threads)
    for count in (1, 5, 40):
        ids = tiny.ids(count)
        stacked.logits(ids)
        got = stacked.network.buffers.qkv[:count, : config.qkv_rows].copy()
        for name, first, end in zip(formats, (0, 128, 192), (128, 192, 256), strict=True):
            alone = tiny.engine(replace(made[name], embed=made[formats[0]].embed, head=made[formats[0]].embed))
            alone.logits(ids)
            np.testing.assert_array_equal(got[:, first:end], alone.network.buffers.qkv[:count, first:end])


def test_GG10_layers_of_several_makes_equal_the_reference() -> None:
    """As in a Q4_K_M file: some layers in parts, others whole; and float parts as close as a float model is."""
    weights = tiny.weights(tiny.config(), "f32")
    stacked = cut(weights)
    stacked.layers[1] = weights.layers[1]
    ids = tiny.ids(150)
    got, want = (tiny.engine(stacked, "f32").logits(ids), reference.forward(stacked, ids, dtype=np.float64))
    assert np.abs(got - want).max() < LIMIT
    made = {name: tiny.weights(tiny.config(), name) for name in ("q4k", "q5k")}
    stacked = cut(made["q4k"], {2: made["q5k"]})
    stacked.layers[1] = made["q4k"].layers[1]
    engine, errors = tiny.engine(stacked, "f32"), []
    for seed in range(TRIALS):
        ids = tiny.ids(6, seed)
        errors.append(np.abs(engine.logits(ids) - quantized.logits(stacked, ids, "f32")).max())
    assert np.sort(errors)[TRIALS // 2] < 1e-3


def test_GG10_a_file_of_several_types_runs_from_its_store(tmp_path: Path) -> None:
    """GGUF to logits: rounding of activations is all that is between the file's exact values and the engine."""
    shapes = dict(hidden_size=256, intermediate_size=256, num_attention_heads=4, num_key_value_heads=2)
    config = Config.from_json(config_json("Llama", **shapes))
    write_gguf(tmp_path / "m.gguf", config, {"attn_v": "Q6_K", "ffn_up": "Q5_0"}, default="Q4_K")
    convert(open_gguf(tmp_path / "m.gguf"), "q4", tmp_path / "m.phi4")
    weights = open_store(tmp_path / "m.phi4").weights
    assert isinstance(weights.layers[0].qkv, Stack) and isinstance(weights.layers[1].gate_up, Stack)
    ids = tiny.ids(20, vocab=300)
    got, want = tiny.engine(weights, "f32").logits(ids), reference.forward(weights, ids, dtype=np.float64)
    assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.995


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
