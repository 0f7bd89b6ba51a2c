"""The tables of formats against naive loops over bytes, and rows that no kernel could read."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini.errors import BadInput
from phi4mini.formats.format_table import FORMATS, LANES, QUADS, Format
from phi4mini.formats.matrix import Matrix, pack_blocks
from tests.formats.random_parts import BLOCK_FORMATS, random_blocks


def naive_integer(form: Format, matrix: Matrix, row: int, col: int) -> int:
    """One stored integer, found byte by byte from the layout in the words of the module."""
    strip = matrix.strips()[row // LANES, col // form.superblock]
    lane, inside = row % LANES, col % form.superblock
    lines = strip[form.header_bytes :].reshape(-1, LANES, 4)
    if form.bits == 8:
        return int(lines[inside // 4, lane, inside % 4])
    group, place = inside // form.group, inside % form.group
    byte = int(lines[group // 2 * (form.group // 4) + place // 4, lane, place % 4])
    return byte >> 4 if group % 2 else byte & 15


@pytest.mark.parametrize("form", BLOCK_FORMATS, ids=lambda form: form.name)
def test_integers_lie_where_the_module_says(form):
    blocks = random_blocks(form, 20, 512)
    matrix = Matrix(form, 20, 512, pack_blocks(blocks, form))
    rng = np.random.default_rng(1)
    for row, col in zip(rng.integers(0, 20, 300), rng.integers(0, 512, 300), strict=True):
        assert naive_integer(form, matrix, int(row), int(col)) == blocks.q[row, col]


def test_bits_a_weight_are_those_of_the_table():
    bits = {"f32": 32, "bf16": 16, "q4": 4.5, "q4m": 5, "q8": 8.5, "q4k": 4.625, "q5k": 8.625, "q6k": 8.625}
    bits |= {"q5m": 9, "q2k": 9.125, "q8k": 8.375}
    assert {name: form.bits_a_weight for name, form in FORMATS.items()} == bits
    assert {name: form.matrix_bytes(16, 512) * 8 / (16 * 512) for name, form in FORMATS.items()} == bits


@pytest.mark.parametrize("planes", [(8,), (4,), (2,), (1,), (2, 1), (1, 2), (4, 1), (4, 2), (1, 2, 4)])
def test_a_step_holds_every_bit_of_every_quad_once(planes: tuple[int, ...]) -> None:
    form = Format("new", sum(planes), group=32, superblock=64, planes=planes)
    places = [(field, i, bit) for field in form.fields for i in range(field.width) for bit in range(field.count)]
    of_integers = {(field.quad + i, field.to + bit) for field, i, bit in places}
    of_lines = {(field.line + i, field.low + bit) for field, i, bit in places}
    assert len(of_integers) == len(of_lines) == len(places) == QUADS * form.bits == form.lines * 8
    assert of_integers == {(quad, bit) for quad in range(QUADS) for bit in range(form.bits)}


@pytest.mark.parametrize("form", BLOCK_FORMATS, ids=lambda form: form.name)
def test_the_fields_of_a_header_follow_each_other(form):
    ends = [0, *(field.end for field in form.header.values())]
    assert [field.at for field in form.header.values()] == ends[:-1] and form.header_bytes == ends[-1]
    assert form.half_bytes == (4 * LANES if form.two_level else form.header_bytes)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"bits": 3}, "planes of 1, 2, 4 or 8 bits must add up to 3"),
        ({"bits": 5, "planes": (4, 2)}, "planes of 1, 2, 4 or 8 bits must add up to 5"),
        ({"bits": 10, "planes": (8, 2)}, "of at most 8"),
        ({"superblock": 96}, "groups must fill 64 inputs"),
        ({"group": 24}, "groups must fill 64 inputs"),
        ({"group": 16}, "no group may cut them"),
        ({"act_group": 64, "group": 64}, "by 16 or 32"),
        ({"zero": 16}, "zero and top must be integers of 4 bits"),
        ({"top": 16}, "zero and top must be integers of 4 bits"),
    ],
)
def test_rows_that_kernels_cannot_read_are_refused(row: dict, why: str) -> None:
    with pytest.raises(BadInput, match=f"format new: .*{why}"):
        Format("new", **{"bits": 4, "group": 32, "superblock": 64, **row})
