"""Servers that test files share: the demo model, and a layer of random weights with Phi-4-mini's own chat format."""

from __future__ import annotations

import pytest

from tests.server.process import serving


@pytest.fixture(scope="session")
def demo(demo_store, tmp_path_factory):
    """A running server with the demo model; tests must not change or break it."""
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    demo_store()
    with serving(tmp_path_factory.mktemp("demo"), "--kv-tokens", "8192") as running:
        yield running


@pytest.fixture(scope="session")
def phi(tmp_path_factory):
    """A running server of one random layer with Phi-4-mini's tokenizer and chat format; what it writes is noise."""
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    with serving(tmp_path_factory.mktemp("phi"), "-c", "8192", "--kv-tokens", "8192", model="synthetic:1") as running:
        yield running


@pytest.fixture(scope="session")
def demo_model(demo_store):
    """The demo in this process, to compare with."""
    import phi4mini

    demo_store()
    with phi4mini.load("demo", ctx=2048) as model:
        yield model
