"""The input of one pass, as arrays: what compute/ reads. It knows no request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Batch:
    """One pass: `rows` tokens, grouped into runs of consecutive tokens of one sequence.

    ids, positions, pages, slots: (rows,) the token, its place in its sequence, and the page and the place in that page
    where its K and V go. cos, sin: f32 (rows, rotary_dim / 2). runs: (first row, number of rows, page table int32 of
    that sequence). wanted: int64, the rows whose logits are asked for.
    """

    ids: np.ndarray
    positions: np.ndarray
    pages: np.ndarray
    slots: np.ndarray
    cos: np.ndarray
    sin: np.ndarray
    runs: list[tuple[int, int, np.ndarray]]
    wanted: np.ndarray
