"""Which format each matrix gets, and rows -> the bytes of that format, a few strips at a time on several threads.

Promises: a matrix that the chosen format holds exactly is never rounded; memory stays at a few chunks whatever the size
of the matrix; NaN and infinity are refused, and the error names the matrix and the rows. This file does not know files.

A recipe names a format for every matrix. The 4-bit recipes keep the blocks of a quantised GGUF, so nothing is rounded a
second time. If q, k, v (or gate, up) are quantised differently and no single format holds them all, the fused matrix is
stored part by part; if a part does not fill whole strips, which kernels cannot multiply, it is stored as f32. Quantised
safetensors that no format holds exactly are decoded and rounded once, to q8: a second rounding to 4 bits would cost as
much accuracy as the first, and f32 takes eight times the memory of 4 bits. The other recipes give every matrix the
named format, whatever the checkpoint holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from phi4mini.errors import BadCheckpoint, BadInput
from phi4mini.formats.format_table import FORMATS, LANES, Format
from phi4mini.formats.matrix import pack_blocks, pack_dense
from phi4mini.formats.rounding import quantize_blocks
from phi4mini.kernels.round_weights import GROUP, encode_blocks
from phi4mini.kernels.threads.count import most_threads
from phi4mini.model.arrays import StackFormat
from phi4mini.weights.checkpoints.row_reader import Fused, carries, widen
from phi4mini.weights.checkpoints.tensor_names import role

_CHUNK = 1 << 18  # weights quantised at once: 1 MiB of float32, which stays in a core's cache through every pass
_MOST_THREADS = 8


@dataclass(frozen=True)
class Recipe:
    """`base`: the format of every matrix; `special`: exceptions by role (embed, qkv, o, gate_up, down, head)."""

    name: str
    base: str
    special: Mapping[str, str] = field(default_factory=dict)

    @property
    def keeps_blocks(self) -> bool:
        """True if blocks of a quantised checkpoint are copied instead of rounded anew."""
        return self.base.startswith("q4")

    def wanted(self, name: str, tied: bool) -> Format:
        """The format for the matrix `name` if the checkpoint has floats for it. A tied embedding counts as the head."""
        what = "head" if tied and role(name) == "embed" else role(name)
        return FORMATS[self.special.get(what, self.base)]


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("f32", "f32"),
        Recipe("bf16", "bf16"),
        Recipe("q8", "q8"),
        Recipe("q4", "q4"),
        Recipe("q4m", "q4m"),
        Recipe("q4-head8", "q4", {"head": "q8"}),
    )
}


def recipe(name: str) -> Recipe:
    """The recipe with this name. Raises `BadInput`, which lists the names."""
    if name not in RECIPES:
        raise BadInput(f"unknown quantisation {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]


def plan(name: str, rows: Fused, recipe: Recipe, tied: bool) -> Format | StackFormat:
    """The format in which the matrix `name` will be stored, or the formats of its parts."""
    wanted = recipe.wanted(name, tied)
    if not recipe.keeps_blocks:
        return wanted
    if rows.unfit:
        return FORMATS["q8"]
    if not rows.mixed:
        return rows.format or wanted
    groups = rows.grouped()
    if any(group.rows % LANES for group in groups[:-1]):
        return FORMATS["f32"]
    return StackFormat(tuple((group.format or wanted, group.rows) for group in groups))


def pack(name: str, rows: Fused, format: Format | StackFormat) -> Iterator[np.ndarray]:
    """The bytes of a matrix in order, in chunks of whole strips. Raises `BadCheckpoint` for NaN and infinity."""
    if isinstance(format, StackFormat):
        for number, (group, (own, _)) in enumerate(zip(rows.grouped(), format.parts, strict=True), 1):
            yield from pack(f"{name}, part {number}", group, own)
        return
    step = max(_CHUNK // (rows.cols * LANES), 1) * LANES
    carried = rows.format is not None and carries(rows.format, format)

    def chunk(start: int) -> np.ndarray:
        stop = min(start + step, rows.rows)
        try:
            return _carry(rows, format, start, stop) if carried else _round(rows, format, start, stop)
        except BadInput as error:
            raise BadCheckpoint(f"{name}, rows {start} to {stop - 1}: {error}") from error

    yield from ordered(chunk, range(0, rows.rows, step))


def ordered(work: Callable[[int], np.ndarray], items: range) -> Iterator[np.ndarray]:
    """work(item) for every item on a few threads; results come in order, at most two a thread wait in memory."""
    threads = min(most_threads(), _MOST_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[np.ndarray]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _carry(rows: Fused, format: Format, start: int, stop: int) -> np.ndarray:
    assert rows.format is not None
    blocks = widen(rows.blocks(start, stop), rows.format, format)
    scales = [blocks.d, blocks.dmin] if format.two_level else [blocks.scale, blocks.minimum]
    if not all(np.isfinite(scale).all() for scale in scales if scale is not None):
        raise BadInput("a scale is NaN or infinity")
    return pack_blocks(blocks, format)


def _round(rows: Fused, format: Format, start: int, stop: int) -> np.ndarray:
    values = rows.values(start, stop)
    if not np.isfinite(values).all():
        raise BadInput("the weights hold NaN or infinity")
    if not format.block:
        return pack_dense(values, format)
    if format.name == "q4" and values.shape[1] % GROUP == 0:
        return pack_blocks(encode_blocks(values), format)
    return pack_blocks(quantize_blocks(values, format), format)
