"""A model.safetensors beside an index: whose weights run, and that it is said when the index is stale."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from phi4mini.errors import NotFound
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints.folder import INDEX, SINGLE, open_folder
from tests.weights.twins import config_json, random_tensors, small_folder


def saved_over(folder: Path, weight_map: object = None) -> Path:
    """A download in two shards, and a tuned model saved over it as one file."""
    small_folder(folder, shards=2)
    if weight_map is not None:
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    save_file(random_tensors(Config.from_json(config_json()), seed=9), folder / SINGLE)
    return folder


def embedding(folder: Path) -> float:
    return float(open_folder(folder).arrays["embed"].values(0, 1)[0, 0])


NEW = float(random_tensors(Config.from_json(config_json()), seed=9)["model.embed_tokens.weight"][0, 0])
OLD = float(random_tensors(Config.from_json(config_json()))["model.embed_tokens.weight"][0, 0])
ONE = "model-00001-of-00002.safetensors"


def without(*names: str) -> Callable[[Path], object]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def broken_link(folder: Path) -> None:
    (folder / SINGLE).unlink()
    (folder / SINGLE).symlink_to("gone")


def index_of_one(folder: Path) -> None:
    names = random_tensors(Config.from_json(config_json()))
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, SINGLE)}))


def consolidated(folder: Path) -> None:
    (folder / "consolidated.safetensors").write_bytes((folder / ONE).read_bytes())


FOLDERS: dict[str, tuple[Callable[[Path], object], float, bool]] = {  # what was done; whose weights; whether it is said
    "all old shards are there": (lambda folder: None, NEW, True),
    "one old shard is gone": (without(ONE), NEW, True),
    "all old shards are gone": (without(ONE, ONE.replace("1-of", "2-of")), NEW, True),
    "the index is not JSON": (lambda folder: (folder / INDEX).write_text("{"), NEW, True),
    "the index is empty": (lambda folder: (folder / INDEX).write_text("{}"), NEW, True),
    "the index is of another kind": (lambda folder: (folder / INDEX).write_text('{"weight_map": [1]}'), NEW, True),
    "the index names no file": (lambda folder: (folder / INDEX).write_text('{"weight_map": {}}'), NEW, True),
    "the index names what lies outside": (
        lambda folder: (folder / INDEX).write_text('{"weight_map": {"a": "../b"}}'), NEW, True
    ),
    "the index is newer": (lambda folder: os.utime(folder / SINGLE, ns=(0, 0)), NEW, True),
    "no index": (without(INDEX), NEW, False),
    "no index, and consolidated beside": (lambda folder: (without(INDEX)(folder), consolidated(folder)), NEW, False),
    "the index names the single file": (index_of_one, NEW, False),
    "no single file": (without(SINGLE), OLD, False),
    "no single file, and consolidated beside": (lambda f: (without(SINGLE)(f), consolidated(f)), OLD, False),
    "a link that leads nowhere": (broken_link, OLD, False),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_FI2_stale_index_beside_a_fresh_file(tmp_path, caplog, case):
    change, whose, said = FOLDERS[case]
    folder = saved_over(tmp_path / "m")
    change(folder)
    assert embedding(folder) == whose
    lines = [record.getMessage() for record in caplog.records if "index" in record.getMessage()]
    assert len(lines) == said and all("is stale" in line and "model.safetensors beside it" in line for line in lines)


def test_FI2_a_shard_that_is_missing_and_no_single_file(tmp_path):
    folder = saved_over(tmp_path / "m")
    without(SINGLE, ONE)(folder)
    with pytest.raises(NotFound, match=f"{ONE}.*is missing"):
        open_folder(folder)


def test_FI2_one_shard_of_one_without_an_index(tmp_path):
    folder = small_folder(tmp_path / "m")
    (folder / SINGLE).rename(folder / "model-00001-of-00001.safetensors")
    assert embedding(folder) == OLD
    shutil.copy(folder / "model-00001-of-00001.safetensors", folder / ONE)
    with pytest.raises(NotFound, match="2 safetensors files but no model"):
        open_folder(folder)
