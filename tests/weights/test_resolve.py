"""Names: each means one thing; what means nothing says what a name can be."""

from __future__ import annotations

import pytest

from phi4mini.errors import BadInput, NotFound
from phi4mini.weights.resolve import DEFAULT, resolve
from tests.weights.twins import small_folder


@pytest.mark.parametrize(
    ("name", "kind", "meant"),
    [
        ("demo", "demo", "demo"),
        ("synthetic", "synthetic", "synthetic"),
        ("synthetic:4", "synthetic", "synthetic:4"),
        ("synthetic:32", "synthetic", "synthetic"),
        ("phi-4-mini", "hub", DEFAULT),
        ("Phi-4-mini", "hub", DEFAULT),
        ("microsoft/Phi-4-mini-instruct", "hub", DEFAULT),
    ],
)
def test_words_and_ids(name, kind, meant):
    source = resolve(name)
    assert (source.kind, source.name) == (kind, meant)


def test_paths_are_told_by_what_they_are(tmp_path):
    folder = small_folder(tmp_path / "twin")
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(40))
    (tmp_path / "odd-name").write_bytes(b"PHI4MINI" + bytes(60))
    assert resolve(str(folder)).kind == "folder" and resolve(str(folder)).label == "twin"
    assert resolve(str(tmp_path / "m.gguf")).kind == "gguf" and resolve(str(tmp_path / "m.gguf")).label == "m"
    assert resolve(str(tmp_path / "odd-name")).kind == "store"


def test_a_folder_here_wins_over_an_id(tmp_path, monkeypatch):
    small_folder(tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    assert resolve("owner/name").kind == "folder" and resolve("owner/other").kind == "hub"


@pytest.mark.parametrize("name", ["nope", "a/b/c", "phi4", "", "x" * 5000, "a\0b", "gpt-5 turbo"])
def test_unknown_names_say_what_a_name_can_be(name):
    with pytest.raises((NotFound, BadInput), match=r"a model is a hub id \(owner/name\), a folder, a \.gguf") as caught:
        resolve(name)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["./none", "/none/at/all", "~/none-at-all", "none.gguf", "none.phi4"])
def test_paths_that_are_not_there_are_named(name):
    with pytest.raises(NotFound, match="no such file or folder"):
        resolve(name)


@pytest.mark.parametrize("name", ["synthetic:0", "synthetic:33", "synthetic:-1", "synthetic:many", "synthetic:9999"])
def test_synthetic_layers_are_bounded(name):
    with pytest.raises(BadInput, match="1 to 32 layers"):
        resolve(name)


@pytest.mark.parametrize("begin", [b"PK\x03\x04", b"\x80\x02}q"])
def test_A7_a_pickle_file_is_refused_with_a_hint(tmp_path, begin):
    (tmp_path / "m.pt").write_bytes(begin + bytes(40))
    with pytest.raises(BadInput, match="is a pickle file, which can run code and is never opened"):
        resolve(str(tmp_path / "m.pt"))


def test_a_file_of_no_kind_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadInput, match="neither a GGUF nor a store"):
        resolve(str(tmp_path / "notes.txt"))


def test_labels_are_file_names(tmp_path):
    assert resolve("a/b.c").label == "a--b.c" and resolve("synthetic:4").label == "synthetic-4"
    odd = tmp_path / "weird näme; $(x)"
    small_folder(odd)
    assert "/" not in resolve(str(odd)).label and " " not in resolve(str(odd)).label
