"""Recipes and packing: the right format for each matrix, the same bytes for any chunking, bad numbers named."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini.errors import BadCheckpoint, BadInput
from phi4mini.formats.format_table import FORMATS
from phi4mini.formats.matrix import Matrix
from phi4mini.formats.rounding import quantize
from phi4mini.weights.checkpoints.row_reader import Fused
from phi4mini.weights.store import recipes as module
from phi4mini.weights.store.recipes import RECIPES, ordered, pack, plan, recipe
from tests.weights.checkpoints.test_row_reader import Held


def floats(rows: int, cols: int, seed: int = 0) -> Fused:
    return Fused([Held(np.random.default_rng(seed).standard_normal((rows, cols)) * 0.02)])


def packed(rows: Fused, name: str) -> np.ndarray:
    return np.concatenate(list(pack("m", rows, FORMATS[name])))


@pytest.mark.parametrize("name", ["f32", "bf16", "q8", "q4", "q4m"])
@pytest.mark.parametrize(("rows", "cols"), [(1, 32), (16, 64), (100, 96), (700, 3072), (3, 20)])
def test_packing_by_chunks_equals_packing_at_once(name, rows, cols, monkeypatch):
    source = floats(rows, cols)
    by_chunks = packed(source, name)
    monkeypatch.setattr(module, "_CHUNK", 1 << 30)
    np.testing.assert_array_equal(by_chunks, packed(source, name))


@pytest.mark.parametrize("name", ["f32", "bf16", "q8", "q4", "q4m"])
@pytest.mark.parametrize("cols", [96, 40])
def test_packing_is_no_worse_than_the_plain_form(name, cols):
    source = floats(100, cols)
    exact = source.values(0, 100)

    def error(matrix: Matrix) -> float:
        return float(((matrix.dequantize() - exact) ** 2).sum())

    ours = Matrix(FORMATS[name], 100, cols, packed(source, name))
    assert error(ours) <= error(quantize(exact, FORMATS[name]))


def test_threads_keep_the_order_and_bound_the_memory():
    alive, most = set(), []

    def work(i: int) -> np.ndarray:
        alive.add(i)
        most.append(len(alive))
        return np.full(1, i % 256, np.uint8)

    for i, chunk in enumerate(ordered(work, range(500))):
        assert chunk[0] == i % 256
        alive.discard(i)
    assert max(most) <= 3 * 8 + 2


def test_an_error_in_a_thread_ends_the_work():
    def work(i: int) -> np.ndarray:
        if i == 3:
            raise BadInput("three")
        return np.zeros(1, np.uint8)

    with pytest.raises(BadInput, match="three"):
        list(ordered(work, range(1000)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["f32", "bf16", "q8", "q4", "q4m"])
def test_nan_and_infinity_are_named_with_their_rows(name, bad):
    source = floats(400, 3072)
    source.parts[0].array[333, 7] = bad
    with pytest.raises(BadCheckpoint, match=r"m, rows 320 to 399: the weights hold NaN or infinity"):
        packed(source, name)


def test_a_weight_beyond_a_half_scale_is_refused_not_turned_into_infinity():
    source = floats(16, 64)
    source.parts[0].array[0, 0] = -1e30
    for name in ("q8", "q4", "q4m"):
        with pytest.raises(BadCheckpoint, match=r"m, rows 0 to 15: a .* beyond what"):
            packed(source, name)


def test_recipes_name_a_format_for_every_kind():
    for chosen in RECIPES.values():
        for kind in ("embed", "head", "layers.0.qkv", "layers.0.o", "layers.0.gate_up", "layers.0.down"):
            assert chosen.wanted(kind, tied=False).name in FORMATS
    head8 = recipe("q4-head8")
    assert head8.wanted("head", tied=False).name == "q8" and head8.wanted("embed", tied=False).name == "q4"
    assert head8.wanted("embed", tied=True).name == "q8" and head8.wanted("layers.3.down", tied=True).name == "q4"


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(BadInput, match="unknown quantisation 'q5'; there are f32, bf16, q8, q4"):
        recipe("q5")


def test_blocks_stay_only_where_the_recipe_keeps_them():
    blocks = Fused([Held(np.ones((16, 64)), FORMATS["q4m"])])
    mixed = Fused([Held(np.ones((16, 64)), FORMATS["q4m"]), Held(np.ones((16, 64)), FORMATS["q8"])])
    assert plan("layers.0.o", blocks, recipe("q4"), True).name == "q4m"
    assert plan("layers.0.o", blocks, recipe("q8"), True).name == "q8"
    assert plan("layers.0.qkv", mixed, recipe("q4"), True).name == "q4m*16+q8*16"
    odd = Fused([Held(np.ones((17, 64)), FORMATS["q4m"]), Held(np.ones((16, 64)), FORMATS["q8"])])
    assert plan("layers.0.qkv", odd, recipe("q4"), True).name == "f32", "a part is whole strips"
    partly = Fused([Held(np.ones((16, 64)), FORMATS["q4m"]), Held(np.ones((16, 64)))])
    assert plan("layers.0.qkv", partly, recipe("q4"), True).name == "q4m*16+q4*16", "each what it is by itself"
    assert plan("layers.0.qkv", mixed, recipe("q8"), True).name == "q8"
    assert plan("layers.0.o", floats(16, 64), recipe("q4"), True).name == "q4"
