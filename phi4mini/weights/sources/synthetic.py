"""A full-size Phi-4-mini with random weights: as much memory traffic and arithmetic, and nothing to download.

Promises: the store has Phi-4-mini's own config, tokenizer and shapes; every weight is finite and about as large as a
fresh initialisation's (standard deviation 0.02, Phi-4-mini's initializer_range), so activations stay finite through
all layers; the same arguments give the same bytes. The text it writes is noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from phi4mini.errors import BadInput
from phi4mini.formats.format_table import LANES, Format
from phi4mini.formats.matrix import pack_blocks, pack_dense
from phi4mini.formats.rounding import quantize_blocks
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints import tensor_names
from phi4mini.weights.store.recipes import ordered, recipe
from phi4mini.weights.store.writer import Contents, Progress, write_store

_DEVIATION = 0.02
_POOL_STRIPS = 128  # strips quantised for each width; matrices are tiled from them, rotated further each time


def write_synthetic(
    path: Path,
    quant: str = "q4",
    layers: int = 32,
    progress: Progress | None = None,
    source: Mapping[str, str] | None = None,
) -> None:
    """Write a Phi-4-mini store of random weights with the given number of layers; its header keeps `source`. Takes
    seconds, and 2.2 GB in q4.
    """
    from phi4mini.tokenizer import phi4_mini, to_bytes

    full = Config.phi4_mini()
    if not 1 <= layers <= full.num_layers:
        raise BadInput(f"a synthetic model has 1 to {full.num_layers} layers, not {layers}")
    config, chosen = replace(full, num_layers=layers), recipe(quant)
    shapes = tensor_names.arrays(config)
    formats = {name: chosen.wanted(name, True) for name, shape in shapes.items() if len(shape) == 2}
    told = source or {"name": "synthetic"}
    contents = Contents(config, to_bytes(phi4_mini()), "phi", quant, told, formats)
    pools: dict[tuple[str, int], np.ndarray] = {}

    def array(name: str) -> Iterator[np.ndarray]:
        shape = shapes[name]
        if len(shape) == 1:
            yield np.ones(shape, np.float32).view(np.uint8)
            return
        key = formats[name].name, shape[1]
        if key not in pools:
            pools[key] = _pool(formats[name], shape[1])
        yield from _tiled(pools[key], -(-shape[0] // LANES), list(shapes).index(name))

    write_store(path, contents, array, progress)


def _pool(format: Format, cols: int) -> np.ndarray:
    """Random strips in a format: uint8 (strips, superblocks, bytes of a superblock)."""
    rng = np.random.default_rng(cols)
    values = rng.standard_normal((_POOL_STRIPS * LANES, cols), np.float32) * np.float32(_DEVIATION)

    def packed(start: int) -> np.ndarray:
        some = values[start : start + LANES]
        return pack_blocks(quantize_blocks(some, format), format) if format.block else pack_dense(some, format)

    strips = list(ordered(packed, range(0, len(values), LANES)))
    return np.concatenate(strips).reshape(_POOL_STRIPS, -1, format.superblock_bytes)


def _tiled(pool: np.ndarray, strips: int, shift: int) -> Iterator[np.ndarray]:
    """`strips` strips from the pool. Superblocks are independent, so a strip rotated by some superblocks is a valid
    strip with other rows.
    """
    for turn, start in enumerate(range(0, strips, len(pool)), shift):
        turned = np.roll(pool[: strips - start], turn, axis=1)
        yield turned.reshape(-1)
