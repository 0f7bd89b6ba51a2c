"""A running server for programs that people use, and a conversation in which a small model calls a tool."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.process import serving

CONTEXT = 2048
CITIES = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome", "Lima"]}}, "required": ["city"]}
CITIES |= {"additionalProperties": False}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_time", "description": "The time in a city.", "parameters": CITIES},
}
TOO_LONG = "word " * 3000  # tokens, more than the context has


@pytest.fixture(scope="session")
def demo(demo_store, tmp_path_factory):
    """A running server with the demo model; nobody changes or breaks it."""
    demo_store()
    with serving(tmp_path_factory.mktemp("demo"), "-c", str(CONTEXT), "--kv-tokens", "8192") as running:
        yield running


@pytest.fixture(scope="session")
def address(demo):
    """Where it listens."""
    return f"http://127.0.0.1:{demo.port}"


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No program finds keys, settings or other servers of the user's, and none tells anybody of its use."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
