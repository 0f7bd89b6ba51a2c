"""A format is a row of a table: formats that only tests know are packed, unpacked and multiplied like the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from phi4mini.formats.format_table import FORMATS, LANES
from phi4mini.formats.rounding import quantize
from phi4mini.kernels.cpu import cpu
from phi4mini.kernels.lang import build
from tests import tiny
from tests.engine import quantized
from tests.kernels import unpack_sample
from tests.kernels.harness import runnable_isas, same, under_isa
from tests.kernels.matmuls import Case, bound

NEW = unpack_sample.NEW
Q3 = NEW["new_q3"]
IDS = ([6] * 12, range(12))  # lengths and seeds of 12 sequences


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The new rows in the table. Kernels go to a folder of their own: the key of a kernel on disk has the name of a
    format, and the table that its hash covers is the package's.
    """
    for format in NEW.values():
        monkeypatch.setitem(FORMATS, format.name, format)
    monkeypatch.setattr(build.library(), "folder", tmp_path)


def test_three_bits_are_packed_as_the_module_says() -> None:
    """Found byte by byte: two bits of a weight in lines 0 to 3 of a step, the third in lines 4 and 5."""
    values = np.random.default_rng(0).standard_normal((20, 150)).astype(np.float32)
    matrix = quantize(values, Q3)
    assert Q3.bits_a_weight == 3.5 and matrix.nbytes == 2 * 3 * (2 * 32 + 6 * 64)
    got = matrix.dequantize()
    for row, col in zip(*np.unravel_index(np.arange(0, 3000, 7), (20, 150)), strict=True):
        block = matrix.strips()[row // LANES, col // 64]
        scale = block[:64].view(np.float16).reshape(2, LANES)[col % 64 // 32, row % LANES]
        lines, quad = block[64:].reshape(6, LANES, 4)[:, row % LANES, col % 4], col % 64 // 4
        q = lines[quad % 4] >> (2 * (quad // 4)) & 3 | (lines[4 + quad % 2] >> (quad // 2) & 1) << 2
        assert got[row, col] == np.float32(scale) * (float(q) - 4)
    np.testing.assert_array_equal(matrix.rows_at(np.array([17, 3])), got[[17, 3]])
    peak = np.abs(np.pad(values, ((0, 0), (0, 10))).reshape(20, 5, 32)).max(2)
    assert (np.abs(got - values) <= np.repeat(peak, 32, axis=1)[:, :150] * 0.46).all()


@pytest.mark.parametrize("format", NEW)
@pytest.mark.parametrize(("outputs", "cols"), [(256, 512), (200, 320)])
def test_products_are_those_of_numpy(format: str, outputs: int, cols: int) -> None:
    """With few rows and with many, within the error that the order of the sums allows, and the same bits."""
    c = Case(format, outputs, cols, 29)
    want, limit = c.activations @ c.weights.T + c.residual, bound(c, residual=True)
    many = c.product(29, residual=True)
    assert (np.abs(many - want) <= limit).all()
    wrong = np.outer(c.activations[:, 7], np.abs(c.weights[:, 7]) / 16)  # one weight of each row 6 % too large
    assert not (np.abs(many + wrong - want) <= limit).all()
    for rows in (1, 4, 8):
        assert same(c.product(rows, 3, residual=True), many[3 : 3 + rows])
    extreme = Case(format, outputs, cols, 13, extreme=True)
    assert same(extreme.product(1), extreme.product(13)[:1])


@pytest.mark.parametrize("isa", ["avxvnni", "avx2"])
def test_products_are_the_same_bits_under_every_instruction_set(isa: str) -> None:
    if isa not in runnable_isas() or isa == cpu().isa:
        pytest.skip(f"{isa} is not another instruction set of this CPU")
    assert json.loads(under_isa(isa, "tests.kernels.unpack_sample")) == unpack_sample.sample() | {"isa": isa}


def test_a_model_of_three_bits_runs() -> None:
    """Every kernel that reads a format's row: norms, SwiGLU and attention write its activations, the head refines."""
    weights = tiny.weights(tiny.config(), Q3.name)
    engine = tiny.engine(weights, "f32")
    errors = [np.abs(engine.logits(ids) - quantized.logits(weights, ids, "f32")).max() for ids in map(tiny.ids, *IDS)]
    # as in tests/engine/compute/test_forward.py: in half of the trials no rounding to int8 is a tie that f32 decides
    assert np.median(errors) < 1e-3


def test_groups_whose_bits_lie_in_one_place_are_not_shifted() -> None:
    assert [FORMATS["q4"].factor(group) for group in range(2)] == [1, 16]
    assert [NEW["new_q2"].factor(group) for group in range(4)] == [1, 4, 16, 64]
    assert [NEW["new_q2w"].factor(group) for group in range(2)] == [1, 1], "its groups hold two places each"
    assert [Q3.factor(group) for group in range(2)] == [1, 1], "its integers lie in two lines each"
