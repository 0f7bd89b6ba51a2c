"""Files are whole or absent: after success, after every kind of failure, after kill -9, and between two processes."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from phi4mini.errors import BadInput, NoSpace
from phi4mini.files import atomic_write, cache_home, lock, sweep_stale

TIMEOUT = 30


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A child that runs `code` with sys.argv[1:] = arguments; its stdout is a pipe the test waits on."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "model.phi4"
    path.write_bytes(b"old and longer")
    with atomic_write(path, size=3) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old and longer"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["model.phi4"]


def test_file_can_be_read_back_and_patched_while_written(tmp_path):
    with atomic_write(tmp_path / "a") as file:
        file.write(b"....data")
        file.seek(0)
        file.write(b"HEAD")
        file.seek(0)
        assert file.read() == b"HEADdata"
    assert (tmp_path / "a").read_bytes() == b"HEADdata"


def test_permissions_follow_the_umask_and_links_stay_links(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "file")
    before = os.umask(0o027)
    try:
        with atomic_write(link) as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert link.is_symlink() and (tmp_path / "real" / "file").read_bytes() == b"x"
    assert (tmp_path / "real" / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_system_call_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, code):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(NoSpace if code == errno.ENOSPC else OSError), atomic_write(path) as file:
        file.write(b"half")
    monkeypatch.undo()
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_G11_the_bytes_are_on_disk_before_the_name_and_the_name_before_it_returns(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def noted_replace(*names: str) -> None:
        replace(*names)
        done.append("rename")

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    with atomic_write(tmp_path / "a") as file:
        file.write(b"all")
    assert done == ["file", "rename", "folder"]


WRITE_LIMITED = """
import resource, sys
from phi4mini.errors import NoSpace
from phi4mini.files import atomic_write
path, limit = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with atomic_write(path, size=300_000) as file:
        for _ in range(30):
            file.write(b"x" * 10_000)
except NoSpace as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 1, 9_999, 150_000, 299_999])
def test_a_write_that_fails_at_any_byte_is_no_space(tmp_path, limit):
    """A file size limit makes the real write system call fail after `limit` bytes."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    out, err = python(WRITE_LIMITED, path, limit).communicate(timeout=TIMEOUT)
    assert out.startswith(f"no space to write {path}, 300000 bytes needed") and out.count("\n") == 1 and not err
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"cannot mount a small tmpfs: {mount.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_no_space_and_a_smaller_file_still_fits(small_disk):
    path = small_disk / "a"
    with pytest.raises(NoSpace, match=f"no space to write {path}"), atomic_write(path) as file:
        for _ in range(100):
            file.write(b"x" * 10_000)
    assert os.listdir(small_disk) == []
    with pytest.raises(NoSpace, match=r"1000000 bytes needed, \d+ free"), atomic_write(path, size=1_000_000):
        raise AssertionError("the size is checked before the block runs")
    with atomic_write(path, size=100_000) as file:
        file.write(b"x" * 100_000)
    assert path.stat().st_size == 100_000


WRITE_AND_WAIT = """
import sys
from phi4mini.files import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_kill_9_leaves_the_old_file_and_the_next_write_sweeps(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with python(WRITE_AND_WAIT, path) as child:
        assert child.stdout.readline() == "writing\n"
        assert sweep_stale(tmp_path) == []  # its writer lives
        assert len(os.listdir(tmp_path)) == 2
        child.send_signal(signal.SIGKILL)
        child.wait(TIMEOUT)
    assert path.read_bytes() == b"old" and len(os.listdir(tmp_path)) == 2
    with atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a"]


def test_sweep_touches_only_its_own_kind(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(TIMEOUT)
    stale = tmp_path / f".model.phi4.{dead.pid}.{'0' * 16}.tmp"
    kept = [
        f".model.phi4.{os.getpid()}.{'0' * 16}.tmp",
        f"model.phi4.{dead.pid}.{'0' * 16}.tmp",
        f".model.phi4.{dead.pid}.tmp",
        ".notes.tmp",
    ]
    for name in [stale.name, *kept]:
        (tmp_path / name).touch()
    assert sweep_stale(tmp_path) == [stale]
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
    assert sweep_stale(tmp_path / "missing") == []


def test_a_locked_temporary_is_kept_though_its_pid_is_unknown_here(tmp_path):
    """What a writer in another container looks like: a pid that does not exist here, a lock that does."""
    import fcntl

    path = tmp_path / f".a.{2**22 + 1}.{'0' * 16}.tmp"  # beyond the largest pid Linux gives
    with open(path, "xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert sweep_stale(tmp_path) == []
    assert sweep_stale(tmp_path) == [path]


def test_places_that_cannot_be_written_are_bad_input(tmp_path):
    with pytest.raises(BadInput, match="it is a folder"), atomic_write(tmp_path):
        raise AssertionError("not reached")
    with pytest.raises(BadInput, match="missing/a: No such file"), atomic_write(tmp_path / "missing" / "a"):
        raise AssertionError("not reached")
    with pytest.raises(BadInput, match="missing/a: No such file"), atomic_write(tmp_path / "missing" / "a", size=1):
        raise AssertionError("not reached")
    with pytest.raises(BadInput, match="cannot lock"), lock(tmp_path / "missing" / "a"):
        raise AssertionError("not reached")


# --- the lock -------------------------------------------------------------------------------------------------------

MAKE_ONCE = """
import sys
from pathlib import Path
from phi4mini.files import atomic_write, lock
path = Path(sys.argv[1])
with lock(path):
    if path.exists():
        print("reused", flush=True)
    else:
        print("making", flush=True)
        sys.stdin.readline()
        with atomic_write(path) as file:
            file.write(b"made")
"""


def test_of_two_makers_one_makes_and_the_other_waits_and_reuses(tmp_path):
    path = tmp_path / "model"
    with python(MAKE_ONCE, path) as first:
        assert first.stdout.readline() == "making\n"
        with python(MAKE_ONCE, path) as second:
            assert second.stderr.readline() == f"waiting for another process that is writing {path}\n"
            first.communicate("go\n", timeout=TIMEOUT)
            assert second.communicate(timeout=TIMEOUT)[0] == "reused\n"
    assert path.read_bytes() == b"made" and os.listdir(tmp_path) == ["model"]


def test_a_killed_holder_holds_nothing(tmp_path):
    path = tmp_path / "model"
    with python(MAKE_ONCE, path) as child:
        assert child.stdout.readline() == "making\n"
        child.send_signal(signal.SIGKILL)
        child.wait(TIMEOUT)
    said: list[str] = []
    with lock(path, said.append):
        assert said == []
    assert os.listdir(tmp_path) == []


def test_many_threads_are_one_at_a_time(tmp_path):
    inside, most, done = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, done
        for _ in range(20):
            with lock(tmp_path / "a", lambda _: None):
                inside += 1
                most = max(most, inside)
                inside -= 1
                done += 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert (most, done) == (1, 160)
    assert os.listdir(tmp_path) == []


# --- the cache folder -----------------------------------------------------------------------------------------------


def test_cache_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("PHI4MINI_HOME", "~/models")
    assert cache_home() == tmp_path / "models"
    monkeypatch.delenv("PHI4MINI_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_home() == tmp_path / "xdg" / "phi4mini"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_home() == tmp_path / ".cache" / "phi4mini"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_home() == tmp_path / "Library" / "Caches" / "phi4mini"
