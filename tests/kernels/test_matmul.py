"""Matrix products in every format: right within their derived error, and the same bits however many rows or threads."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from phi4mini.formats.format_table import FORMATS
from phi4mini.kernels import matmul
from tests.kernels.harness import same
from tests.kernels.matmuls import Case, bound

MOST = 64
# strips by tile width: 16 -> 4, 15 -> 3, 14 -> 2, 13 -> 1; 13 with rows that do not fill the last strip
SHAPES = {4: (256, 512), 3: (240, 320), 2: (224, 288), 1: (200, 320)}
FULL = [(name, 4) for name in FORMATS]
ODD = [("f32", 1), ("f32", 2), ("q4m", 1), ("q4m", 3), ("q8", 2), ("q6k", 3), ("q6k", 2), ("q6k", 1)]


@cache
def case(format: str, wide: int) -> Case:
    """The case of a tile width, made once."""
    made = Case(format, *SHAPES[wide], MOST)
    assert matmul.tile_strips(len(made.matrix.strips())) == wide
    return made


@pytest.mark.parametrize(("format", "wide"), FULL + ODD)
@pytest.mark.parametrize("residual", [False, True])
def test_products_are_right_within_the_derived_error(format: str, wide: int, residual: bool) -> None:
    c = case(format, wide)
    want = c.activations @ c.weights.T + (c.residual if residual else 0)
    error = np.abs(c.product(MOST, residual=residual) - want)
    limit = bound(c, residual)
    worst = np.unravel_index((error / limit).argmax(), error.shape)
    print(f"{format} {c.outputs} x {c.cols}: worst element {worst}, error {error[worst]:.3g} of {limit[worst]:.3g}")
    assert (error <= limit).all()
    wrong = want + np.outer(c.activations[:, 7], np.abs(c.weights[:, 7]) / 16)  # one weight of each row 6 % too large
    assert not (np.abs(wrong - want - error) <= limit).all(), "the bound is too loose to tell a mistake"


@pytest.mark.parametrize("format", FORMATS)
def test_the_largest_integers_do_not_overflow(format: str) -> None:
    c = Case(format, 256, 512, 13, extreme=True)
    want, limit = c.activations @ c.weights.T, bound(c, False)
    if c.format.block:
        assert np.abs(c.integers).min() == 127
    for rows in (1, 13):
        assert (np.abs(c.product(rows) - want[:rows]) <= limit[:rows]).all()


@pytest.mark.parametrize(("format", "wide"), FULL + ODD)
@pytest.mark.parametrize("residual", [False, True])
def test_the_number_of_rows_changes_no_bit(format: str, wide: int, residual: bool) -> None:
    c = case(format, wide)
    all_rows = c.product(MOST, residual=residual)
    few = range(1, 9) if residual and wide == 4 and format in ("f32", "q4", "q6k") else (1, 2 + wide)
    for rows in (*few, 9, 12, 13, 29):
        first = (rows * 5) % 17
        part = c.product(rows, first, residual)
        assert same(part, all_rows[first : first + rows]), f"{rows} rows differ from {MOST}"


@pytest.mark.parametrize(("format", "wide"), [*FULL, ("q4m", 1)])
@pytest.mark.parametrize("rows", [1, 4, 29])
def test_the_number_of_threads_changes_no_bit(format: str, wide: int, rows: int) -> None:
    c = case(format, wide)
    alone = c.product(rows, residual=True)
    for threads in (2, 3):
        assert same(c.product(rows, residual=True, threads=threads), alone)


@pytest.mark.parametrize("wide", [4, 1])
def test_parts_of_tiles_change_no_bit(wide: int) -> None:
    """From 32 turns of rows on, the last tiles are cut among threads; the kernel for eight rows knows no tiles."""
    outputs, cols = SHAPES[wide]
    rows = 2 + matmul.WORTH_CUTTING * matmul.tile_rows(wide)
    c = Case("q4", outputs, cols, rows)
    few = [c.product(min(8, rows - first), first, residual=True) for first in range(0, rows, 8)]
    for threads in (1, 2, 3, 7):
        assert same(c.product(rows, residual=True, threads=threads), np.concatenate(few)), f"{threads} threads"


@pytest.mark.parametrize("format", [name for name, f in FORMATS.items() if f.block])
@pytest.mark.parametrize("cols", [1280, 1376])
def test_the_length_of_a_panel_changes_no_bit(format: str, cols: int) -> None:
    """Against the kernel that has no panels; 1,376 inputs fill the last panel of no length."""
    c = Case(format, 64, cols, 13)
    few = np.concatenate([c.product(1, row, residual=True) for row in range(13)])
    for panel in (256, 512, 1024):
        assert same(c.product(13, residual=True, panel=panel), few), f"panels of {panel}"


@pytest.mark.parametrize("format", FORMATS)
def test_a_row_does_not_see_its_neighbours(format: str) -> None:
    """A row of NaN or of huge numbers beside others leaves their bits alone: the register tile shares only weights."""
    c = case(format, 4)
    before = c.product(13)
    kept = {name: a[5].copy() for name, a in c.sink.items() if len(a)}
    try:
        for name in kept:
            c.sink[name][5] = np.nan if c.sink[name].dtype == np.float32 else 127
        after = c.product(13)
    finally:
        for name, value in kept.items():
            c.sink[name][5] = value
    others = [i for i in range(13) if i != 5]
    assert same(after[others], before[others])
    assert np.isnan(after[5]).all(), "NaN activations give NaN outputs"


def test_tiles_divide_the_strips() -> None:
    for strips in range(1, 200):
        wide = matmul.tile_strips(strips)
        assert strips % wide == 0 and matmul.tile_rows(wide) * wide == 12
