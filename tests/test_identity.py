"""The table of what cached bytes depend on is complete, and the content of a file is told by nothing but its bytes."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi4mini import identity
from phi4mini.errors import BadInput, NotFound, Phi4MiniError

PACKAGE = Path(identity.__file__).parent
ROOTS = {
    "kernel": sorted(path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "kernels").rglob("*.py")),
    "page": [
        "weights/store/store.py",
        *(f"engine/{name}.py" for name in ("collate", "compute/forward", "compute/buffers")),
        *(f"engine/{name}.py" for name in ("cache/pages", "cache/disk", "schedule/prefix")),
    ],
}
NO_BITS = {  # what these files import and no bit depends on, and why
    "errors.py": "words",
    "files.py": "how a file is written, not what is in it",
    "identity.py": "the table itself: a change of it is a change of a row",
    "engine/sample/params.py": "what is done with logits",
    "engine/sample/sampling.py": "what is done with logits",
    "engine/sample/constraint.py": "what is done with logits",
    "engine/guess/guesser.py": "which tokens are guessed; a guess that is wrong is computed again",
    "engine/guess/lookup.py": "which tokens are guessed; a guess that is wrong is computed again",
    "weights/checkpoints/tensor_names.py": "the names of arrays, which the header of the weights repeats",
    "tokenizer/__init__.py": "text",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHI4MINI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# ---- the table


def imports(name: str) -> set[str]:
    """Full names that a file imports when it runs: those for type checkers are left out."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse((PACKAGE / name).read_text("utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        todo += ast.iter_child_nodes(node)
    return found


def file_of(module: str) -> str | None:
    """The file of the package that an imported name lives in."""
    parts = module.split(".")[1:]
    for end in range(len(parts), 0, -1):
        for name in ("/".join(parts[:end]) + ".py", "/".join(parts[:end]) + "/__init__.py"):
            if (PACKAGE / name).is_file():
                return name
    return None


def reached(roots: list[str]) -> set[str]:
    """All files of the package that the roots import, one way or another, past NO_BITS."""
    todo, seen = list(roots), set(roots)
    while todo:
        for name in imports(todo.pop()):
            file = file_of(name) if name.startswith("phi4mini.") else None
            if file is not None and file not in seen and file not in NO_BITS:
                seen.add(file)
                todo.append(file)
    return seen


@pytest.mark.parametrize("what", ROOTS)
def test_FI10_every_module_behind_the_bits_is_in_the_table(what: str) -> None:
    assert reached(ROOTS[what]) - set(identity.sources(what)) == set()


@pytest.mark.parametrize("what", ROOTS)
def test_FI10_every_library_behind_the_bits_is_in_the_table(what: str) -> None:
    used = {name.partition(".")[0] for file in identity.sources(what) for name in imports(file)}
    assert used - set(sys.stdlib_module_names) - {"phi4mini", "__future__"} == set(identity.THINGS[what].libraries)


def test_FI10_what_was_left_out_would_be_noticed() -> None:
    """The walk finds what pages used to leave out, and the exclusions are files that it meets."""
    found = reached(ROOTS["page"])
    wanted = {"formats/matrix.py", "engine/compute/buffers.py", "engine/batch.py", "model/config.py"}
    wanted |= {"engine/cache/seat.py", "engine/schedule/prefix.py"}
    assert wanted | {"kernels/matmul.py"} <= found
    assert set(NO_BITS) <= {file_of(name) for file in found for name in imports(file) if name.startswith("phi4mini.")}
    assert "engine/schedule/scheduler.py" not in identity.sources("page"), "who computes when is no matter of bits"


@pytest.mark.parametrize("what", identity.THINGS)
def test_a_key_changes_with_every_line_of_its_row(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = identity._code(what)
    assert len(code) == 1 + len(identity.sources(what)) + len(identity.THINGS[what].libraries)
    keys = {identity.key_of(what, "fact"), identity.key_of(what, "other"), identity.key_of(what)}
    for line in code:
        monkeypatch.setattr(identity, "_code", lambda _, line=line: [f"{c}x" if c == line else c for c in code])
        keys.add(identity.key_of(what, "fact"))
    assert len(keys) == 3 + len(code) and all(len(key) == 64 for key in keys)


@pytest.mark.parametrize("what", ROOTS)
def test_FI10_a_change_of_any_source_changes_the_key(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "phi4mini"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "page"))
    monkeypatch.setattr(identity, "__file__", str(package / "identity.py"))
    monkeypatch.setattr(identity, "_code", identity._code.__wrapped__)
    seen = {identity.key_of(what)}
    (package / "engine" / "schedule" / "scheduler.py").write_text("# none of the bits are decided here")
    assert identity.key_of(what) in seen
    for path in identity.sources(what).values():
        path.write_text(path.read_text("utf-8") + "#\n", "utf-8")
        seen.add(identity.key_of(what))
    assert len(seen) == 1 + len(identity.sources(what))
    (package / "kernels" / "another.py").write_text("")
    assert identity.key_of(what) not in seen, "a new source is one too"
    shutil.rmtree(package / "formats")
    with pytest.raises(Phi4MiniError, match=r"formats/\*\.py: no such source; this installation is not whole"):
        identity.key_of(what)


def test_facts_do_not_run_into_each_other() -> None:
    assert identity.key_of("store", "ab", "c") != identity.key_of("store", "a", "bc") != identity.key_of("store", "abc")


def test_a_library_that_is_not_there_is_named() -> None:
    with pytest.raises(NotFound, match="no-such-library is not installed"):
        identity.library_version("no-such-library")


# ---- the content of files


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is remembered, however small and however fresh: only the state of a file tells it apart."""
    monkeypatch.setattr(identity, "_SMALL", 0)
    monkeypatch.setattr(identity, "_SETTLED", -(10**19))


def sha(path: Path) -> str:
    return identity.contents([path])[path].sha256


def tick() -> None:
    """The file system's clock goes in steps of up to 10 ms."""
    time.sleep(0.03)


def in_place(path: Path, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.write(data)


def replaced(path: Path, data: bytes) -> None:
    path.with_name("new").write_bytes(data)
    os.replace(path.with_name("new"), path)


def mapped(path: Path, data: bytes) -> None:
    import mmap

    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[:] = data
        view.flush()


def linked(path: Path, data: bytes) -> None:
    (path.parent / "elsewhere").write_bytes(data)
    path.unlink()
    path.symlink_to("elsewhere")


def hard_linked(path: Path, data: bytes) -> None:
    (path.parent / "elsewhere").write_bytes(data)
    path.unlink()
    os.link(path.parent / "elsewhere", path)


def exchanged(path: Path, data: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(data)
    path.rename(path.with_name("aside"))
    other.rename(path)


def through_a_hard_link(path: Path, data: bytes) -> None:
    os.link(path, path.with_name("twin"))
    in_place(path.with_name("twin"), data)


def cut_and_grown(path: Path, data: bytes) -> None:
    os.truncate(path, 0)
    in_place(path, data)


CHANGES: list[Callable[[Path, bytes], None]] = [
    in_place, replaced, mapped, linked, hard_linked, exchanged, through_a_hard_link, cut_and_grown
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("times", ["kept", "set to the epoch"])
def test_FI1_a_file_with_the_size_and_time_of_another_is_told_from_it(
    trusting: None, tmp_path: Path, change: Callable[[Path, bytes], None], times: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"a" * 5000)
    at = (path.stat().st_mtime_ns,) * 2 if times == "kept" else (0, 0)
    os.utime(path, ns=at)
    first = sha(path)
    assert sha(path) == first
    tick()
    change(path, b"b" * 5000)
    os.utime(path, ns=at)
    assert path.stat().st_size == 5000 and path.stat().st_mtime_ns == at[1]
    assert sha(path) != first


def test_what_rested_is_remembered_and_not_read_again(trusting: None, tmp_path: Path, monkeypatch, home: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"abc" * 1000)
    first = sha(path)
    assert list(json.loads((home / identity.MEMO).read_bytes())) == [str(path)]
    monkeypatch.setattr(identity, "_hash", lambda *_: pytest.fail("it was read"))
    assert sha(path) == first and sha(tmp_path / "." / "m") == first


def test_FI1_what_has_just_been_written_is_read_again(tmp_path: Path, monkeypatch, home: Path) -> None:
    """The times of two writes in one tick of the clock are equal: such a file is not remembered."""
    monkeypatch.setattr(identity, "_SMALL", 0)
    path = tmp_path / "m"
    for letter in "abcdefghijkl":
        path.write_text(letter * 100)
        os.utime(path, ns=(0, 0))
        assert sha(path) == hashlib.sha256(letter.encode() * 100).hexdigest()
    assert not (home / identity.MEMO).exists()


@pytest.mark.parametrize(
    "memo", [b"", b"{", b"[]", b"null", b'{"%s": 5}', b'{"%s": []}', b'{"%s": [1, 2, 3, 4, 5, "00"]}', b"[" * 90_000]
)
def test_a_damaged_memory_changes_nothing(tmp_path: Path, home: Path, memo: bytes) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"abc")
    first = sha(path)
    home.mkdir(exist_ok=True)
    (home / identity.MEMO).write_bytes(memo.replace(b"%s", str(path).encode()))
    assert sha(path) == first


def test_a_cache_folder_that_cannot_be_written_is_said(trusting: None, tmp_path: Path, home: Path, caplog) -> None:
    home.write_text("a file where the folder should be")
    (tmp_path / "m").write_bytes(b"abc")
    assert sha(tmp_path / "m") and "cannot be remembered" in caplog.text


def test_the_memory_forgets_what_is_gone_and_stays_small(
    trusting: None, tmp_path: Path, home: Path, monkeypatch
) -> None:
    monkeypatch.setattr(identity, "_MOST_REMEMBERED", 5)
    for number in range(8):
        (tmp_path / f"m{number}").write_bytes(b"%d" % number)
        sha(tmp_path / f"m{number}")
    (tmp_path / "m7").unlink()
    (tmp_path / "m8").write_bytes(b"8")
    sha(tmp_path / "m8")
    assert [Path(p).name for p in json.loads((home / identity.MEMO).read_bytes())] == ["m3", "m4", "m5", "m6", "m8"]


def test_FI6_a_file_that_is_being_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"a" * 10_000)
    monkeypatch.setattr(identity, "_BLOCK", 1000)
    began, state = threading.Event(), identity._state

    def noticed(about: os.stat_result) -> identity.State:
        """After the first look at the file it grows."""
        found = state(about)
        if not began.is_set() and threading.current_thread() is not threading.main_thread():
            began.set()
            with open(path, "ab") as file:
                file.write(b"more")
        return found

    monkeypatch.setattr(identity, "_state", noticed)
    with pytest.raises(BadInput, match=r"m was changed while it was read; try again when it is whole"):
        sha(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="none: No such file"):
        sha(tmp_path / "none")


def test_long_reading_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").write_bytes(b"a")
    monkeypatch.setattr(identity, "_PATIENCE", 0.02)
    real = identity._hash
    monkeypatch.setattr(identity, "_hash", lambda *given: (time.sleep(0.2), real(*given))[1])
    said: list[str] = []
    identity.contents([tmp_path / "m"], said.append)
    assert len(said) == 1 and said[0].startswith("reading 0.0 GB to tell these weights from others")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=2, max_size=6))
def test_contents_are_equal_exactly_when_bytes_are(trusting: None, tmp_path: Path, files: list[bytes]) -> None:
    paths = [tmp_path / f"{i}" for i in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        replaced(path, data)
        os.utime(path, ns=(7, 7))
    found = identity.contents(paths)
    for a, one in zip(paths, files, strict=True):
        for b, other in zip(paths, files, strict=True):
            assert (found[a].sha256 == found[b].sha256) == (one == other)
