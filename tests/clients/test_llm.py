"""`llm`, told of the server by its extra-openai-models.yaml, as a command and as a library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

llm = pytest.importorskip("llm", reason="needs llm (the extra clients)")
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]
SETTINGS = """\
- model_id: ours
  model_name: default
  api_base: {address}/v1
  can_stream: true
  supports_schema: true
  supports_tools: true
"""
SCHEMA = {"type": "object", "properties": {"fine": {"type": "boolean"}}, "required": ["fine"]}
SCHEMA |= {"additionalProperties": False}


@pytest.fixture
def told(address):
    """The folder of its settings, which name the server."""
    folder = Path(os.environ["LLM_USER_PATH"])
    folder.mkdir()
    (folder / "extra-openai-models.yaml").write_text(SETTINGS.format(address=address))
    (folder / "keys.json").write_text(json.dumps({"openai": "none"}))
    return folder


def command(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "llm", *arguments], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_PR15_a_prompt_whole_and_streamed(told):
    asked = ["-m", "ours", "-o", "max_tokens", "20", "Say hi to Anna."]
    whole = command(*asked, "--no-stream", "-n")
    assert whole.strip() and command(*asked, "-n") == whole
    assert "ours" in command("models")


def test_PR15_a_conversation_and_a_system_prompt(told):
    made = command("-m", "ours", "-s", "Be brief.", "-o", "max_tokens", "8", "Say hi to Anna.", "--no-stream")
    assert made.strip() and command("-c", "-o", "max_tokens", "8", "And to Bert.", "--no-stream").strip()


def test_PR15_a_schema(told):
    made = command("-m", "ours", "--schema", json.dumps(SCHEMA), "-o", "max_tokens", "60", "Is all fine?", "-n")
    assert isinstance(json.loads(made)["fine"], bool)


def test_PR15_tools_of_the_library(told):
    """What its tools look like is sent and taken; whether a small model calls them is its own matter."""

    def get_time(city: str) -> str:
        """The time in a city."""
        return "noon"

    model = llm.get_model("ours")
    response = model.prompt("What time is it in Oslo?", tools=[get_time], max_tokens=40, stream=False, key="none")
    assert response.text() or response.tool_calls()


def test_PR15_what_does_not_fit_is_said(told):
    asked = [sys.executable, "-m", "llm", "-m", "ours", "-n", "word " * 3000]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=100)
    assert done.returncode != 0 and "2048" in done.stderr
