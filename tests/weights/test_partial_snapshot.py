"""What another program left in the hub's cache is completed, or named; what a repository has is fetched and no more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from phi4mini.errors import NotFound
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints.folder import INDEX, SINGLE, open_folder
from phi4mini.weights.sources import hub
from tests.weights.fake_hub import COMMIT, FakeHub
from tests.weights.sources.test_hub import NOWHERE, REPO, ask  # noqa: F401 (ask is a fixture)
from tests.weights.twins import CHATML, config_json, random_tensors, small_folder

Asks = Callable[..., str]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeHub]:
    folder = small_folder(tmp_path / "repo")
    (folder / "chat_template.jinja").write_text(CHATML)
    made = FakeHub(folder, REPO)
    yield made
    made.close()


def left(tmp_path: Path, server: FakeHub, *without: str) -> Path:
    """The hub's cache after another program has fetched the repository without some files."""
    home = tmp_path / "hf" / "hub" / f"models--{REPO.replace('/', '--')}"
    shutil.rmtree(home, ignore_errors=True)
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    folder = home / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    for path in server.folder.iterdir():
        if path.name not in without:
            shutil.copy(path, folder / path.name)
    return folder


TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
LEFT: list[tuple[tuple[str, ...], str | None]] = [  # what is not there; what the error without network names
    ((), None),
    (("README.md",), None),
    (TOKENIZER, "tokenizer.json"),
    (("tokenizer.json",), "tokenizer.json"),
    (("config.json",), "config.json"),
    ((SINGLE,), "model.safetensors"),
    ((SINGLE, *TOKENIZER), "model.safetensors"),
    ((SINGLE, "config.json", *TOKENIZER), "config.json"),
]
DOUBTED = [("tokenizer_config.json",), ("chat_template.jinja",), ("tokenizer_config.json", "chat_template.jinja")]


@pytest.mark.parametrize(("without", "named"), LEFT)
def test_FI4_a_snapshot_without_tokenizer_files(server: FakeHub, ask: Asks, tmp_path: Path, without, named) -> None:  # noqa: F811
    folder = left(tmp_path, server, *without)
    told = ask("snapshot", REPO, server.url, {"HF_HUB_OFFLINE": "1"})
    if named is None:
        assert told == str(folder) == ask("snapshot", REPO, NOWHERE)
        return
    assert told.startswith(f"NotFound offline: {REPO} is in the hub's cache without {named}; ")
    assert f"`phi4mini pull {REPO} --refresh` with network fetches it" in told and "\n" not in told
    told = ask("snapshot", REPO, NOWHERE)
    assert told.startswith("NotFound no network: ") and f"without {named}; " in told and "--refresh" in told
    assert server.requests == []
    assert ask("snapshot", REPO, server.url) == str(folder)
    open_folder(folder)
    assert (folder / "chat_template.jinja").read_text() == CHATML
    assert ask("snapshot", REPO, NOWHERE) == str(folder), "and now it is whole"


@pytest.mark.parametrize("without", DOUBTED)
def test_FI4_a_snapshot_without_settings_or_template(server: FakeHub, ask: Asks, tmp_path: Path, without) -> None:  # noqa: F811
    """It opens without them, so without network it is used, and with network the hub is asked whether it has them."""
    folder = left(tmp_path, server, *without)
    assert ask("snapshot", REPO, NOWHERE) == str(folder)
    assert ask("snapshot", REPO, server.url, {"HF_HUB_OFFLINE": "1"}) == str(folder)
    assert not server.requests and not (folder / without[0]).exists()
    assert ask("snapshot", REPO, server.url) == str(folder)
    assert all((folder / name).exists() for name in without)


def test_FI4_what_the_repository_itself_lacks_is_no_error(server: FakeHub, ask: Asks, tmp_path: Path) -> None:  # noqa: F811
    """A base model has no chat template: its store is made, and later runs ask nobody."""
    (server.folder / "chat_template.jinja").unlink()
    store = ask("store", REPO, server.url)
    asked = len(server.requests)
    assert store.endswith(".phi4") and ask("store", REPO, server.url) == store
    assert len(server.requests) == asked
    assert ask("store", REPO, NOWHERE, quant="q8").endswith(".phi4")


def test_FI4_phi_4_minis_shapes_without_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Phi-4-mini-reasoning has the vocabulary that we carry and another template: the settings must be there."""
    folder = tmp_path / "models--a--b" / "snapshots" / ("1" * 40)
    small_folder(folder, vocab_size=200_064, hidden_size=8, num_attention_heads=1, num_key_value_heads=1)
    (tmp_path / "models--a--b" / "refs").mkdir()
    (tmp_path / "models--a--b" / "refs" / "main").write_text("1" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHATML}))
    (folder / "tokenizer.json").unlink()
    assert hub.snapshot("a/b", offline=True) == folder == hub.whole_snapshot("a/b")
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(NotFound, match=r"a/b is in the hub's cache without tokenizer.json; .* --refresh"):
        hub.snapshot("a/b", offline=True)


@pytest.mark.parametrize("lacking", ["tokenizer.json", SINGLE, "config.json"])
def test_FI4_a_repository_that_is_not_whole_is_named(server: FakeHub, ask: Asks, lacking: str) -> None:  # noqa: F811
    (server.folder / lacking).unlink()
    told = ask("store", REPO, server.url)
    assert told.startswith(f"NotFound {REPO} has no {lacking}; `phi4mini pull {REPO} --refresh`") and "\n" not in told


# ---- which weights are fetched


def fetched(server: FakeHub) -> set[str]:
    return {path.rsplit("/", 1)[-1] for method, path, _ in server.requests if method == "GET" and "/resolve/" in path}


def sharded(folder: Path) -> None:
    """The repository in two shards."""
    shutil.rmtree(folder)
    small_folder(folder, shards=2)


def saved_over(folder: Path) -> None:
    """A single file uploaded over shards and their index, which were not deleted."""
    sharded(folder)
    save_file(random_tensors(Config.from_json(config_json()), seed=9), folder / SINGLE)


def greedy_index(folder: Path) -> None:
    """An index that names everything there is."""
    (folder / SINGLE).unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "*", "b": "*.bin", "c": "pytorch_model.bin"}}))


def odd_names(folder: Path) -> None:
    sharded(folder)
    text = (folder / INDEX).read_text().replace("model-0000", "part[1]-0000")
    (folder / INDEX).write_text(text)
    for path in folder.glob("model-*.safetensors"):
        path.rename(path.with_name(path.name.replace("model-", "part[1]-")))


def one_of_one(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "model-00001-of-00001.safetensors")


REPOSITORIES: list[tuple[Callable[[Path], Any], set[str]]] = [
    (lambda folder: None, {SINGLE}),
    (sharded, {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}),
    (saved_over, {SINGLE}),
    (lambda folder: (saved_over(folder), (folder / "model-00001-of-00002.safetensors").unlink()), {SINGLE}),
    (odd_names, {"part[1]-00001-of-00002.safetensors", "part[1]-00002-of-00002.safetensors"}),
    (one_of_one, {"model-00001-of-00001.safetensors"}),
    (greedy_index, set()),
]


@pytest.mark.parametrize(("change", "wanted"), REPOSITORIES)
def test_FI2_a_repository_with_a_stale_index(server: FakeHub, ask: Asks, tmp_path: Path, change, wanted) -> None:  # noqa: F811
    change(server.folder)
    (server.folder / "pytorch_model.bin").write_bytes(b"pickle")
    (server.folder / "consolidated.safetensors").write_bytes(b"another layout")
    ask("snapshot", REPO, server.url)
    assert {name for name in fetched(server) if name.endswith((".safetensors", ".bin"))} == wanted
    if wanted:
        assert ask("store", REPO, NOWHERE, {"HF_HUB_OFFLINE": "1"}).endswith(".phi4")
