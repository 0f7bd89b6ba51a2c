"""Running the real command, as a user would: `phi4mini(...)` starts a process and gives back what it did."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phi4mini.model.config import Config

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "phi4mini"]
DEMO = ("-m", "demo", "-q", "f32", "--kv", "f32")  # exact arithmetic, so that greedy text does not hang on near-ties
Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without settings of our own that would reach the command."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PHI4MINI_") or k == "PHI4MINI_HOME"}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | more


@pytest.fixture(scope="session")
def phi4mini() -> Run:
    """phi4mini(*arguments, stdin=b"", **environment) -> the finished process, its output as text."""

    def run(
        *arguments: str | bytes, stdin: bytes = b"", cwd: Path | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *arguments], input=stdin, capture_output=True, env=environment(**more), cwd=cwd, timeout=240
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
        )

    return run


@pytest.fixture
def home(tmp_path: Path, demo_store: Callable[[str], Path]) -> Iterator[Path]:
    """A model cache of its own that holds one store, the demo's in q4 (a link to the real one)."""
    stores = tmp_path / "home" / "stores"
    stores.mkdir(parents=True)
    store = demo_store("q4")
    (stores / store.name).symlink_to(store)
    yield tmp_path / "home"
    assert store.exists()


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit code 2, nothing on stdout, and one line on stderr that names every part."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    last = done.stderr.splitlines()
    assert len(last) == 1 and last[0].startswith("phi4mini: "), done.stderr
    for part in parts:
        assert part in last[0]


def as_hf(config: Config) -> dict[str, object]:
    """A Llama's config as its config.json has it."""
    fields = dataclasses.asdict(config)
    kept = ("vocab_size", "hidden_size", "intermediate_size", "rms_norm_eps", "rope_theta", "max_position_embeddings")
    return {name: fields[name] for name in kept} | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "tie_word_embeddings": True,
        "eos_token_id": 0,
    }
