"""The bytes of a superblock to integers and scales, as formats/format_table.py says; no format is named here.

`dot4` of some instruction sets takes any u8. There a group whose bits lie in the upper part of their bytes is masked
and not shifted, which leaves its integers multiplied by a power of two (`factor`). The scale takes that back, which is
exact, and the start value of a run's sum is multiplied by it too (activations.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from phi4mini.formats.format_table import LINE, QUADS, Format, HeaderField
from phi4mini.kernels.lang.kernel import I8, I32, Kernel, V, vec


def factor(k: Kernel, f: Format, group: int) -> int:
    """What the integers of a group of a step stay multiplied by."""
    return f.factor(group) if k.takes_any_byte else 1


def integers(k: Kernel, f: Format, step: V) -> Iterator[tuple[int, V]]:
    """(quad, u8x64) for the 16 quads of the step whose lines begin at `step`; each line is loaded once, and its quads
    follow at once, while it is in a register.
    """
    loaded: dict[int, V] = {}
    for quad in sorted(range(QUADS), key=lambda quad: _first_line(f, quad)):
        in_place = factor(k, f, quad * 4 // f.group) > 1
        whole: V | None = None
        for field in f.fields:
            line = field.line_of(quad)
            if line is None:
                continue
            if line not in loaded:
                loaded[line] = k.load(step.at(line * LINE), vec(I8, 64))
            part = k.bits_of_bytes(loaded[line], field.low, field.count, in_place)
            part = part << field.to if field.to else part
            whole = part if whole is None else whole | part
        assert whole is not None, "the table speaks for every quad"
        yield quad, whole


def _first_line(f: Format, quad: int) -> int:
    return next(line for field in f.fields if (line := field.line_of(quad)) is not None)


def first_level(k: Kernel, f: Format, header: V) -> list[V]:
    """d and -dmin of a two-level superblock as f32x16."""
    if not f.two_level:
        return []
    return [k.load_half(header), k.load_half(header.at(f.header["dmin"].at)) * -1.0]


def group_scale(k: Kernel, f: Format, header: V, levels: list[V], group: V, stretch: int) -> tuple[V, V | None]:
    """Scale and minimum of a group of a superblock as f32x16, the scale divided by the integers' factor `stretch`."""
    scales, minima = f.header["scale"], f.header.get("minimum")
    at = header.at(group * scales.width + scales.at) if scales.at else header.at(group * scales.width)
    scale, minimum = _number(k, scales, at), None
    if f.two_level:
        scale = levels[0] * scale
    if minima:
        # a minimum is as wide as a scale, so the two lie equally far apart in every group
        minimum = _number(k, minima, at.at(minima.at - scales.at))
        minimum = levels[1] * minimum if f.two_level else minimum
    return (scale * (1.0 / stretch) if stretch != 1 else scale), minimum


def _number(k: Kernel, field: HeaderField, at: V) -> V:
    """One number for each of 16 rows, as f32x16."""
    if field.dtype == "f2":
        return k.load_half(at)
    return k.to_float(k.widen(k.load(at, vec(I8)), I32, signed=field.dtype == "i1"))
