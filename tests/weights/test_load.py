"""The one way a model is loaded: made once, used again, made anew when its source changed; two at once make it once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phi4mini.errors import BadCheckpoint, BadInput, NotFound
from phi4mini.model.config import Config
from phi4mini.weights import library, load
from phi4mini.weights.store.store import open_store
from tests.weights.store.test_convert import sparse
from tests.weights.twins import config_json, small_folder, write_folder, write_gguf


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PHI4MINI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_folder_is_converted_once(tmp_path, home):
    folder = small_folder(tmp_path / "twin")
    steps = []
    path = load.ensure_store(str(folder), "q4", progress=lambda what, done, total: steps.append((what, done, total)))
    assert path.parent == home / "stores" and path.name.startswith("twin-q4-")
    assert steps[0][0] == f"converting {folder} to q4" and steps[-1][1] == steps[-1][2] == path.stat().st_size
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)
    before = path.stat().st_mtime_ns
    assert load.ensure_store(str(folder), "q4") == path and path.stat().st_mtime_ns == before
    assert load.ensure_store(str(folder), "q8") != path


def test_a_changed_source_is_converted_anew(tmp_path):
    folder = small_folder(tmp_path / "twin")
    first = load.ensure_store(str(folder))
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert load.ensure_store(str(folder)) == first, "another time is not another content"
    small_folder(folder, "Phi3", rms_norm_eps=1e-6)
    assert load.ensure_store(str(folder)) != first and first.exists()


def test_a_broken_store_of_the_cache_is_made_anew(tmp_path, caplog):
    folder = small_folder(tmp_path / "twin")
    path = load.ensure_store(str(folder))
    os.truncate(path, 5000)
    assert load.ensure_store(str(folder)) == path
    open_store(path, verify=True)
    assert "truncated" in caplog.text and "made anew" in caplog.text


def test_a_gguf_and_a_store_are_models_too(tmp_path):
    write_gguf(tmp_path / "m.gguf", Config.from_json(config_json("Llama")), default="Q8_0")
    path = load.ensure_store(str(tmp_path / "m.gguf"))
    assert path.name.startswith("m-q4-")
    assert load.ensure_store(str(path)) == load.ensure_store(str(path), "q4") == path
    weights = load.load_weights(str(path))
    assert weights.layers[0].o.format.name == "q8"
    assert load.load(str(path)).chat_format == "none"


def test_A13_two_at_once_make_it_once(tmp_path, home):
    """The second waits for the first and takes what it made."""
    numbers = config_json(vocab_size=60_000, hidden_size=1024, num_attention_heads=16, num_key_value_heads=16)
    folder = write_folder(tmp_path / "twin", numbers, tensors={})
    sparse(folder / "model.safetensors", numbers)
    code = "import sys; from phi4mini.weights.load import ensure_store; print(ensure_store(sys.argv[1], 'f32'))"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    answers = [process.communicate(timeout=120) for process in started]
    assert all(process.returncode == 0 for process in started), answers
    assert len({out for out, _ in answers}) == 1
    assert sum("waiting for another process" in err for _, err in answers) >= 1
    assert len(os.listdir(home / "stores")) == 1, "no lock and no temporary file is left"
    open_store(Path(answers[0][0].strip()), verify=True)


def test_what_fails_leaves_no_store(tmp_path, home):
    folder = small_folder(tmp_path / "twin")
    os.truncate(folder / "model.safetensors", 3000)
    with pytest.raises(BadCheckpoint, match=r"model\.safetensors: truncated"):
        load.ensure_store(str(folder))
    assert not home.exists() or not [p for p in home.rglob("*") if p.is_file()]


def test_an_unknown_recipe_is_refused_before_anything(tmp_path, home):
    with pytest.raises(BadInput, match="unknown quantisation 'q3'"):
        load.ensure_store(str(small_folder(tmp_path / "twin")), "q3")
    assert not home.exists()


def test_convert_to_a_place_of_ones_own(tmp_path):
    folder = small_folder(tmp_path / "twin")
    path = load.convert_to(str(folder), "q8", tmp_path / "mine.phi4")
    assert path == tmp_path / "mine.phi4" and open_store(path).recipe == "q8"
    with pytest.raises(BadCheckpoint, match="is a store already"):
        load.convert_to(str(path), "q4", tmp_path / "again.phi4")
    with pytest.raises(NotFound, match="no such folder"):
        load.convert_to(str(folder), "q4", tmp_path / "none" / "mine.phi4")


def test_config_of_reads_no_weights(tmp_path, home):
    folder = small_folder(tmp_path / "twin")
    assert load.config_of(str(folder)).num_layers == 2
    assert load.config_of("phi-4-mini") == Config.phi4_mini() == load.config_of("synthetic")
    assert not home.exists()
    assert load.config_of(str(load.ensure_store(str(folder)))).num_layers == 2


def test_the_library_lists_and_removes(tmp_path, home):
    folder = small_folder(tmp_path / "twin")
    paths = [load.ensure_store(str(folder), quant) for quant in ("q4", "q8")]
    (home / "models").mkdir()
    (home / "models" / "demo.gguf").write_bytes(b"GGUF")
    (home / "stores" / "half.phi4").write_bytes(b"PHI4MINI")
    listed = {model.path.name: model for model in library.list_models()}
    assert len(listed) == 4
    one = listed[paths[0].name]
    assert (one.name, one.recipe, one.architecture) == (str(folder), "q4", "phi3")
    assert one.nbytes == paths[0].stat().st_size and abs(one.modified - time.time()) < 600
    assert "truncated" in (listed["half.phi4"].broken or "") and listed["demo.gguf"].recipe is None
    assert [model.path for model in library.remove("half")] == [home / "stores" / "half.phi4"]
    assert {model.path for model in library.remove(str(folder))} == set(paths)
    assert [model.name for model in library.list_models()] == ["demo"]
    with pytest.raises(NotFound, match="is not in the model cache"):
        library.remove(str(folder))
    assert folder.exists()


def test_an_empty_cache_has_no_models():
    assert library.list_models() == []


def test_importing_the_room_is_light():
    code = "import sys, phi4mini.weights; print(sorted(m for m in sys.modules if m.startswith(('numpy', 'phi4mini'))))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['phi4mini', 'phi4mini.weights']"
