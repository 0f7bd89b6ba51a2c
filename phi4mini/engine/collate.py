"""The requests that the scheduler chose for a pass, as the arrays of that pass."""

from __future__ import annotations

import numpy as np

from phi4mini.engine.batch import Batch
from phi4mini.engine.request import Request
from phi4mini.kernels.kv import PAGE
from phi4mini.model.config import Config

Chosen = list[tuple[Request, int]]  # the requests of a pass, each with its number of rows


def wanted_rows(chosen: Chosen) -> tuple[np.ndarray, list[slice]]:
    """The rows of the pass whose logits are needed, int64, and for each request its slice of them.

    A chunk in the middle of a prompt needs no logits at all: the head is the largest matrix of the model.
    """
    wanted: list[int] = []
    outputs: list[slice] = []
    first = 0
    for request, rows in chosen:
        before = len(wanted)
        if request.wants_prompt_logprobs:
            wanted += range(first, first + rows)
        elif rows >= request.pending:  # the row of the last known token, and the rows of the guessed tokens after it
            wanted += range(first + request.pending - 1, first + rows)
        outputs.append(slice(before, len(wanted)))
        first += rows
    return np.array(wanted, np.int64), outputs


def collate(config: Config, chosen: Chosen, wanted: np.ndarray) -> Batch:
    """The pass as arrays. Each request's page table must already cover its rows of this pass."""
    ids, positions, pages, cos, sin, runs, first = [], [], [], [], [], [], 0
    for request, rows in chosen:
        at = request.next_positions(rows)
        table = np.array(request.seat.table, np.int32)
        ids.append(request.next_ids(rows))
        positions.append(at)
        pages.append(table[at // PAGE])
        c, s = config.rope_table(at, request.seat.rope_set or "short")
        cos.append(c)
        sin.append(s)
        runs.append((first, rows, table))
        first += rows
    at = np.concatenate(positions)
    join = np.concatenate
    return Batch(join(ids), at, join(pages), at % PAGE, join(cos), join(sin), runs, wanted)
