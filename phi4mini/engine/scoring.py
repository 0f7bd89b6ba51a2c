"""Logits or hidden states of a given sequence, computed in passes; nothing is drawn.

Between two passes the engine may step for its requests. While requests run, a pass of scoring has few rows; where a
sequence is cut changes no bit. The pages of the whole sequence are taken at the start: a sequence that has begun cannot
run out of pages.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from phi4mini.engine.cache.pages import Pages
from phi4mini.engine.collate import collate
from phi4mini.engine.compute.buffers import MAX_OUTPUTS, MAX_ROWS, rows_that_fit
from phi4mini.engine.compute.forward import Network
from phi4mini.engine.request import Request
from phi4mini.errors import NumericalError

Rows = Generator[tuple[int, np.ndarray], None, None]  # (index of the first row, the rows)


def score(network: Network, pages: Pages, request: Request, most: Callable[[], int], head: bool) -> Rows:
    """Compute all tokens of a request that the scheduler does not know. With `head` the rows are logits float32 (rows,
    vocab), a view until the next pass; without, hidden states float32 (rows, hidden_size) after the final norm.

    `most()`: the number of rows that the next pass may have. Raises NoSpace without pages, NumericalError for NaN
    or infinity.
    """
    request.choose_rope(network.config)
    limit = min(MAX_OUTPUTS if head else MAX_ROWS, rows_that_fit(len(request.ids)))
    try:
        pages.grow(request.seat.table, len(request.ids))
        while request.pending:
            start, rows = request.cached, min(request.pending, limit, most())
            batch = collate(network.config, [(request, rows)], np.arange(rows if head else 0))
            made = network.run(batch) if head else network.hidden(batch)
            _check(made, start, "logits" if head else "hidden states")
            request.seat.cached += rows
            yield start, made
    except NumericalError:
        for page in request.seat.table:
            network.drop(page)
        raise
    finally:
        pages.release(request.seat.table)


def _check(rows: np.ndarray, start: int, what: str) -> None:
    good = np.isfinite(rows).all(axis=1)
    if not good.all():
        raise NumericalError(f"the model produced NaN or infinite {what} at position {start + int(good.argmin()) + 1}")
