"""Random matrices and their parts, as the tests of this room use them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from phi4mini.formats.format_table import FORMATS, Format
from phi4mini.formats.matrix import Blocks

MADE = ("f32", "bf16", "q8", "q4", "q4m", "q5m")
SHAPES = st.tuples(st.integers(1, 50), st.integers(1, 300))
BLOCK_FORMATS = [form for form in FORMATS.values() if form.block]


def random_values(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, cols)) * rng.lognormal(0, 2, (rows, 1))).astype(np.float32)


def random_blocks(form: Format, rows: int, cols: int, seed: int = 0) -> Blocks:
    """Any integers and any scales, as a GGUF may hold them."""
    rng = np.random.default_rng(seed)
    groups, supers = -(-cols // form.group), -(-cols // form.superblock)

    def half(width: int) -> np.ndarray:
        return (rng.standard_normal((rows, width)) * 0.01).astype(np.float16)

    q = rng.integers(0, form.largest + 1, (rows, cols)).astype(np.uint8)
    if not form.two_level:
        return Blocks(q, half(groups), half(groups) if form.minimum else None)
    scale = rng.integers(0, 256, (rows, groups)).astype(np.uint8)
    scale = scale.view(np.int8) if form.signed_scale else scale
    minimum = rng.integers(0, 64, (rows, groups)).astype(np.uint8) if form.minimum else None
    return Blocks(q, scale, minimum, half(supers), half(supers))
