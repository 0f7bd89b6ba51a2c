"""The programs under examples/ run as they stand, and say what their comments promise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SAID = {  # a program, and what its output holds
    "chat": ["Paris", "Rome", "64 of them cached"],
    "stream": ["the same seed, alone, says the same: True"],
    "structured": ["'legs': "],
    "score": [" cold: ", "perplexity of"],
    "client": ["sky"],
    "story": ["'The capital of France is Paris'", "the same ids: True"],
}


def test_every_example_is_run():
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_an_example_runs(name: str, demo_store: Callable[[str], Path]):
    demo_store("bf16")  # fetched or skipped here, so that a program that fails fails for its own reason
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [text for text in SAID[name] if text not in done.stdout] == []
