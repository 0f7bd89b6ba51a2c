"""A sequence computed for what the model makes of it, not for an answer: logits or hidden states, in passes.

Between two passes the engine may step: a pass's rows are few while others draw, and no bit depends on where they are
cut. The pages of the whole sequence are taken at the start, so that a sequence that began is not stopped for want of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from phi4mini.engine.batch import gather
from phi4mini.engine.cache.pages import Pages
from phi4mini.engine.compute.buffers import MAX_OUTPUTS, MAX_ROWS, rows_that_fit
from phi4mini.engine.compute.forward import Network
from phi4mini.engine.request import Request
from phi4mini.errors import NumericalError

Rows = Generator[tuple[int, np.ndarray], None, None]  # (index of the first row, the rows)


def score(network: Network, pages: Pages, request: Request, most: Callable[[], int], head: bool) -> Rows:
    """Logits float32 (rows, vocab), a view until the next pass, or with `head` False hidden states float32 (rows,
    hidden_size) after the final norm, of all tokens of a request that no scheduler knows.

    `most`: rows the next pass may have. Raises NoSpace without pages, NumericalError for NaN or infinity.
    """
    request.choose_rope(network.config)
    limit = min(MAX_OUTPUTS if head else MAX_ROWS, rows_that_fit(len(request.ids)))
    try:
        pages.grow(request.table, len(request.ids))
        while request.pending:
            start, rows = request.cached, min(request.pending, limit, most())
            batch = gather(network.config, [(request, rows)], np.arange(rows if head else 0))
            made = network.run(batch) if head else network.hidden(batch)
            _check(made, start, "logits" if head else "hidden states")
            request.cached += rows
            yield start, made
    except NumericalError:
        for page in request.table:
            network.drop(page)
        raise
    finally:
        pages.release(request.table)


def _check(rows: np.ndarray, start: int, what: str) -> None:
    good = np.isfinite(rows).all(axis=1)
    if not good.all():
        raise NumericalError(f"the model produced NaN or infinite {what} at position {start + int(good.argmin()) + 1}")
