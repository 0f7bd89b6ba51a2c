"""A quantised matrix of a safetensors checkpoint as rows: in the format that carries its integers and scales unchanged.

Promises: `format` is one that stands for the very numbers of the file, or None; why there is none is in `unfit`.
`values` are scale * (integer - zero) in float32. It does not know layouts (`packed_ints.py`).

Our blocks have one f16 scale for 32 inputs and one fixed zero. A group of 64 or 128 inputs, or a whole row, repeats its
scale. Integers move with the zero point: where all are 8 that is q4 as it is; other zero points give integers from
-16 to 15, which q8 holds under the same scale. (q4m would need the minimum -scale * zero as an f16, which it almost
never is.) What no format carries: scales that are no f16, groups that end inside a block, and inputs whose order says
another group for each (GPTQ's act-order).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from phi4mini.formats.layout import FORMATS, Format
from phi4mini.formats.matrix import Blocks
from phi4mini.weights.checkpoints.packed_ints import Integers

_STEP = 1024  # rows whose scales are looked at together


class PackedRows:
    """A quantised matrix behind the door of `Rows`. The scales are read once, when `format` is first asked for."""

    def __init__(self, source: Integers) -> None:
        self.source = source
        self.rows, self.cols = source.rows, source.cols

    @cached_property
    def format(self) -> Format | None:
        """The format that carries the matrix exactly."""
        return self._carrier[0]

    @property
    def unfit(self) -> str:
        """Why no format carries it, in a few words; empty if one does."""
        return self._carrier[1]

    def values(self, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop as float32: exact under f16 and bf16 scales, rounded once under f32 ones."""
        source, of = self.source, self.source.group_of
        integers = source.ints(start, stop).astype(np.int16) - source.zeros(start, stop)[:, of]
        return integers.astype(np.float32) * source.scales(start, stop)[:, of]

    def blocks(self, start: int, stop: int) -> Blocks:
        """Rows start .. stop in `format`: the integers moved to its zero, the scale of each block's group."""
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
