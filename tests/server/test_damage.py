"""Faults while the server runs (rows D13, A9): a failing pass, a dying process, a file cut or replaced, a full disk."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.server.process import CHAT, all_of, asking, serving, wait_until

pytest.importorskip("uvicorn", reason="needs the extra serve")
SMALL = ("--kv-tokens", "8192")
FAULTY = {"module": "tests.server.faulty"}
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@pytest.fixture(scope="module")
def home(demo_store, tmp_path_factory):
    demo_store()
    return tmp_path_factory.mktemp("home")


# ---- D13


def test_D13_a_pass_that_raises_ends_its_requests_and_the_model_is_opened_anew(home, tmp_path):
    fault = tmp_path / "fault"
    with serving(home, *SMALL, **FAULTY, FAULT_FILE=str(fault), FAULT_OPEN="2") as server:
        text, worker, memory = server.chat().text, server.worker, server.status("VmRSS")
        streams = [server.start_chat("Story.", 1900, stream=True, ignore_eos=True) for _ in range(2)]
        wait_until(lambda: server.metric("requests_running") == 2)
        whole = server.start_chat("Story.", 1900, ignore_eos=True)
        wait_until(lambda: server.metric("requests_running") == 3)
        fault.write_text("raise")
        wait_until(lambda: server.ask("/ready").status == 503, 10)
        reopening = server.ask("/ready")
        assert reopening.code == "loading" and reopening.headers["retry-after"]
        answer = all_of(whole, 1)
        assert answer.startswith(b"HTTP/1.1 500 ") and b'"engine_failed"' in answer and b"ZeroDivision" in answer
        for stream in streams:
            data = all_of(stream, 1)
            assert b'"engine_failed"' in data and b"[DONE]" not in data
        meanwhile = server.chat()  # comes while the model is opened, and waits for it
        assert meanwhile.status == 200 and meanwhile.text == text
        assert server.ready() and server.worker == worker, "the process is the same"
        assert server.metric("engine_failures_total") == 1
        server.rest()
        assert server.status("VmRSS") < memory + (60 << 20), "the model that failed is not kept"
        assert "Traceback" in server.said and "a fault of the tests" in server.said


@pytest.mark.parametrize("how", ["segv", "kill"])
def test_D13_a_process_that_dies_is_started_again_within_10_seconds(home, tmp_path, how):
    fault = tmp_path / "fault"
    with serving(home, *SMALL, **FAULTY, FAULT_FILE=str(fault)) as server:
        text, first = server.chat().text, server.worker
        assert first != server.process.pid
        stream = server.start_chat("Story.", 1900, stream=True, ignore_eos=True)
        wait_until(lambda: server.metric("requests_running") == 1)
        began = time.monotonic()
        if how == "segv":
            fault.write_text("segv")
        else:
            os.kill(first, signal.SIGKILL)
        data = all_of(stream, 10)
        assert b"[DONE]" not in data, "the connection has ended without the mark of success"
        wait_until(server.ready, 10)
        assert time.monotonic() - began < 10
        wait_until(lambda: server.worker != first)
        assert server.chat().text == text
        assert ("SIGSEGV" if how == "segv" else "SIGKILL") in server.said
        assert resident(server.process.pid) < 40 << 20, "who watches is light"
        server.process.terminate()
        assert server.process.wait(20) == 0


def test_D13_without_a_supervisor_it_just_ends(home):
    with serving(home, *SMALL, "--no-supervise") as server:
        assert server.worker == server.process.pid
        os.kill(server.worker, signal.SIGKILL)
        assert server.process.wait(10) == -signal.SIGKILL


def test_D13_what_dies_again_and_again_is_given_up(home):
    with serving(home, *SMALL) as server:
        assert resident(server.process.pid) < 40 << 20, "who watches is light"
        seen = set()
        for _ in range(6):
            wait_until(lambda: server.worker not in seen, 20)
            seen.add(server.worker)
            os.kill(server.worker, signal.SIGKILL)
        assert server.process.wait(20) == 1
        assert "too often" in server.said


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


# ---- A9


@pytest.fixture
def copied(demo_store, tmp_path) -> Path:
    """A store of the test's own."""
    return Path(shutil.copy(demo_store(), tmp_path / "model.phi4"))


def test_A9_a_file_cut_while_it_serves_is_refused_with_its_name(home, copied):
    """The kernel ends the reader with SIGBUS; the process that is started again sees why, and serves nothing of it."""
    size = copied.stat().st_size
    with serving(home, *SMALL, model=str(copied)) as server:
        assert server.chat(max_tokens=4).status == 200
        os.truncate(copied, size // 2)
        threading.Thread(target=lambda: swallow(server), daemon=True).start()
        assert server.process.wait(30) == 2
        last = server.said.strip().splitlines()[-1]
        assert str(copied) in last and "truncated" in last and str(size) in last and str(size // 2) in last


def swallow(server) -> None:
    """Ask until the server is gone."""
    try:
        while True:
            server.ask(CHAT, asking("Read every weight there is.", 8), timeout=20)
    except Exception:
        return


def test_A9_a_file_replaced_while_it_serves_changes_nothing(home, copied, tmp_path):
    """As our own writer does it: another file under the same name. The old one stays mapped until it is let go."""
    with serving(home, *SMALL, model=str(copied)) as server:
        text = server.chat().text
        other = tmp_path / "other"
        other.write_bytes(b"PHI4MINI" + bytes(10_000))
        os.replace(other, copied)
        assert server.chat().text == text
        assert server.chat("Something else.", 8).status == 200 and server.ready()
        assert server.metric("engine_failures_total") == 0


def test_A9_with_an_idle_model_the_damage_is_found_when_it_is_opened_again(home, copied):
    """Requests are told, /ready is 503; with the file put right it goes on by itself."""
    good = copied.read_bytes()
    with serving(home, *SMALL, "--keep-alive", "0.3s", model=str(copied)) as server:
        text = server.chat().text
        wait_until(lambda: server.metric("model_loaded") == 0)
        copied.write_bytes(good[: len(good) // 2])
        for _ in range(2):  # the one that finds it, and one that comes after
            answer = server.chat()
            assert (answer.status, answer.code) == (503, "not_loaded") and answer.headers["retry-after"]
            assert str(copied.parent) not in answer.body.decode()
        assert f"{copied}: truncated" in server.said, "who runs it is told which file"
        assert server.ask("/ready").code == "not_loaded"
        copied.write_bytes(good)
        wait_until(lambda: server.chat().status == 200, 20)
        assert server.chat().text == text and server.ready()


def test_no_answer_tells_where_the_model_lies(home, copied):
    """Clients see the model's name; the path is in the log only, but a request that knows it may use it."""
    with serving(home, *SMALL, model=str(copied)) as server:
        asked = [server.ask(path) for path in ("/v1/models", "/props", "/metrics", "/openapi.json", "/v1/models/none")]
        asked += [server.chat(max_tokens=2, model=name) for name in (str(copied), copied.name, "default", "none")]
        assert [answer.status for answer in asked] == [200, 200, 200, 200, 404, 200, 200, 200, 404]
        assert asked[0].json["data"][0]["id"] == asked[5].json["model"] == copied.name
        assert not [answer for answer in asked if str(copied.parent) in answer.body.decode()]


def test_a_full_disk_under_the_cached_prompts_stops_no_answer(home, tmp_path):
    """The server may write no file larger than 64 KB, which is what a full disk is to it; a page has 784,008 bytes."""
    with serving(tmp_path, *SMALL) as server:
        most = resource.prlimit(server.worker, resource.RLIMIT_FSIZE)
        resource.prlimit(server.worker, resource.RLIMIT_FSIZE, (1 << 16, most[1]))
        long = "The harbour was quiet and the boats lay still. " * 40
        texts = [server.chat(f"{n}. {long}", 8).text for n in range(3)]
        wait_until(lambda: "prefix cache: a page was not written: no space" in server.said)
        assert server.said.count("prefix cache") == 1 and server.ready()
        assert not list((tmp_path / "prefix").iterdir()), "nothing half written is left"
        resource.prlimit(server.worker, resource.RLIMIT_FSIZE, most)
        server.chat(f"Another one. {long}", 8)
        wait_until(lambda: list((tmp_path / "prefix").glob("*.page")))
        assert [server.chat(f"{n}. {long}", 8).text for n in range(3)] == texts
