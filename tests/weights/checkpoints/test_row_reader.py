"""Fused matrices: rows in the order of the parts, whatever range is asked for, in a format that holds every part."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini.formats.format_table import FORMATS, Format
from phi4mini.formats.matrix import Blocks, Matrix, pack_blocks
from phi4mini.formats.rounding import quantize_blocks
from phi4mini.weights.checkpoints.row_reader import Fused, carries, widen


class Held:
    """A matrix in memory, behind the same door as one in a file."""

    def __init__(self, values: np.ndarray, format: Format | None = None) -> None:
        self.rows, self.cols = values.shape
        self.format, self.array = format, values.astype(np.float32)
        if format:
            self.array = unpacked(quantize_blocks(self.array, format), format, values.shape)

    def values(self, start: int, stop: int) -> np.ndarray:
        return self.array[start:stop]

    def blocks(self, start: int, stop: int) -> Blocks:
        assert self.format is not None
        return quantize_blocks(self.array[start:stop], self.format)


def unpacked(blocks: Blocks, format: Format, shape: tuple[int, int]) -> np.ndarray:
    return Matrix(format, *shape, pack_blocks(blocks, format)).dequantize()


def parts(*formats: str | None) -> list[Held]:
    rng = np.random.default_rng(0)
    sizes = (5, 32, 11)
    return [
        Held(rng.standard_normal((size, 64)), None if name is None else FORMATS[name])
        for size, name in zip(sizes, formats, strict=False)
    ]


@pytest.mark.parametrize(("start", "stop"), [(0, 48), (0, 5), (4, 6), (5, 37), (30, 48), (47, 48)])
def test_values_are_the_joined_rows(start, stop):
    three = parts(None, None, None)
    joined = np.concatenate([part.array for part in three])
    np.testing.assert_array_equal(Fused(three).values(start, stop), joined[start:stop])


def test_blocks_are_the_joined_rows():
    three = parts("q8", "q8", "q8")
    fused = Fused(three)
    assert fused.format == FORMATS["q8"] and not fused.mixed
    joined = np.concatenate([part.array for part in three])
    np.testing.assert_allclose(unpacked(fused.blocks(3, 40), FORMATS["q8"], (37, 64)), joined[3:40], atol=0.02)


def test_parts_of_several_widths_meet_in_the_widest_exactly():
    fused = Fused(parts("q4", "q8"))
    assert fused.format == FORMATS["q8"]
    first, second = fused.parts
    ours = unpacked(fused.blocks(0, 5), FORMATS["q8"], (5, 64))
    np.testing.assert_array_equal(ours, unpacked(first.blocks(0, 5), FORMATS["q4"], (5, 64)))
    np.testing.assert_array_equal(
        unpacked(fused.blocks(5, 37), FORMATS["q8"], (32, 64)), unpacked(second.blocks(0, 32), FORMATS["q8"], (32, 64))
    )


@pytest.mark.parametrize("formats", [("q4", "q4m"), ("q8", None), ("q4m", "q8")])
def test_parts_that_no_format_carries_are_mixed(formats):
    fused = Fused(parts(*formats))
    assert fused.format is None and fused.mixed


@pytest.mark.parametrize(
    ("formats", "groups"),
    [
        (("q4", "q4", "q8"), [3]),
        (("q4k", "q4k", "q6k"), [2, 1]),
        (("q6k", "q4k", "q5k"), [1, 2]),
        (("q8", None, None), [1, 2]),
        (("q4m", "q8", "q4m"), [1, 1, 1]),
        ((None, None, None), [3]),
    ],
)
def test_neighbours_that_share_a_format_are_one_group(formats, groups):
    fused = Fused([Unread((16, 256), None if name is None else FORMATS[name]) for name in formats])
    found = fused.grouped()
    assert [len(group.parts) for group in found] == groups
    assert [part for group in found for part in group.parts] == fused.parts and not any(g.mixed for g in found)


class Unread:
    """A matrix of which only shape and format are asked."""

    def __init__(self, shape: tuple[int, int], format: Format | None) -> None:
        (self.rows, self.cols), self.format = shape, format

    def values(self, start: int, stop: int) -> np.ndarray:
        raise AssertionError("not asked for")

    def blocks(self, start: int, stop: int) -> Blocks:
        raise AssertionError("not asked for")


def test_floats_are_not_mixed():
    assert not Fused(parts(None, None)).mixed


def test_only_what_loses_nothing_carries():
    assert carries(FORMATS["q4"], FORMATS["q8"]) and carries(FORMATS["q4k"], FORMATS["q5k"])
    assert carries(FORMATS["q4m"], FORMATS["q5m"]) and not carries(FORMATS["q5m"], FORMATS["q5k"])
    assert not carries(FORMATS["q8"], FORMATS["q4"]) and not carries(None, FORMATS["q4"])
    assert not carries(FORMATS["q4m"], FORMATS["q8"]) and not carries(FORMATS["q5k"], FORMATS["q6k"])


@pytest.mark.parametrize(("narrow", "wider"), [("q4", "q8"), ("q4m", "q5m")])
def test_widening_changes_no_value(narrow, wider):
    """The zero point moves where there is one."""
    small, large = FORMATS[narrow], FORMATS[wider]
    blocks = quantize_blocks(np.random.default_rng(1).standard_normal((16, 128)).astype(np.float32), small)
    wide = widen(blocks, small, large)
    np.testing.assert_array_equal(unpacked(wide, large, (16, 128)), unpacked(blocks, small, (16, 128)))
