"""The command line with faults that are switched on from outside, for tests of a server that breaks.

    python -m tests.server.faulty serve ...

FAULT_FILE names a file; while it holds one of these words, the next pass of the engine has that fault, once:
raise (an exception within the pass), segv (a read of address 0), slow (the pass takes a second). FAULT_TOKEN is a
token id whose embedding is NaN, from the start: a request that has it in its prompt computes NaN and no other does.
FAULT_OPEN is a number of seconds that opening the model takes longer.

The faults are put in where the engine is imported, in the serving process; the supervisor is unchanged.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi4mini import cli
from phi4mini.cli import serve

if TYPE_CHECKING:
    from phi4mini.engine.engine import Engine, Token

_SERVE = serve._serve


def _serve_with_faults(*arguments: Any) -> None:
    """What `phi4mini serve` does after it has forked, with the faults put in."""
    from phi4mini.engine.engine import Engine
    from phi4mini.llm import model

    step, open_store = Engine.step, model.open_store

    def faulty_step(self: Engine) -> list[Token]:
        _break(self.has_work)
        return step(self)

    def faulty_open(*arguments: Any) -> Any:
        time.sleep(float(os.environ.get("FAULT_OPEN", "0")))
        return _sickened(open_store(*arguments))

    Engine.step = faulty_step  # type: ignore[method-assign]
    model.open_store = faulty_open
    _SERVE(*arguments)


def _break(has_work: bool) -> None:
    path = Path(os.environ.get("FAULT_FILE", "/nonexistent"))
    fault = path.read_text().strip() if path.exists() and has_work else ""
    if fault:
        path.unlink()
    if fault == "raise":
        raise ZeroDivisionError("a fault of the tests")
    if fault == "segv":
        ctypes.string_at(0)
    if fault == "slow":
        time.sleep(1)


def _sickened(opened: Any) -> Any:
    """The model with NaN in the embedding of FAULT_TOKEN."""
    import numpy as np

    from phi4mini.formats.matrix import Matrix

    if token := os.environ.get("FAULT_TOKEN"):
        weights, matrix = opened.weights, opened.weights.embed
        room = np.empty(matrix.data.size + 64, np.uint8)
        data = room[-room.ctypes.data % 64 :][: matrix.data.size]
        data[:] = matrix.data  # the head goes on with the clean ones, which are the same where they are tied
        sick = Matrix(matrix.format, matrix.rows, matrix.cols, data)
        strip = sick.strips()[int(token) // 16].reshape(-1)
        strip[:32].view(np.float16)[int(token) % 16] = np.nan
        weights.embed = sick
    return opened


if __name__ == "__main__":
    serve._serve = _serve_with_faults
    sys.exit(cli.main())
