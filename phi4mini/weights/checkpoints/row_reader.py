"""Readers of a checkpoint's matrix, a few rows at a time, so that a conversion needs little memory.

Promises: `values` and `blocks` read only the rows asked for; `Fused` returns the rows of its parts in order. This file
does not know where rows come from or how they are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from phi4mini.formats.format_table import FORMATS, Format
from phi4mini.formats.matrix import Blocks
from phi4mini.weights.checkpoints.quantised_rows import QuantisedRows

# Format -> wider formats that hold its integers and scales unchanged: the zero point moves, or 4 bits become a byte.
_WIDER: dict[str, tuple[str, ...]] = {"q4": ("q8",), "q4m": ("q5m",), "q4k": ("q5k",)}


class Rows(Protocol):
    """A readable matrix (rows, cols). `format`: the block format that holds it exactly; None if it holds floats."""

    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def format(self) -> Format | None: ...

    def values(self, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop as float32 (stop - start, cols)."""
        ...

    def blocks(self, start: int, stop: int) -> Blocks:
        """Rows start .. stop in `format`, unrounded; may be called only if `format` is not None."""
        ...


class Fused:
    """Several matrices of equal width read as one, rows joined in order: q, k, v or gate, up."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = list(parts)
        self.rows = sum(part.rows for part in parts)
        self.cols = parts[0].cols

    @property
    def format(self) -> Format | None:
        """The narrowest format that holds every part exactly; None if there is none."""
        options = [_carriers(part.format) for part in self.parts]
        shared = [name for name in options[0] if all(name in other for other in options[1:])]
        return FORMATS[shared[0]] if shared else None

    @property
    def mixed(self) -> bool:
        """True if every quantised part has a format that holds it exactly, but no single format holds all parts."""
        return self.format is None and any(part.format for part in self.parts) and not self.unfit

    @property
    def unfit(self) -> str:
        """Why no format holds one of the quantised parts exactly; "" if every part has one."""
        reasons = (part.unfit for part in self.parts if isinstance(part, QuantisedRows))
        return next(filter(None, reasons), "")

    def grouped(self) -> list[Fused]:
        """The parts, neighbours that share a format joined."""
        groups: list[list[Rows]] = []
        for part in self.parts:
            joined = Fused([*groups[-1], part]) if groups else None
            if joined is not None and not joined.mixed:
                groups[-1].append(part)
            else:
                groups.append([part])
        return [Fused(group) for group in groups]

    def values(self, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop as float32."""
        return np.concatenate([part.values(a, b) for part, a, b in self._cut(start, stop)])

    def blocks(self, start: int, stop: int) -> Blocks:
        """Rows start .. stop in `format`, every part widened to it; may be called only if `format` is not None."""
        target = self.format
        assert target is not None  # callers ask for blocks only where there is a format
        pieces = []
        for part, a, b in self._cut(start, stop):
            assert part.format is not None
            pieces.append(widen(part.blocks(a, b), part.format, target))
        return _join(pieces)

    def _cut(self, start: int, stop: int) -> list[tuple[Rows, int, int]]:
        found, base = [], 0
        for part in self.parts:
            a, b = max(start - base, 0), min(stop - base, part.rows)
            if a < b:
                found.append((part, a, b))
            base += part.rows
        return found


def carries(source: Format | None, target: Format) -> bool:
    """True if `target` holds every matrix of `source` without rounding."""
    return target.name in _carriers(source)


def widen(blocks: Blocks, source: Format, target: Format) -> Blocks:
    """The same values in a wider format that `carries` the source's: integers move with the zero point."""
    if source == target:
        return blocks
    q = blocks.q + np.uint8(target.zero - source.zero)
    return Blocks(q, blocks.scale, blocks.minimum, blocks.d, blocks.dmin)


def _carriers(source: Format | None) -> tuple[str, ...]:
    return () if source is None else (source.name, *_WIDER.get(source.name, ()))


def _join(pieces: list[Blocks]) -> Blocks:
    if len(pieces) == 1:
        return pieces[0]

    def joined(field: str) -> np.ndarray | None:
        arrays = [getattr(piece, field) for piece in pieces]
        return None if arrays[0] is None else np.concatenate(arrays)

    q, scale = joined("q"), joined("scale")
    assert q is not None and scale is not None
    return Blocks(q, scale, joined("minimum"), joined("d"), joined("dmin"))
