"""A checkpoint -> our store, streamed: each matrix is read, packed and written a few strips at a time.

Promises: memory stays at a few chunks whatever the size of the model; quantised blocks that the recipe keeps are copied
exactly; a warning names the matrices for which that was not possible. This file does not know where checkpoints come
from (resolve.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from phi4mini.errors import BadCheckpoint
from phi4mini.weights.checkpoints.checkpoint import Checkpoint
from phi4mini.weights.checkpoints.tensor_names import MATRICES, role
from phi4mini.weights.store.recipes import pack, plan, recipe
from phi4mini.weights.store.writer import Contents, Progress, write_store

_log = logging.getLogger(__name__)


def convert(
    checkpoint: Checkpoint,
    quant: str,
    path: Path,
    source: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    check: Callable[[], None] | None = None,
) -> None:
    """Write `checkpoint` to the store `path` by the recipe named `quant`; the header records `source`. `check` is
    called after everything was read; if it raises, no file is left.
    """
    contents = contents_of(checkpoint, quant, source or {"name": checkpoint.where})

    def array(name: str) -> Iterable[np.ndarray]:
        rows = checkpoint.arrays[name]
        if name in contents.formats:
            return pack(f"{checkpoint.where}: {name}", rows, contents.formats[name])
        vector = rows.values(0, 1).reshape(-1)
        if not np.isfinite(vector).all():
            raise BadCheckpoint(f"{checkpoint.where}: {name} holds NaN or infinity")
        return [np.ascontiguousarray(vector).view(np.uint8)]

    write_store(path, contents, array, progress, check)


def contents_of(checkpoint: Checkpoint, quant: str, source: Mapping[str, str]) -> Contents:
    """The contents of the store, with the format of every matrix decided."""
    from phi4mini.tokenizer import to_bytes

    chosen = recipe(quant)
    config = checkpoint.config
    formats = {
        name: plan(name, rows, chosen, config.tie_word_embeddings)
        for name, rows in checkpoint.arrays.items()
        if role(name) in MATRICES
    }
    if chosen.keeps_blocks:
        _say_decoded(checkpoint)
    mixed = [name for name in formats if chosen.keeps_blocks and checkpoint.arrays[name].mixed]
    kept = [name for name in mixed if formats[name].name == "f32"]
    if kept:
        _log.warning(
            "%s: %s and %d more join tensors of different quantisation and are kept as f32; -q q8 makes them smaller",
            checkpoint.where,
            kept[0],
            len(kept) - 1,
        )
    chat, tokenizer = checkpoint.chat, to_bytes(checkpoint.tokenizer)
    return Contents(config, tokenizer, chat.name, quant, source, formats, chat.note)


def _say_decoded(checkpoint: Checkpoint) -> None:
    """Log one line for each reason why quantised matrices are rounded instead of copied."""
    reasons: dict[str, list[str]] = {}
    for name, rows in checkpoint.arrays.items():
        if rows.unfit:
            reasons.setdefault(rows.unfit, []).append(name)
    for reason, names in reasons.items():
        _log.warning(
            "%s: %s and %d more are decoded and rounded to q8: %s; -q f32 keeps their values",
            checkpoint.where,
            names[0],
            len(names) - 1,
            reason,
        )
