"""Stacks: rows in several formats, named so that the name says where each begins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4mini.errors import BadInput
from phi4mini.formats.format_table import FORMATS
from phi4mini.formats.rounding import quantize
from phi4mini.model.arrays import Stack, StackFormat, pieces, row_formats


@given(parts=st.lists(st.tuples(st.sampled_from([*FORMATS.values()]), st.integers(1, 500)), min_size=1, max_size=5))
def test_a_name_says_all_formats_and_their_rows(parts):
    stacked = StackFormat(tuple((form, 16 * strips) for form, strips in parts))
    assert row_formats(stacked.name, sum(rows for _, rows in stacked.parts)) == list(stacked.parts)


@given(name=st.text("q4k6f32*+ 1", max_size=16), rows=st.integers(1, 100))
def test_any_other_name_is_refused(name, rows):
    try:
        found = row_formats(name, rows)
    except BadInput:
        return
    assert sum(count for _, count in found) == rows


def test_a_stack_is_its_parts_in_order():
    values = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)
    parts = [quantize(values[:32], FORMATS["q8"]), quantize(values[32:], FORMATS["f32"])]
    stack = Stack(parts)
    assert (stack.rows, stack.cols, stack.nbytes) == (40, 64, sum(part.nbytes for part in parts))
    np.testing.assert_array_equal(stack.dequantize(), np.concatenate([part.dequantize() for part in parts]))
    assert pieces(stack) == parts and pieces(parts[0]) == [parts[0]]


@pytest.mark.parametrize("shapes", [[(17, 64), (16, 64)], [(16, 64), (16, 32)]])
def test_parts_that_do_not_fit_are_refused(shapes):
    with pytest.raises(BadInput, match="cannot be stacked"):
        Stack([quantize(np.zeros(shape, np.float32), FORMATS["q8"]) for shape in shapes])
