"""Rows of a quantised safetensors matrix, in the format of ours that holds its integers and scales unchanged.

Promises: `format` holds exactly the numbers of the file, or is None, and then `unfit` gives the reason. `values` are
scale * (integer - zero) in float32. This file does not know the layouts (quantised_layouts.py).

Our blocks have one f16 scale for 32 inputs and one fixed zero point. The scale of a group of 64 or 128 inputs, or of a
whole row, is repeated. Integers are shifted to our zero point: if all zero points are 8, the matrix is q4 as it is;
with other zero points the shifted integers range from -16 to 15, and q8 holds them under the same scale. (q4m would
need -scale * zero as an f16 minimum, and that product is almost never exact.) No format holds scales finer than f16,
groups that end inside a block, or inputs that are assigned to groups out of order (GPTQ's act-order).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from phi4mini.formats.format_table import FORMATS, Format
from phi4mini.formats.matrix import Blocks
from phi4mini.weights.checkpoints.quantised_layouts import Integers

_STEP = 1024  # rows whose scales are looked at together


class QuantisedRows:
    """A quantised matrix as `Rows`. All scales are read once, when `format` is first asked for."""

    def __init__(self, source: Integers) -> None:
        self.source = source
        self.rows, self.cols = source.rows, source.cols

    @cached_property
    def format(self) -> Format | None:
        """The format that holds the matrix exactly; None if none does."""
        return self._carrier[0]

    @property
    def unfit(self) -> str:
        """Why no format holds it exactly, in a few words; "" if one does."""
        return self._carrier[1]

    def values(self, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop as float32: exact under f16 and bf16 scales, rounded once under f32 ones."""
        source, of = self.source, self.source.group_of
        integers = source.ints(start, stop).astype(np.int16) - source.zeros(start, stop)[:, of]
        return integers.astype(np.float32) * source.scales(start, stop)[:, of]

    def blocks(self, start: int, stop: int) -> Blocks:
        """Rows start .. stop in `format`: the integers shifted to its zero point, each block with its group's scale."""
        assert self.format is not None and self._block_groups is not None
        source = self.source
        moved = source.ints(start, stop) - source.zeros(start, stop)[:, source.group_of] + np.int16(self.format.zero)
        return Blocks(moved.astype(np.uint8), source.scales(start, stop)[:, self._block_groups].astype(np.float16))

    @cached_property
    def _block_groups(self) -> np.ndarray | None:
        """The group of each block of 32 inputs; None if a block has several."""
        of = self.source.group_of
        first = of[::32]
        return first if np.array_equal(np.repeat(first, 32)[: len(of)], of) else None

    @cached_property
    def _carrier(self) -> tuple[Format | None, str]:
        if self._block_groups is None:
            ordered = bool((np.diff(self.source.group_of) >= 0).all())
            return None, "groups are no multiple of 32 inputs" if ordered else "inputs are in another order (act-order)"
        lowest, highest = 1 << 15, -1
        for start in range(0, self.rows, _STEP):
            stop = min(start + _STEP, self.rows)
            scales, zeros = self.source.scales(start, stop), self.source.zeros(start, stop)
            with np.errstate(over="ignore"):  # an overflow is no equal either
                if not np.array_equal(scales.astype(np.float16).astype(np.float32), scales):
                    return None, "scales are finer than f16"
            lowest, highest = min(lowest, int(zeros.min())), max(highest, int(zeros.max()))
        smallest, largest = -highest, (1 << self.source.bits) - 1 - lowest
        for name in ("q4", "q8"):
            zero = FORMATS[name].zero
            if -zero <= smallest and largest <= FORMATS[name].largest - zero:
                return FORMATS[name], ""
        return None, "zero points move its integers past 8 bits"
