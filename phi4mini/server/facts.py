"""Facts about the served model that stay true while its weights are not in memory: sizes, names, the fingerprint.

Promise: `id` is for clients and never holds a path of this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phi4mini.llm.model import Model


@dataclass(frozen=True)
class Facts:
    """Sizes are in tokens and bytes."""

    id: str  # the model's name for clients
    opened_as: str  # the name it was opened under, which may be a path
    ctx: int
    kv: str  # format of the KV cache
    quant: str  # recipe of the weights
    threads: int
    parameters: int
    kv_tokens: int
    kv_token_bytes: int
    fingerprint: str
    nbytes: int  # bytes of the model's store


def facts_of(model: Model) -> Facts:
    """The facts of an open model."""
    engine = model.engine
    return Facts(
        id=_public(model.name),
        opened_as=model.name,
        ctx=engine.ctx,
        kv=engine.facts.kv,
        quant=model.store.recipe,
        threads=engine.facts.threads,
        parameters=model.config.num_parameters,
        kv_tokens=engine.facts.kv_tokens,
        kv_token_bytes=engine.facts.kv_token_bytes,
        fingerprint=f"phi4mini_{model.store.fingerprint[:16]}",
        nbytes=model.store.nbytes,
    )


def _public(name: str) -> str:
    """A model's name for clients; a file or folder of this machine is called by the last part of its path."""
    path = Path(name).expanduser()
    return path.absolute().name or "model" if path.exists() else name
