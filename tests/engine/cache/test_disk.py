"""The prefix cache on disk: a restart changes no bit of any answer, nor does anything that may happen to a file."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from phi4mini import identity
from phi4mini.engine.cache import pages as cache_module
from phi4mini.engine.cache.pages import Content, Node
from phi4mini.engine.engine import Engine
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.errors import BadInput, NoSpace, NumericalError
from phi4mini.kernels.kv import PAGE
from phi4mini.weights.store.store import open_store
from tests import tiny
from tests.engine.reuse import (
    alone,
    begin,
    both_kinds,
    check_pages,
    engine,
    every_case,
    files,
    folder,
    reused,
)
from tests.engine.schedule.test_prefix import adapted
from tests.engine.test_invariance import assert_same
from tests.engine.traces import ASKS, Ask, ask, run


@every_case
def test_a_restart_changes_no_bit(format: str, kv: str, tmp_path: Path) -> None:
    said: list[str] = []
    asks, want = list(ASKS), [alone(a, format, kv) for a in ASKS]
    for cached in ([0] * 6, [0, 0, 0, 128, 0, 15 * PAGE]):
        made = engine(format, kv, folder=folder(tmp_path, said))
        assert reused(made, asks) == cached
        made.close()
        made = engine(format, kv, folder=folder(tmp_path, said))
        assert_same(run(made, asks), want)
        check_pages(made, [])
        made.close()
    assert not said
    assert all(path.suffix == ".page" and path.stat().st_mode & 0o777 == 0o600 for path in files(tmp_path))


@pytest.fixture
def before(tmp_path: Path) -> Ask:
    """A prompt of two pages that was seen before a restart."""
    a = begin(150, 5, 1)
    made = engine(folder=folder(tmp_path))
    run(made, [a])
    made.close()
    assert len(files(tmp_path)) == 2
    return a


def test_reading_is_spread_over_passes(tmp_path: Path) -> None:
    """One page a pass: who decodes goes on in each, and no token is computed that lies on disk."""
    a, other = begin(400, 5, 1), ask(5, 40, 9)
    made = engine(folder=folder(tmp_path))
    run(made, [a])
    made.close()
    made = engine(folder=folder(tmp_path))
    made.scheduler.prefix.read_bytes = 1
    decoding = made.add(Request(list(other.ids), other.params))
    made.step()
    restored = made.add(Request(list(a.ids), a.params, a.rope))
    for count in range(1, 7):
        made.step()
        assert len(restored.seat.table) >= count and len(decoding.generated) >= 1 + count
        check_pages(made, [decoding, restored])
    assert tiny.finish(made, [restored, decoding]) == [alone(a).tokens, alone(other).tokens]
    assert restored.cached_tokens == 384
    made.close()


def test_what_others_share_on_disk_is_extended(tmp_path: Path, before: Ask) -> None:
    """A page in memory, the next on disk, the rest new, in every mixture; salts and sets apart on disk too."""
    made = engine(folder=folder(tmp_path))
    longer = begin(150, 90, 2)
    assert reused(made, [begin(64, 20, 3), longer, longer]) == [64, 128, 192]
    assert_same(run(made, [longer]), [alone(longer)])
    assert reused(made, [before] * 2, ["ann", "ann"]) == [0, 128]
    made.close()
    made = engine(folder=folder(tmp_path))
    assert reused(made, [before, replace(before, rope="short"), before, longer], ["bob", None, "ann", None]) == [
        0, 0, 128, 192,
    ]  # fmt: skip
    made.close()


def test_different_adapters_never_share_on_disk(tmp_path: Path) -> None:
    a = begin(150, 5, 1)
    kinds: list[dict[str, str]] = [{}, {"adapter": "x"}, {"adapter": "y"}, {"salt": "x"}]
    made = engine(folder=folder(tmp_path))
    assert adapted(made, a, kinds[:2]) == [0, 0]
    made.close()
    assert len(files(tmp_path)) == 4, "two pages of each"
    made = engine(folder=folder(tmp_path))
    assert adapted(made, a, kinds) == [128, 128, 0, 0]
    made.close()
    assert len(files(tmp_path)) == 8


def test_a_page_from_disk_needs_a_place(tmp_path: Path) -> None:
    """With too few pages for all: what cannot be read is computed, in its turn."""
    asks = [begin(180, i, i, 40) for i in range(1, 4)] + [replace(ask(180, 40, 8), rope="long")]
    for _ in range(2):
        made = engine(pages=5, folder=folder(tmp_path))
        assert_same(run(made, asks), [alone(a) for a in asks])
        check_pages(made, [])
        made.close()


def header_of(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The file with its header changed and hashed anew."""
    import hashlib
    import struct

    length = struct.unpack_from("<I", data, 12)[0]
    text = change(data[48 : 48 + length])
    return data[:12] + struct.pack("<I", len(text)) + hashlib.sha256(text).digest() + text + data[48 + length :]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda d: b"", "not a page"),
    "foreign": (lambda d: b"GGUF" + d[4:], "not a page"),
    "older": (lambda d: d[:8] + b"\0\0\0\0" + d[12:], "version 0"),
    "newer": (lambda d: d[:8] + b"\2\0\0\0" + d[12:], "version 2"),
    "header": (lambda d: d[:60] + bytes([d[60] ^ 1]) + d[61:], "header was changed"),
    "huge header": (lambda d: d[:12] + b"\xff\xff\xff\xff" + d[16:], "header was changed"),
    "no JSON": (lambda d: header_of(d, lambda h: b"{" * 9), "header is not"),
    "deep JSON": (lambda d: header_of(d, lambda h: b"[" * 60_000), "header is not"),
    "no object": (lambda d: header_of(d, lambda h: b"[1, 2]"), "other tokens"),
    "no checksum": (lambda d: header_of(d, lambda h: h.replace(b"crc32", b"crc33")), "other tokens"),
    "other token": (lambda d: header_of(d, lambda h: h.replace(b'"tokens": [', b'"tokens": [1')), "other tokens"),
    "other model": (lambda d: header_of(d, lambda h: h.replace(b'identity": "', b'identity": "0')), "other tokens"),
    "short": (lambda d: d[:-1], "should have"),
    "long": (lambda d: d + b"\0", "should have"),
    "first byte": (lambda d: d[:-16896] + bytes([d[-16896] ^ 4]) + d[-16895:], "bytes were changed"),
    "last byte": (lambda d: d[:-1] + bytes([d[-1] ^ 128]), "bytes were changed"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_A12_a_damaged_file_is_ignored_with_one_warning(tmp_path: Path, before: Ask, damage: str) -> None:
    """The prompt is computed, the text is the same, and the file is replaced by a good one."""
    change, message = DAMAGE[damage]
    for path in files(tmp_path):
        path.write_bytes(change(path.read_bytes()))
    said: list[str] = []
    made = engine(folder=folder(tmp_path, said))
    assert_same(run(made, [before]), [alone(before)])
    assert_same(run(made, [before]), [alone(before)])
    made.close()
    assert len(said) == 1 and message in said[0] and "\n" not in said[0]
    made = engine(folder=folder(tmp_path, said))
    assert reused(made, [before]) == [128] and len(said) == 1
    made.close()


def test_a_file_under_the_name_of_another_is_not_served(tmp_path: Path, before: Ask) -> None:
    first, second = (path.read_bytes() for path in files(tmp_path))
    for path, data in zip(files(tmp_path), (second, first), strict=True):
        path.write_bytes(data)
    said: list[str] = []
    made = engine(folder=folder(tmp_path, said))
    assert_same(run(made, [before]), [alone(before)])
    assert len(said) == 1
    made.close()


def test_a_hash_that_collides_serves_nothing_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All names and parents alike: the tokens decide."""
    constant = SimpleNamespace(digest=lambda: b"\7" * 32)
    monkeypatch.setattr(cache_module, "hashlib", SimpleNamespace(sha256=lambda data: constant))
    asks = [begin(0, 150, seed) for seed in range(4)]
    for _ in range(2):
        made = engine(folder=folder(tmp_path))
        assert_same([run(made, [a])[0] for a in asks], [alone(a) for a in asks])
        made.close()
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("other", ["fingerprint", "kv", "engine/compute/buffers.py", "formats/matrix.py", "numpy"])
def test_FI10_files_of_other_weights_kinds_and_code_are_not_found(
    tmp_path: Path, before: Ask, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    code = identity._code("page")
    assert other in ("fingerprint", "kv") or any(line.startswith(f"{other} ") for line in code)
    monkeypatch.setattr(identity, "_code", lambda what: [line.replace(f"{other} ", f"{other} 0") for line in code])
    kv, print_ = "f32" if other == "kv" else "int8", "abd" if other == "fingerprint" else "abc"
    made = engine(kv=kv, folder=folder(tmp_path, said, fingerprint=print_))
    assert_same(run(made, [before]), [alone(before, "q4", kv)])
    made.close()
    assert not said and len(files(tmp_path)) == 4


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="one instruction set only")
def test_FI10_pages_of_another_instruction_set_are_found(tmp_path: Path, before: Ask) -> None:
    """All CPUs compute the same bits: what this one has written, AVX2 alone reads and goes on from."""
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.engine.reuse import begin, engine, folder, reused\n"
        "from phi4mini.kernels.cpu import cpu\n"
        "made = engine(folder=folder(Path(sys.argv[1])))\n"
        "print(cpu().isa, reused(made, [begin(150, 5, 1)]))\n"
        "made.close()\n"
    )
    environment = os.environ | {"PHI4MINI_ISA": "avx2"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "avx2 [128]\n"


def writable(path: Path) -> None:
    path.chmod(0o622)


def linked(path: Path) -> None:
    shutil.move(path, path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("change", [writable, linked, folder_instead, pipe_instead])
def test_A12_only_files_that_only_this_user_may_write_are_read(
    tmp_path: Path, before: Ask, change: Callable[[Path], None]
) -> None:
    for path in files(tmp_path):
        change(path)
    said: list[str] = []
    made = engine(folder=folder(tmp_path, said))
    assert_same(run(made, [before]), [alone(before)])
    made.close()
    assert len(said) == 1 and "ignored" in said[0]


def test_files_of_another_owner_are_not_read(tmp_path: Path, before: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    made = engine(folder=folder(tmp_path, said))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert_same(run(made, [before]), [alone(before)])
    made.close()
    assert len(said) == 1 and "only this user" in said[0]


def test_files_that_vanish_are_computed_without_a_word(tmp_path: Path, before: Ask) -> None:
    said: list[str] = []
    made = engine(folder=folder(tmp_path, said))
    made.disk.has = lambda node: True  # it did when it was looked for
    assert_same(run(made, [ask(150, 4, 5)]), [alone(ask(150, 4, 5))])
    made.close()
    assert not said


def test_the_folder_stays_below_its_limit(tmp_path: Path) -> None:
    """The files longest unused go first, and of one prompt its last pages before the first."""
    a, b, c = (replace(ask(270, 1, seed), rope="long") for seed in (1, 2, 3))
    size = tiny.config().num_layers * engine().network.layout.page_bytes
    room = folder(tmp_path, limit=11 * (size + 1024))
    made = engine(folder=room)
    assert reused(made, [a, b, a]) == [0, 0, 256]
    made.close()
    assert len(files(tmp_path)) == 8
    made = engine(folder=room)
    assert reused(made, [c]) == [0]
    made.close()
    assert sum(path.stat().st_size for path in files(tmp_path)) <= room.limit and len(files(tmp_path)) >= 9
    made = engine(folder=room)
    assert reused(made, [c, a]) == [256, 256] and 0 < reused(made, [b])[0] < 256
    made.close()


def test_a_limit_below_one_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a prefix cache of 5000 bytes holds no page of 18432"):
        engine(folder=folder(tmp_path, limit=5000))


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot make the folder of the prefix cache"):
        engine(folder=folder(tmp_path / "file"))


def test_a_full_disk_stops_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, size: int) -> None:
        raise NoSpace(f"no space to write {path}")

    monkeypatch.setattr("phi4mini.engine.cache.disk.atomic_write", full)
    said: list[str] = []
    made, a = engine(folder=folder(tmp_path, said)), begin(150, 5, 1)
    assert_same(run(made, [a]), [alone(a)])
    made.close()
    assert len(said) == 1 and "no space" in said[0] and not files(tmp_path)


def test_a_page_whose_place_was_taken_is_not_written(tmp_path: Path) -> None:
    """Taken before it is copied, or while."""
    made = engine(folder=folder(tmp_path))
    prefix, view = made.scheduler.prefix, Content.view
    for when in ("before", "while"):
        table: list[int] = []
        made.pages.grow(table, PAGE)
        node = made.pages.learn(Node(prefix._root, bytes(4 * PAGE), table[0]))

        def taken(self: Content, page: int, node: Node = node) -> np.ndarray:
            node.page = None
            return view(self, page)

        if when == "before":
            made.pages.disown(table)
        prefix.content.view = taken.__get__(prefix.content)
        made.disk._write(node)
        made.pages._known.pop(table[0], None)
        made.pages.release(table)
    made.close()
    assert not files(tmp_path)


def test_damaged_pages_leave_the_disk(tmp_path: Path, before: Ask) -> None:
    made = engine(folder=folder(tmp_path))
    request = made.add(Request(list(before.ids), before.params, before.rope))
    made.step()
    assert request.cached_tokens == 128
    made._fail(request, NumericalError("as if"))
    made.close()
    assert not files(tmp_path)


# the demo ---------------------------------------


@both_kinds
def test_the_demo_answers_alike_with_reuse_and_after_a_restart(demo_store: Any, tmp_path: Path, kv: str) -> None:
    """And a prompt of 4K tokens that was seen before the restart gives its first token at least 10 x sooner."""
    opened = open_store(demo_store("q4"))
    where = folder(tmp_path, fingerprint=opened.fingerprint)
    text = " ".join(f"In year {1900 + i} the town had {i * i} people and {i % 7} mills." for i in range(400))
    prompt, asks = opened.tokenizer.encode(text)[:4096], []
    assert len(prompt) == 4096
    seconds, answers = [], []
    for _ in range(2):
        made = Engine(opened.weights, kv, ctx=4200, disk=where)
        list(made.generate(prompt[:8], SamplingParams(max_new_tokens=2)))  # compiles
        for asked in (prompt, prompt):
            request = made.add(Request(asked, SamplingParams(max_new_tokens=12, ignore_eos=True)))
            traces = tiny.finish(made, [request])
            asks.append(request.cached_tokens)
            seconds.append(request.timings.prefill_seconds)
            answers.append(traces[0])
        made.close()
    print(f"{kv}: first token after {seconds[0]:.2f} s cold, {seconds[1]:.3f} in memory, {seconds[2]:.3f} from disk")
    assert asks == [0, 4032, 4032, 4032] and answers == [answers[0]] * 4
    sooner = 10 if kv == "int8" else 4  # an f32 cache is four times the bytes to read
    assert seconds[1] < seconds[0] / sooner and seconds[2] < seconds[0] / sooner
