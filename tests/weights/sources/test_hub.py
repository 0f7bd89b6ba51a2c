"""The hub: real downloads from a hub on loopback, resumed, offline, refused; and no network at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from phi4mini.errors import BadInput, NotFound
from phi4mini.weights.sources import hub
from tests.weights.fake_hub import COMMIT, FakeHub
from tests.weights.twins import small_folder

REPO = "someone/tiny-phi3"
CODE = """
import json, sys
from phi4mini.errors import Phi4MiniError
from phi4mini.weights.sources.hub import snapshot
from phi4mini.weights.load import ensure_store
try:
    what = {"snapshot": snapshot, "store": ensure_store}[sys.argv[1]](sys.argv[2], **json.loads(sys.argv[3]))
    print(what)
except Phi4MiniError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def server(tmp_path) -> Iterator[FakeHub]:
    folder = small_folder(tmp_path / "repo", shards=2)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    made = FakeHub(folder, REPO)
    yield made
    made.close()


@pytest.fixture
def ask(tmp_path) -> Callable[..., str]:
    """ask(door, name, endpoint, **arguments): the door, called in a process whose hub and caches are ours."""

    def call(door: str, name: str, endpoint: str, environment: dict[str, str] | None = None, **arguments: Any) -> str:
        places = {"HF_HOME": str(tmp_path / "hf"), "PHI4MINI_HOME": str(tmp_path / "ours"), "HF_ENDPOINT": endpoint}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PHI4MINI_"))}
        done = subprocess.run(
            [sys.executable, "-c", CODE, door, name, json.dumps(arguments)],
            env=inherited | places | (environment or {}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return call


NOWHERE = "http://127.0.0.1:9"  # nobody listens on the discard port


def test_A14_a_repository_is_fetched_converted_and_then_needs_no_network(server, ask):
    store = ask("store", REPO, server.url)
    assert store.endswith(".phi4") and "someone--tiny-phi3-q4-" in store
    fetched = {path.rsplit("/", 1)[-1] for method, path, _ in server.requests if method == "GET"}
    assert "model-00002-of-00002.safetensors" in fetched
    assert not {"pytorch_model.bin", "modeling_evil.py"} & fetched
    assert ask("store", REPO, NOWHERE) == store
    assert ask("store", REPO, NOWHERE, quant="q8").endswith(".phi4"), "another recipe takes the cached download"
    assert Path(ask("snapshot", REPO, NOWHERE, {"HF_HUB_OFFLINE": "1"})).name == COMMIT


def test_A14_a_broken_download_is_resumed(server, ask):
    shard = "model-00001-of-00002.safetensors"  # made larger than the 10 MB the client takes at a time
    (server.folder / shard).write_bytes(os.urandom(1 << 20) * 30)
    server.cut[shard] = 25 << 20
    folder = ask("snapshot", REPO, server.url)
    if folder.startswith("NotFound"):  # the client may give up at the first break: what came is kept
        folder = ask("snapshot", REPO, server.url)
    assert (Path(folder) / shard).read_bytes() == (server.folder / shard).read_bytes()
    ranges = [wanted for method, path, wanted in server.requests if path.endswith(shard) and method == "GET" and wanted]
    assert any(int(wanted.removeprefix("bytes=").split("-")[0]) >= 10 << 20 for wanted in ranges), "only the rest"


def test_A14_no_network_is_said_at_once_and_the_demo_offered(ask):
    began = time.perf_counter()
    told = ask("store", "microsoft/Phi-4-mini-instruct", NOWHERE)
    assert time.perf_counter() - began < 10
    assert told.startswith("NotFound no network: the Hugging Face hub cannot be reached")
    assert "microsoft/Phi-4-mini-instruct is not in the hub's cache" in told and "-m demo" in told and "\n" not in told


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"PHI4MINI_OFFLINE": "1"}])
def test_offline_mode_asks_nobody(server, ask, environment):
    told = ask("store", REPO, server.url, environment)
    assert told.startswith(f"NotFound offline: {REPO} is not in the hub's cache") and "\n" not in told
    assert server.requests == []


def test_a_repository_that_is_not_there_is_named(server, ask):
    told = ask("snapshot", "someone/other", server.url)
    assert told == "NotFound someone/other: the hub has no such model, or it is private and HF_TOKEN is not set"


def test_a_hub_in_trouble_is_quoted(server, ask):
    server.status = 418
    told = ask("snapshot", REPO, server.url)
    assert told.startswith(f"NotFound {REPO}: the hub answered: ") and "418" in told and "\n" not in told


@pytest.mark.parametrize("name", ["a/b", "microsoft/Phi-4-mini-instruct", "A0/b.c_d-e"])
def test_ids_are_recognised(name):
    assert hub.is_id(name)


@pytest.mark.parametrize("name", ["a", "a/b/c", "../b", "a/..", "a/b..c", "-a/b", "a/b--c", "a/b\n", "ä/b", "/b", "a/"])
def test_what_is_no_id_is_not(name):
    assert not hub.is_id(name)
    with pytest.raises((BadInput, NotFound)):
        hub.snapshot(name)
