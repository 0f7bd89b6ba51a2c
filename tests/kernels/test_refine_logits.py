"""The head's second look: which strips get it, that they get the product of the second row, and that others do not."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini.kernels import refine_logits
from phi4mini.kernels.threads.pool import Call
from tests.kernels.harness import fitted, run, same, word
from tests.kernels.matmuls import Case


def floors(logits: np.ndarray, threads: int = 1) -> np.ndarray:
    out = fitted(np.zeros(len(logits), np.float32))
    x = fitted(logits)
    call = Call(
        refine_logits.floors(),
        logits=x,
        stride=x.strides[0],
        strips=logits.shape[1] // 16,
        rows=word(len(logits)),
        floors=out,
    )
    run(call, threads=threads)
    return out[: len(logits)]


def expected(row: np.ndarray) -> np.float32:
    """The floor of one row by the definition in refine_logits.py, one rung after the other."""
    peaks, best = row.reshape(-1, 16).max(1), row.max()
    for depth in refine_logits.LADDER:
        if np.count_nonzero(best - peaks <= np.float32(depth)) <= refine_logits.MOST:
            return best - np.float32(depth)
    return best


@pytest.mark.parametrize("threads", [1, 3])
def test_a_floor_is_as_deep_as_so_many_strips_allow(threads: int) -> None:
    rng = np.random.default_rng(0)
    spread = np.array([0.01, 0.2, 1.0, 3.0, 8.0, 40.0])
    logits = (rng.standard_normal((6, 600 * 16)) * spread[:, None] + 5).astype(np.float32)
    got = floors(logits, threads)
    assert same(got, np.array([expected(row) for row in logits], np.float32))
    depths = logits.max(1) - got
    assert len({f"{depth:.2f}" for depth in depths}) >= 4, "the rows end on different rungs"


def test_all_strips_of_a_small_vocabulary_are_corrected() -> None:
    logits = np.random.default_rng(1).standard_normal((2, refine_logits.MOST * 16)).astype(np.float32)
    assert (floors(logits) < logits.min()).all()


def test_equal_logits_end_on_the_last_rung() -> None:
    logits = np.full((1, 400 * 16), 7.0, np.float32)
    assert floors(logits)[0] == 7.0


@pytest.mark.parametrize("format", ["q4", "q4m", "q8", "q4k", "q6k"])
@pytest.mark.parametrize("threads", [1, 2])
def test_strips_above_the_floor_get_the_second_row_and_no_others(format: str, threads: int) -> None:
    """Against the product of the second rows added by the kernel for one row: the same bits."""
    rows, fine = 3, 5
    c = Case(format, 40 * 16, 256, rows + fine)
    before = c.product(rows)
    corrected = np.empty_like(before)
    c.residual[fine : fine + rows] = before
    for row in range(rows):
        corrected[row] = c.product(1, row + fine, residual=True)[0]
    peaks = before.reshape(rows, -1, 16).max(2)
    limits = np.sort(peaks, axis=1)[[0, 1, 2], [0, 30, 39]]  # of the rows all strips, ten, and one
    out = fitted(before)
    call = Call(
        refine_logits.refine(format=format, cols=256, fine=fine),
        weights=c.matrix.data,
        out=out,
        out_stride=out.strides[0],
        strips=40,
        rows=word(rows),
        floors=fitted(limits),
        ticket=word(0),
        **c.sink,
    )
    run(call, threads=threads)
    chosen = np.repeat(peaks >= limits[:, None], 16, axis=1)
    assert chosen.sum(1).tolist() == [640, 160, 16]
    assert same(out[:rows], np.where(chosen, corrected, before))
