"""From start to shutdown (rows F2, F5, F6, F11, F12, F15): loading, draining, kills, stops, unloading."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.server.process import (
    CHAT,
    ROOT,
    all_of,
    asking,
    environment,
    serving,
    start,
    stop,
    wait_until,
)

pytest.importorskip("uvicorn", reason="needs the extra serve")
FOREVER = {"ignore_eos": True, "max_tokens": 1900}
SMALL = ("--kv-tokens", "8192")


@pytest.fixture(scope="module")
def home(demo_store, tmp_path_factory):
    demo_store()
    return tmp_path_factory.mktemp("home")


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return int(some.getsockname()[1])


def begun(server, count: int = 1):
    """So many long streams, all after their first tokens."""
    streams = [server.start_chat(f"Story {n}.", stream=True, **FOREVER) for n in range(count)]
    wait_until(lambda: server.metric("requests_running") == count)
    for stream in streams:
        data = b""
        while b'"content":"' not in data.replace(b'"content":""', b""):
            data += stream.recv(1 << 16)
    return streams


# ---- F2


def test_F2_while_loading_it_lives_and_is_not_ready(home):
    port = free_port()
    options = ("--port", str(port), *SMALL)
    server = start(home, *options, module="tests.server.faulty", FAULT_OPEN="3")
    try:
        server.port = port
        wait_until(lambda: alive(server), 30)
        for path, body in (("/ready", None), (CHAT, asking()), ("/v1/models", None), ("/props", None)):
            answer = server.ask(path, body)
            assert (answer.status, answer.code) == (503, "loading"), path
            assert int(answer.headers["retry-after"]) > 0
        assert server.ask("/metrics").status == 200
        wait_until(server.ready, 30)
        assert server.chat(max_tokens=2).status == 200
    finally:
        stop(server)
    assert server.process.returncode == 0


def alive(server) -> bool:
    try:
        return server.ask("/health", timeout=5).status == 200
    except OSError:
        return False


@pytest.mark.parametrize("supervised", [True, False])
def test_F5_told_to_end_while_loading_it_does_so_at_once(home, supervised):
    port = free_port()
    options = ("--port", str(port), *SMALL, *(() if supervised else ("--no-supervise",)))
    server = start(home, *options, module="tests.server.faulty", FAULT_OPEN="30")
    server.port = port
    try:
        wait_until(lambda: alive(server), 30)
        began = time.monotonic()
        server.process.terminate()
        assert server.process.wait(10) == 0 and time.monotonic() - began < 8
    finally:
        server.process.kill()


# ---- F5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_F5_what_runs_finishes_and_what_waits_is_refused(home, number):
    with serving(home, "-np", "1", *SMALL) as server:
        text = server.ask(CHAT, asking("Story 0.", 600, ignore_eos=True, stream=True)).streamed
        running = server.start_chat("Story 0.", 600, ignore_eos=True, stream=True)
        wait_until(lambda: server.metric("requests_running") == 1)
        waiting = server.start_chat("Me too.")
        wait_until(lambda: server.metric("requests_waiting") == 1)
        server.process.send_signal(number)
        assert waiting.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
        late = server.chat()
        assert (late.status, late.code) == (503, "draining") and int(late.headers["retry-after"]) > 0
        assert server.ask("/ready").status == 503 and server.ask("/health").status == 200
        rest = all_of(running)
        assert b"data: [DONE]" in rest and b"error" not in rest
        assert len(text) > 200 and rest.count(b'"content"') > 100
        assert server.process.wait(10) == 0


def test_F5_what_does_not_finish_in_time_ends_with_an_error(home):
    with serving(home, "--drain", "1s", *SMALL) as server:
        (stream,) = begun(server)
        whole = server.start_chat(**FOREVER)
        wait_until(lambda: server.metric("requests_running") == 2)
        began = time.monotonic()
        server.process.terminate()
        streamed, answered = all_of(stream), all_of(whole)
        assert b'"code":"draining"' in streamed and b"[DONE]" not in streamed
        assert answered.startswith(b"HTTP/1.1 503 ")
        assert server.process.wait(10) == 0 and time.monotonic() - began < 6


def test_F5_one_signal_that_reaches_both_processes_is_one(home):
    """As systemd and `timeout` send it: the watcher passes its own on to the server, which had one already."""
    with serving(home, *SMALL) as server:
        stream = server.start_chat("Story 0.", 600, ignore_eos=True, stream=True)
        wait_until(lambda: server.metric("requests_running") == 1)
        os.kill(server.worker, signal.SIGTERM)
        server.process.terminate()
        rest = all_of(stream)
        assert b"data: [DONE]" in rest and b'"error"' not in rest
        assert server.process.wait(10) == 0
        assert "stopping: 1 request has up to 30 s; a second Ctrl-C ends it now\n" in server.said


@pytest.mark.parametrize("options", [(), ("--no-supervise",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_F5_a_second_signal_ends_it_now_and_quietly(home, options, number):
    with serving(home, "--drain", "60s", *SMALL, *options) as server:
        streams = begun(server, 2)
        told = time.monotonic()
        server.process.send_signal(number)
        wait_until(lambda: server.ask("/ready").status == 503)
        wait_until(lambda: time.monotonic() - told > 1.1)  # before that it would be the same signal
        began = time.monotonic()
        server.process.send_signal(number)
        assert server.process.wait(10) == 0 and time.monotonic() - began < 5
        assert "stopping: 2 requests have up to 60 s; a second Ctrl-C ends them now\n" in server.said
        assert "Traceback" not in server.said and "Error" not in server.said, server.said
        for stream in streams:
            stream.close()


# ---- F6


@pytest.mark.parametrize("supervised", [True, False])
def test_F6_after_sigkill_the_port_is_free_and_what_is_on_disk_is_good(home, tmp_path, supervised):
    port = free_port()
    options = ("--port", str(port), *SMALL, *(() if supervised else ("--no-supervise",)))
    long = asking("The harbour was quiet and the boats lay still. " * 40, 16)
    with serving(tmp_path, *options) as server:
        text = server.ask(CHAT, long).text
        wait_until(lambda: list((tmp_path / "prefix").rglob("*")), 10)
        streams, worker = begun(server, 3), server.worker
        server.process.kill()
        wait_until(lambda: not Path(f"/proc/{worker}").exists() or "Z" in state(worker), 3)
        for stream in streams:
            all_of(stream, 5)
            stream.close()
    with serving(tmp_path, *options) as again:
        answer = again.ask(CHAT, long)
        assert answer.text == text


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2]
    except OSError:
        return "Z"


# ---- F11


def ends(home, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "phi4mini", "serve", "-m", "demo", *options]
    return subprocess.run(command, cwd=ROOT, env=environment(home), capture_output=True, text=True, timeout=60)


def test_F11_an_address_that_cannot_be_had_is_one_line(home, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = [("--port", str(taken.getsockname()[1])), ("--port", "70000"), ("--port", "-1")]
        options += [
            ("--host", "127.0.0.300", "--api-key", "x" * 8),
            ("--host", "nowhere.invalid", "--api-key", "x" * 8),
        ]
        options += [("--unix-socket", str(tmp_path / "missing" / "s")), ("--unix-socket", str(tmp_path / ("s" * 200)))]
        for some in options:
            ended = ends(home, *some)
            lines = [line for line in ended.stderr.splitlines() if "--api-key can be seen" not in line]
            assert ended.returncode == 2 and len(lines) == 1, (some, ended.stderr)


def test_F11_a_unix_socket(home, tmp_path):
    path = tmp_path / "socket"
    server = start(home, "--unix-socket", str(path), *SMALL)
    try:
        wait_until(lambda: "(process " in server.said, 60)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(path))
            client.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert all_of(client).startswith(b"HTTP/1.1 200 ")
        assert path.stat().st_mode & 0o077 == 0, "others of this machine cannot ask"
        ended = ends(home, "--unix-socket", str(path))
        assert ended.returncode == 2 and "another program" in ended.stderr
    finally:
        stop(server)
    with_stale = start(home, "--unix-socket", str(path), *SMALL)
    try:
        wait_until(lambda: "(process " in with_stale.said, 60)
    finally:
        stop(with_stale)


def test_F11_ipv6(home):
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    server = start(home, "--host", "::1", *SMALL)
    try:
        wait_until(lambda: "(process " in server.said or server.process.poll() is not None, 60)
        if server.process.poll() is not None and "cannot listen" in server.said:
            pytest.skip("needs an IPv6 loopback")
        port = int(server.said.split("http://[::1]:")[1].split()[0])
        connection = http.client.HTTPConnection("::1", port, timeout=10)
        connection.request("GET", "/ready")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        stop(server)


# ---- F12


def test_F12_being_stopped_for_a_while_times_nobody_out(home):
    """Stopped for longer than every deadline; the clocks of requests stand still meanwhile."""
    deadlines = ("--header-deadline", "4s", "--write-deadline", "4s", "--timeout", "8s", "--no-supervise")
    with serving(home, *deadlines, *SMALL) as server:
        text = server.ask(CHAT, asking("Story 0.", 200, ignore_eos=True, stream=True)).streamed
        streams = [server.start_chat("Story 0.", 200, ignore_eos=True, stream=True) for _ in range(4)]
        half = server.connect()
        half.sendall(b"GET /health HTTP/1.1\r\nHost: local")
        wait_until(lambda: server.metric("requests_running") == 4)
        os.kill(server.worker, signal.SIGSTOP)
        time.sleep(12)
        half.sendall(b"host\r\nConnection: close\r\n\r\n")
        os.kill(server.worker, signal.SIGCONT)
        for stream in streams:
            answer = b""
            while b"[DONE]" not in answer:
                part = stream.recv(1 << 16)
                assert part, answer[-300:]
                answer += part
            assert b'"error"' not in answer
            stream.close()
        assert all_of(half, 5).startswith(b"HTTP/1.1 200 ")
        half.close()
        assert server.ask(CHAT, asking("Story 0.", 200, ignore_eos=True, stream=True)).streamed == text


# ---- F15


def test_F15_idle_memory_is_given_back_and_requests_wait_for_it(home):
    with serving(home, "--keep-alive", "1s", *SMALL) as server:
        text = server.chat().text
        loaded = server.status("VmRSS")
        wait_until(lambda: server.metric("model_loaded") == 0, 20)
        assert server.status("VmRSS") < loaded - (80 << 20)
        assert server.ready() and server.ask("/props").json["loaded"] is False
        answer = server.chat()
        assert answer.text == text and server.metric("model_loaded") == 1


def test_F15_requests_that_come_while_it_is_unloaded_or_loaded_never_fail(home):
    """At every moment around the unloading, which a fault of the tests makes long."""
    with serving(home, "--keep-alive", "0.3s", *SMALL, module="tests.server.faulty", FAULT_OPEN="0.2") as server:
        text = server.chat(max_tokens=8).text
        unloaded = 0
        for n in range(24):
            time.sleep(0.2 + 0.02 * n)
            unloaded += server.metric("model_loaded") == 0
            answers = [server.start_chat(max_tokens=8) for _ in range(3)]
            assert server.chat(max_tokens=8).text == text
            for connection in answers:
                answer = b""
                while b'"finish_reason"' not in answer:
                    answer += connection.recv(1 << 16)
                assert answer.startswith(b"HTTP/1.1 200 ")
                connection.close()
        assert 3 < unloaded < 24
