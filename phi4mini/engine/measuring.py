"""Shortcuts for measurements: every kind of pass recorded at once, a KV cache filled without computing it.

Nothing here is used to answer anybody.
"""

from __future__ import annotations

import numpy as np

from phi4mini.engine.compute.buffers import MAX_OUTPUTS, MAX_ROWS
from phi4mini.engine.engine import Engine
from phi4mini.engine.request import Request
from phi4mini.kernels import attention, matmul
from phi4mini.kernels.kv import PAGE, KVLayout


def record_passes(engine: Engine) -> None:
    """Record every kind of pass: 1 to 8 rows and a chunk of a prompt, each with every height of attention's tiles.
    Kernels that are not in the cache on disk are compiled.
    """
    for rows in (*range(1, matmul.FEW + 1), MAX_ROWS):
        for tall in attention.heights(engine.config.group_size):
            engine.network.program(rows, min(rows, MAX_OUTPUTS), tall)


def fill(engine: Engine, request: Request, seed: int) -> None:
    """Put random K and V into the int8 KV cache for all tokens of a request but the last.

    The request must be running, with its first pass behind it. Decoding then takes the time it takes at that depth,
    without the many minutes of computing the tokens before. Raises NoSpace if there are not enough pages.
    """
    count = len(request.ids)
    engine.pages.grow(request.seat.table, count)
    engine.network.cache[request.seat.table] = _random_page(engine.network.layout, seed)
    request.seat.cached = count - 1


def _random_page(layout: KVLayout, seed: int) -> np.ndarray:
    """One page of one layer, uint8 (page_bytes,): random integers under scales as large as a normalised layer's."""
    page = np.random.default_rng(seed).integers(0, 256, layout.page_bytes, np.uint8)
    heads = page.reshape(layout.kv_heads, layout.head_bytes)
    scales = np.full((layout.kv_heads, 2 * PAGE), 0.01, np.float32)
    heads[:, layout.scale_offset :] = scales.view(np.uint8)
    return page
