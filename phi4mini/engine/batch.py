"""Requests and their rows as the arrays of one pass."""

from __future__ import annotations

import numpy as np

from phi4mini.engine.compute.forward import Batch
from phi4mini.engine.request import Request
from phi4mini.kernels.kv import PAGE
from phi4mini.model.config import Config

Chosen = list[tuple[Request, int]]  # who takes part in a pass, with how many rows


def wanted_rows(chosen: Chosen) -> tuple[np.ndarray, list[slice]]:
    """Rows of the pass whose logits are wanted, int64, and which of them are each request's."""
    wanted: list[int] = []
    outputs: list[slice] = []
    first = 0
    for request, rows in chosen:
        before = len(wanted)
        if request.wants_prompt_logprobs:
            wanted += range(first, first + rows)
        elif rows >= request.pending:  # the row of the last certain token, and those of the guess
            wanted += range(first + request.pending - 1, first + rows)
        outputs.append(slice(before, len(wanted)))
        first += rows
    return np.array(wanted, np.int64), outputs


def gather(config: Config, chosen: Chosen, wanted: np.ndarray) -> Batch:
    """The pass as arrays; each request's page table holds its rows already."""
    ids, positions, pages, cos, sin, runs, first = [], [], [], [], [], [], 0
    for request, rows in chosen:
        at = request.next_positions(rows)
        table = np.array(request.table, np.int32)
        ids.append(request.next_ids(rows))
        positions.append(at)
        pages.append(table[at // PAGE])
        c, s = config.rope_table(at, request.rope_set or "short")
        cos.append(c)
        sin.append(s)
        runs.append((first, rows, table))
        first += rows
    at = np.concatenate(positions)
    join = np.concatenate
    return Batch(join(ids), at, join(pages), at % PAGE, join(cos), join(sin), runs, wanted)
