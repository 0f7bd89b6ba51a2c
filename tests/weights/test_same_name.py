"""Models that share a name, a size or a time run with their own weights; stores that share content are made once."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from phi4mini import identity
from phi4mini.errors import BadInput, NotFound
from phi4mini.model.config import Config
from phi4mini.weights import library, load
from phi4mini.weights.checkpoints.folder import open_folder
from phi4mini.weights.store.convert import convert
from phi4mini.weights.store.store import open_store, read_header
from tests.weights.twins import CHATML, config_json, random_tensors, small_folder, write_folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PHI4MINI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def embed(path: Path) -> float:
    return float(open_store(path).weights.embed.dequantize()[0, 0])


def folder_of(path: Path, seed: int) -> Path:
    """A model whose weights are those of a seed; all such folders have files of equal names, sizes and times."""
    numbers = config_json()
    write_folder(path, numbers, random_tensors(Config.from_json(numbers), seed))
    for file in path.iterdir():
        os.utime(file, ns=(1, 1))
    return path


def true_embed(seed: int) -> float:
    return float(random_tensors(Config.from_json(config_json()), seed)["model.embed_tokens.weight"][0, 0])


def test_FI1_two_folders_of_one_name_have_their_own_weights(tmp_path, home):
    """Nothing of one is taken for, replaced by or deleted with the other, whoever comes first."""
    folders = {seed: folder_of(tmp_path / who / "final", seed) for seed, who in ((1, "alice"), (2, "bob"), (3, "eve"))}
    made = {seed: load.ensure_store(str(folder), "f32") for seed, folder in folders.items()}
    assert len(set(made.values())) == 3
    for seed, folder in reversed(folders.items()):
        assert load.ensure_store(str(folder), "f32") == made[seed] and embed(made[seed]) == true_embed(seed)
    assert {model.name for model in library.list_models()} == {str(folder) for folder in folders.values()}
    library.remove(str(folders[2]))
    assert [made[seed].exists() for seed in (1, 2, 3)] == [True, False, True]


def test_FI1_the_same_path_with_other_content(tmp_path):
    """A trainer that writes its next version where the last one was, with the same size and time."""
    stores = {seed: load.ensure_store(str(folder_of(tmp_path / "final", seed)), "f32") for seed in (1, 2, 3)}
    assert {seed: embed(path) for seed, path in stores.items()} == {seed: true_embed(seed) for seed in stores}
    assert load.ensure_store(str(folder_of(tmp_path / "final", 2)), "f32") == stores[2], "back to what there was"


def test_FI1_a_store_under_the_name_of_another_is_not_used(tmp_path, caplog):
    """The header decides, not the file's name; and what lies under the name is not deleted."""
    alice, bob = (
        load.ensure_store(str(folder_of(tmp_path / who / "final", s)), "f32") for s, who in ((1, "a"), (2, "b"))
    )
    os.replace(alice, bob)
    again = load.ensure_store(str(tmp_path / "b" / "final"), "f32")
    assert embed(again) == true_embed(2) and embed(bob) == true_embed(1) and again != bob
    assert "whatever its name; it is not used" in caplog.text
    assert load.ensure_store(str(tmp_path / "b" / "final"), "f32") == again


def test_FI1_a_recipe_in_the_name_is_none_in_the_header(tmp_path):
    q8 = load.ensure_store(str(folder_of(tmp_path / "m", 1)), "q8")
    q8.rename(q8.with_name(q8.name.replace("-q8-", "-f32-")))
    assert open_store(load.ensure_store(str(tmp_path / "m"), "f32")).recipe == "f32"


def test_FI5_equal_content_shares_a_store(tmp_path, monkeypatch):
    first = load.ensure_store(str(folder_of(tmp_path / "alice", 1)), "f32")
    monkeypatch.setattr(load, "make_store", lambda *_: pytest.fail("it was converted again"))
    assert load.ensure_store(str(folder_of(tmp_path / "bob", 1)), "f32") == first
    (tmp_path / "bob").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert load.ensure_store("moved", "f32") == load.ensure_store("./moved/", "f32") == first
    assert [model.path for model in library.find("moved")] == [first], "a copy finds it to remove it"


def older(path: Path, name: str) -> Path:
    """A store as an earlier version wrote it: its header knows a name and twelve digits."""
    source = {"name": name, "fingerprint": "0123456789ab"}
    convert(open_folder(small_folder(path.parent / "source")), "q4", path, source)
    return path


def test_FI11_a_store_of_an_earlier_version(tmp_path, home, monkeypatch):
    """It runs by its file's name, is listed and removed, and is never taken for a model whose name it bears."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = folder_of(tmp_path / "final", 1)
    (home / "stores").mkdir(parents=True)
    old = older(home / "stores" / "me--model-q4-0123456789ab.phi4", "me/model")
    same_folder = older(home / "stores" / "final-q4-0123456789ab.phi4", str(folder))
    assert load.ensure_store(str(old)) == old and load.load(str(old)).recipe == "q4"
    with pytest.raises(NotFound, match=f"offline: me/model is not in the hub's cache.*{old.name} may be it"):
        load.ensure_store("me/model", offline=True)
    made = load.ensure_store(str(folder))
    assert made != same_folder and same_folder.exists()
    assert {model.name for model in library.list_models()} == {"me/model", str(folder)}
    assert [model.path for model in library.remove("me/model")] == [old]
    assert {model.path for model in library.remove(str(folder))} == {made, same_folder}


def test_FI3_a_hub_id_and_a_folder_that_read_alike(tmp_path, home, monkeypatch):
    """`me/model` on the hub, the folder `me/model` here, and the folder `me--model`: three models."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    cached_model(tmp_path / "hub", "me/model", 1)
    on_hub = load.ensure_store("me/model", "f32", offline=True)
    dashes = load.ensure_store(str(folder_of(tmp_path / "me--model", 2)), "f32")
    folder_of(tmp_path / "me" / "model", 3)
    here = load.ensure_store("me/model", "f32")
    assert [embed(path) for path in (on_hub, dashes, here)] == [true_embed(seed) for seed in (1, 2, 3)]
    assert [model.path for model in library.find("me/model")] == [here], "a folder that is there is what a name means"
    shutil.rmtree(tmp_path / "me")
    assert load.ensure_store("me/model", "f32", offline=True) == on_hub
    assert [model.path for model in library.find("me/model")] == [on_hub]
    assert [model.path for model in library.find(str(tmp_path / "me" / "model"))] == [here], (
        "gone, and its store is not"
    )
    shutil.rmtree(tmp_path / "hub")
    assert load.ensure_store("me/model", "f32", offline=True) == on_hub, "a store needs no download"


STEM = "our-lab/Phi-4-mini-instruct-sft-ultrachat-200k-dpo-feedback-lr5e-6-cosine-epoch3-"


def cached_model(cache: Path, repo: str, seed: int, commit: str = "1") -> Path:
    """A snapshot in a hub's cache."""
    home = cache / f"models--{repo.replace('/', '--')}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(commit * 40)
    folder = folder_of(home / "snapshots" / (commit * 40), seed)
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


@pytest.mark.parametrize("download", ["kept", "gone"])
def test_FI3_hub_ids_of_which_80_characters_are_equal(tmp_path, home, monkeypatch, download):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert len(STEM) >= 80
    for seed in (1, 2, 3):
        cached_model(tmp_path / "hub", f"{STEM}v{seed}", seed)
        assert embed(load.ensure_store(f"{STEM}v{seed}", "f32", offline=True)) == true_embed(seed)
    if download == "gone":
        shutil.rmtree(tmp_path / "hub")
    for seed in (2, 1, 3):
        path = load.ensure_store(f"{STEM}v{seed}", "f32", offline=True)
        assert embed(path) == true_embed(seed) and read_header(path)["source"]["name"] == f"{STEM}v{seed}"
    with pytest.raises(NotFound, match="v4 is not in the hub's cache"):
        load.ensure_store(f"{STEM}v4", "f32", offline=True)


def test_FI3_a_new_revision_of_a_hub_model_and_an_edit_of_the_old_one(tmp_path, home, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = cached_model(tmp_path / "hub", "me/model", 1)
    first = load.ensure_store("me/model", "f32", offline=True)
    (folder / "chat_template.jinja").write_text(CHATML.replace("im_end", "im_End"))
    edited = load.ensure_store("me/model", "f32", offline=True)
    cached_model(tmp_path / "hub", "me/model", 2, commit="2")
    second = load.ensure_store("me/model", "f32", offline=True)
    assert len({first, edited, second}) == 3 and embed(second) == true_embed(2)
    (tmp_path / "hub" / "models--me--model" / "snapshots" / ("2" * 40) / "model.safetensors").unlink()
    os.utime(first, (1, 1)), os.utime(edited, (2, 2)), os.utime(second, (3, 3))
    assert load.ensure_store("me/model", "f32", offline=True) == second, "not whole: the newest store holds"


def test_FI11_a_hub_store_of_an_earlier_converter_is_used_and_said(tmp_path, home, monkeypatch, caplog):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    cached_model(tmp_path / "hub", "me/model", 1)
    monkeypatch.setitem(identity.THINGS, "store", replace(identity.THINGS["store"], version=1))
    identity._code.cache_clear()
    first = load.ensure_store("me/model", "f32", offline=True)
    monkeypatch.undo()
    identity._code.cache_clear()
    monkeypatch.setenv("PHI4MINI_HOME", str(home))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert load.ensure_store("me/model", "f32", offline=True) != first, "the content is there: made anew"
    shutil.rmtree(tmp_path / "hub")
    for path in (home / "stores").glob("*.phi4"):
        if path != first:
            path.unlink()
    assert load.ensure_store("me/model", "f32", offline=True) == first
    assert "was made by an earlier version; `phi4mini pull me/model --refresh` makes it anew" in caplog.text


@pytest.mark.parametrize("packed", ["f32", "bf16", "q8", "q4", "q4m", "q4-head8"])
def test_FI7_a_packed_file_and_a_recipe_that_it_does_not_have(tmp_path, packed):
    path = load.convert_to(str(folder_of(tmp_path / "m", 1)), packed, tmp_path / "m.phi4")
    assert load.ensure_store(str(path)) == load.ensure_store(str(path), packed) == path
    for asked in {"f32", "bf16", "q8", "q4", "q4m", "q4-head8"} - {packed}:
        with pytest.raises(BadInput, match=rf"m\.phi4 is packed as {packed}, and {asked} was asked for"):
            load.ensure_store(str(path), asked)
    with pytest.raises(BadInput, match="unknown quantisation"):
        load.ensure_store(str(path), "q5")


def test_FI1_converting_to_the_usual_name_replaces_no_other_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alice, bob = (str(folder_of(tmp_path / who / "final", seed)) for seed, who in ((1, "alice"), (2, "bob")))
    path = load.convert_to(alice, "f32")
    with pytest.raises(BadInput, match=r"final-f32\.phi4 is there and was not made of .*bob/final; -o names another"):
        load.convert_to(bob, "f32")
    assert load.convert_to(alice, "f32") == path and embed(path) == true_embed(1)
    assert embed(load.convert_to(bob, "f32", tmp_path / "final-f32.phi4")) == true_embed(2), "named by hand"
