"""What a store is made of: content decides, names and times do not; what is read of a folder is what is hashed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from phi4mini import identity
from phi4mini.errors import BadCheckpoint, BadInput, NotFound
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints.folder import BESIDE_WEIGHTS, files_read, open_folder
from phi4mini.weights.resolve import Source, fingerprint, resolve
from phi4mini.weights.source_identity import identify
from phi4mini.weights.store.convert import convert
from phi4mini.weights.store.store import open_store
from tests.weights.twins import CHATML, config_json, random_tensors, small_folder, write_folder, write_gguf

# The bytes that conversion gives for one small model. Where they change on purpose, THINGS["store"].version is raised
# (phi4mini/identity.py), so that stores of the same content are made anew, and the new value written here.
MADE = (3, "85babe37")


@pytest.fixture(autouse=True)
def trusting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that was hashed is remembered, however fresh: the hardest case for telling files apart."""
    monkeypatch.setenv("PHI4MINI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(identity, "_SMALL", 0)
    monkeypatch.setattr(identity, "_SETTLED", -(10**19))


def whole(folder: Path, shards: int = 1) -> Path:
    """A folder with every small file that is read."""
    small_folder(folder, shards=shards)
    (folder / "chat_template.jinja").write_text(CHATML)
    for name in BESIDE_WEIGHTS:
        if not (folder / name).exists():
            (folder / name).write_text("{}")
    return folder


def set_times(*folders: Path) -> None:
    for folder in folders:
        for path in folder.iterdir():
            os.utime(path, ns=(10**9, 10**9))


def known(path: Path) -> str:
    return fingerprint(resolve(str(path)))


def edited(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    """A change of a few bytes of a file, its size kept."""

    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        assert len(old) == len(new) and old in data
        (folder / name).write_bytes(data.replace(old, new, 1))

    change.__name__ = name
    return change


def last_byte(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[-1] ^= 1
        (folder / name).write_bytes(data)

    change.__name__ = f"last byte of {name}"
    return change


def exchanged(folder: Path) -> None:
    """The index says of every tensor that it is in the other shard."""
    path = folder / "model.safetensors.index.json"
    path.write_text(
        path.read_text().replace("00001-of", "x-of").replace("00002-of", "00001-of").replace("x-of", "00002-of")
    )


OTHER_CONTENT: list[tuple[int, Callable[[Path], None]]] = [
    (1, last_byte("model.safetensors")),
    (2, last_byte("model-00001-of-00002.safetensors")),
    (2, last_byte("model-00002-of-00002.safetensors")),
    (2, exchanged),
    (1, edited("config.json", b"2048", b"1024")),
    (1, edited("tokenizer.json", b"special", b"Special")),
    (1, edited("tokenizer_config.json", b"token", b"Token")),
    (1, edited("chat_template.jinja", b"im_end", b"im_End")),
    (1, edited("generation_config.json", b"{}", b"[]")),
    (1, edited("special_tokens_map.json", b"{}", b"[]")),
    (1, edited("added_tokens.json", b"{}", b"[]")),
    (1, lambda folder: (folder / "generation_config.json").unlink()),
    (1, lambda folder: (folder / "chat_template.jinja").unlink()),
    (1, lambda folder: (folder / "chat_template.jinja").rename(folder / "added_tokens.json")),
    (2, lambda folder: shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model.safetensors")),
]


@pytest.mark.parametrize(("shards", "change"), OTHER_CONTENT, ids=lambda x: getattr(x, "__name__", str(x)))
def test_FI1_one_name_one_size_one_time_and_other_content(
    tmp_path: Path, shards: int, change: Callable[[Path], object]
) -> None:
    alice = whole(tmp_path / "alice" / "final", shards)
    bob = shutil.copytree(alice, tmp_path / "bob" / "final")
    assert known(alice) == known(bob)
    time.sleep(0.03)
    change(bob)
    set_times(alice, bob)
    assert known(alice) != known(bob)
    assert resolve(str(alice)).label == resolve(str(bob)).label
    alice.rename(tmp_path / "aside")  # and the same at one and the same path, one after the other
    before = known(tmp_path / "aside")
    bob.rename(alice)
    assert known(alice) != before


def moved(folder: Path) -> Path:
    return folder.rename(folder.with_name("another name"))


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(folder, folder.with_name("copy"), copy_function=shutil.copyfile))


def hard_linked(folder: Path) -> Path:
    return Path(shutil.copytree(folder, folder.with_name("links"), copy_function=os.link))


def symlinked(folder: Path) -> Path:
    folder.with_name("link").symlink_to(folder)
    return folder.with_name("link")


def touched(folder: Path) -> Path:
    set_times(folder)
    return folder


def read_only(folder: Path) -> Path:
    for path in folder.iterdir():
        path.chmod(0o444)
    return folder


def rewritten(folder: Path) -> Path:
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes())
    return folder


def beside(name: str) -> Callable[[Path], Path]:
    """A file that is not read."""

    def add(folder: Path) -> Path:
        (folder / name).write_bytes(b"{}")
        return folder

    add.__name__ = f"beside {name}"
    return add


SAME_CONTENT = [
    moved, copied, hard_linked, symlinked, touched, read_only, rewritten, beside("README.md"),
    beside("trainer_state.json"), beside("optimizer.pt"), beside("pytorch_model.bin"), beside("eval_results.json"),
    beside("model-00001-of-00002.safetensors"), beside("model.safetensors.index.json.bak"),
    lambda folder: folder / ".." / folder.name, lambda folder: Path(f"{folder}/."),
]  # fmt: skip


@pytest.mark.parametrize("change", SAME_CONTENT, ids=lambda change: change.__name__)
def test_FI5_the_same_content_elsewhere_or_under_another_name(tmp_path: Path, change: Callable[[Path], Path]) -> None:
    folder = whole(tmp_path / "final")
    before = known(folder)
    assert known(change(folder)) == before


def test_FI5_a_gguf_is_its_content(tmp_path: Path) -> None:
    config = Config.from_json(config_json("Llama"))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_gguf(tmp_path / "a" / "m.gguf", config)
    shutil.copy(tmp_path / "a" / "m.gguf", tmp_path / "b" / "other.gguf")
    os.link(tmp_path / "a" / "m.gguf", tmp_path / "b" / "hard.gguf")
    (tmp_path / "b" / "soft.gguf").symlink_to(tmp_path / "a" / "m.gguf")
    first = known(tmp_path / "a" / "m.gguf")
    assert {known(path) for path in (tmp_path / "b").iterdir()} == {first}
    shutil.copy(tmp_path / "a" / "m.gguf", tmp_path / "b" / "m.gguf")
    last_byte("m.gguf")(tmp_path / "b")
    set_times(tmp_path / "a", tmp_path / "b")
    assert known(tmp_path / "b" / "m.gguf") != first == known(tmp_path / "a" / "m.gguf")


def test_all_parts_of_a_split_gguf_are_its_content(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"m-0000{number}-of-00003.gguf").write_bytes(b"GGUF" + bytes([number]))
    (tmp_path / "n-00001-of-00003.gguf").write_bytes(b"GGUF of another model")
    first = known(tmp_path / "m-00001-of-00003.gguf")
    (tmp_path / "n-00001-of-00003.gguf").write_bytes(b"GGUF")
    assert known(tmp_path / "m-00001-of-00003.gguf") == first
    (tmp_path / "m-00003-of-00003.gguf").write_bytes(b"GGUF" + bytes([4]))
    assert known(tmp_path / "m-00001-of-00003.gguf") != first


def test_FI3_a_hub_model_is_id_revision_and_content(tmp_path: Path) -> None:
    """Of equal content even: two ids, two revisions, and a folder are four models."""
    stem = "our-lab/" + "phi-" * 20
    made = set()
    for repo, revision in ((f"{stem}v1", "1" * 40), (f"{stem}v2", "1" * 40), (f"{stem}v1", "2" * 40)):
        folder = whole(tmp_path / repo.replace("/", "--") / "snapshots" / revision)
        origin = identify(Source("hub", repo), folder)
        assert origin.header["name"] == repo and origin.revision == revision
        made.add(origin.fingerprint)
        before = origin.fingerprint
        time.sleep(0.03)
        edited("tokenizer_config.json", b"token", b"Token")(folder)
        made.add(fingerprint(Source("hub", repo), folder))
        assert before != fingerprint(Source("hub", repo), folder)
    made.add(known(tmp_path / f"{stem}v1".replace("/", "--") / "snapshots" / ("1" * 40)))
    assert len(made) == 7
    assert resolve(f"{stem}v1").label == resolve(f"{stem}v2").label, "which is why the label is no identity"


def test_synthetic_models_are_their_layers() -> None:
    assert fingerprint(resolve("synthetic:4")) != fingerprint(resolve("synthetic:5"))
    assert fingerprint(resolve("synthetic:32")) == fingerprint(resolve("synthetic"))


@pytest.mark.parametrize("shards", [1, 2])
def test_FI1_everything_that_is_read_is_part_of_the_identity(tmp_path: Path, shards: int) -> None:
    """Python reports every file that is opened: none is opened that is not hashed."""
    folder = whole(tmp_path / "m", shards)
    for name in ("vocab.json", "merges.txt", "README.md", "adapter_config.json", "trainer_state.json"):
        (folder / name).write_text("{}")
    code = (
        "import sys; from pathlib import Path; from phi4mini.weights.checkpoints.folder import open_folder\n"
        "folder, seen = Path(sys.argv[1]), set()\n"
        "sys.addaudithook(lambda event, args: seen.add(str(args[0])) if event == 'open' else None)\n"
        "arrays = open_folder(folder).arrays\n"
        "[rows.values(0, 1) for rows in arrays.values()]\n"
        "print(*(Path(name).name for name in seen if name.startswith(sys.argv[1] + '/')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    opened = set(done.stdout.split())
    assert opened <= set(files_read(folder))
    assert {"config.json", "tokenizer.json", files_read(folder)[0]} <= opened


@pytest.mark.parametrize("target", ["/dev/zero", "/etc/hostname", "../outside.safetensors"])
def test_nothing_outside_of_a_folder_is_hashed(tmp_path: Path, target: str) -> None:
    (tmp_path / "outside.safetensors").write_bytes(b"x")
    folder = whole(tmp_path / "m", shards=2)
    index = {"weight_map": {"a": target}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadCheckpoint, match="lies outside the folder"):
        known(folder)
    folder = whole(tmp_path / "n")
    (folder / "added_tokens.json").unlink()
    (folder / "added_tokens.json").symlink_to(target)
    with pytest.raises((BadCheckpoint, NotFound)):
        known(folder)


def test_FI6_a_model_that_changes_while_it_is_converted_leaves_no_store(tmp_path: Path) -> None:
    folder = whole(tmp_path / "m")
    origin = identify(resolve(str(folder)), folder)
    time.sleep(0.03)
    last_byte("model.safetensors")(folder)
    with pytest.raises(BadInput, match="was changed while it was read"):
        convert(open_folder(folder), "q8", tmp_path / "m.phi4", origin.header, check=origin.check_unchanged)
    assert not (tmp_path / "m.phi4").exists()


def test_stores_of_other_bytes_have_another_version(tmp_path: Path) -> None:
    """See MADE."""
    numbers = config_json(num_hidden_layers=1)
    shapes = {name: array.shape for name, array in random_tensors(Config.from_json(numbers)).items()}
    folder = write_folder(tmp_path / "twin", numbers, {name: _plain_numbers(shape) for name, shape in shapes.items()})
    made = hashlib.sha256()
    for quant in ("f32", "bf16", "q8", "q4", "q4m", "q4-head8"):
        convert(open_folder(folder), quant, tmp_path / "m.phi4")
        opened = open_store(tmp_path / "m.phi4")
        for entry in opened.entries.values():
            made.update(f"{entry.name} {entry.format} {entry.sha256} {opened.chat_format}".encode())
    assert (identity.THINGS["store"].version, made.hexdigest()[:8]) == MADE


def _plain_numbers(shape: tuple[int, ...]) -> np.ndarray:
    """Numbers that no library's generator decides."""
    count = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
    return ((count * 2654435761 % 2**16).astype(np.float32) / 2**19 - 0.0625).reshape(shape)
