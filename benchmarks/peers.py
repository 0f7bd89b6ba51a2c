"""Where the peers and their models lie: one environment each, and the models in our cache folder.

PHI4MINI_BENCH_LLAMA and PHI4MINI_BENCH_OPENVINO name other Python interpreters. What is not there is `Absent`, with
what would bring it.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.workers.driver import ROOT
from phi4mini.files import cache_home

_HOMES = {"llama": ".venv-llama", "openvino": ".venv-openvino"}


class Absent(Exception):
    """A peer that is not on this machine, in one line."""


def python_of(peer: str) -> Path:
    """The interpreter of `llama` or `openvino`."""
    own = os.environ.get(f"PHI4MINI_BENCH_{peer.upper()}")
    path = Path(own).expanduser() if own else ROOT / _HOMES[peer] / "bin" / "python"
    if not path.exists():
        raise Absent(f"{peer} is not installed: make bench-peers")
    return path


def gguf(layers: int) -> Path:
    """The synthetic GGUF in Q4_0."""
    return models_folder() / f"synthetic-{layers}-q4_0.gguf"


def openvino_folder(layers: int) -> Path:
    """The synthetic export with int4 weights in groups of 128 and an int8 head."""
    return models_folder() / f"synthetic-{layers}-openvino-int4-g128"


def models_folder() -> Path:
    """Where `make bench-peers` puts the peers' models."""
    return cache_home() / "bench"


def prepared(path: Path) -> Path:
    """`path` if it is there."""
    if not path.exists():
        raise Absent(f"{path.name} is not prepared: make bench-peers")
    return path
