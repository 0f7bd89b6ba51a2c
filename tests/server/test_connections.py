"""Idle connections: thousands of them (row B13), and kept ones between two requests."""

from __future__ import annotations

import re
import resource
import socket
import time

import pytest

from tests.server.process import CHAT, Server, all_of, asking, closed_within, post, serving, wait_until

pytest.importorskip("uvicorn", reason="needs the extra serve")
MANY = 10_000
SLACK = 0.05  # seconds a canary may take at the median; alone it takes about 2 ms
EACH = 8192  # bytes of memory


@pytest.fixture
def many_files():
    """As many descriptors as this process may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < MANY + 500:
        pytest.skip(f"needs {MANY + 500} descriptors; the limit here is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def canary(server: Server) -> float:
    """Seconds of a small request on a connection of its own: the median of 20, since others use this machine too."""
    times = []
    for _ in range(20):
        answer = server.ask("/v1/models")
        assert answer.status == 200
        times.append(answer.seconds)
    return sorted(times)[10]


def test_B13_ten_thousand_idle_connections(demo_store, tmp_path, many_files):
    """The server begins with a soft limit that is too low, and raises it."""
    demo_store()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))  # what the server inherits
    with serving(tmp_path, "--header-deadline", "300s", "--kv-tokens", "4096") as server:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        text = server.chat().text
        descriptors, memory, idle = server.descriptors(), server.status("VmRSS"), []
        try:
            for _ in range(MANY):
                idle.append(server.connect())
            wait_until(lambda: server.descriptors() >= descriptors + MANY - 2, 60)
            assert (server.status("VmRSS") - memory) / MANY <= EACH
            assert canary(server) < SLACK
            assert server.chat().text == text
        finally:
            for connection in idle:
                connection.close()
        wait_until(lambda: server.descriptors() <= descriptors + 2, 60)
        assert server.chat().text == text


def test_B13_connections_beyond_the_cap_are_refused(demo_store, tmp_path):
    demo_store()
    with serving(tmp_path, "--connections", "20", "--header-deadline", "60s", "--kv-tokens", "4096") as server:
        idle = [server.connect() for _ in range(20)]
        beyond = server.connect()
        began = time.monotonic()
        assert all_of(beyond, 10) == b"" and time.monotonic() - began < 5
        for connection in (*idle, beyond):
            connection.close()
        wait_until(server.ready)


# ---- kept connections


def head_of(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """Status and headers of one answer, read to the end of its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1 << 16)
    lines = data.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    length = int(headers["content-length"]) + data.index(b"\r\n\r\n") + 4
    while len(data) < length:
        data += connection.recv(1 << 16)
    return int(lines[0].split()[1]), headers


KEPT = [
    ("GET /health HTTP/1.1", (), "timeout=75"),
    ("GET /v1/models HTTP/1.1", (), "timeout=75"),
    ("HEAD /health HTTP/1.1", ("Connection: close",), None),
    ("GET /nothing HTTP/1.1", (), "timeout=75"),
    ("PUT /health HTTP/1.1", (), "timeout=75"),
    ("OPTIONS /health HTTP/1.1", ("Connection: close",), None),
    ("GET /health HTTP/1.1", ("Connection: keep-alive",), "timeout=75"),
    ("GET /health HTTP/1.1", ("Connection: close",), None),
    ("GET /health HTTP/1.1", ("Connection: Close",), None),
    ("GET /health HTTP/1.1", ("Origin: http://evil.example",), "timeout=75"),
    ("GET /health HTTP/1.1", ("Content-Length: x",), None),
    ("GET /health HTTP/1.1", ("X-Timeout: x",), "timeout=75"),
]


@pytest.mark.parametrize(("line", "headers", "told"), KEPT)
def test_RQ10_an_answer_says_how_long_its_connection_is_kept(demo, line, headers, told):
    head = "\r\n".join([line, "Host: localhost", *headers, "", ""]).encode()
    with demo.connect() as connection:
        connection.sendall(head)
        data = connection.recv(1 << 16).decode().lower()
    found = re.findall(r"^keep-alive: (\S+)\r$", data, re.MULTILINE)
    assert found == ([] if told is None else [told])
    assert told is None or "connection: close" not in data


def test_RQ10_a_connection_that_rested_longer_than_a_pool_expects_takes_the_next_request(demo):
    """aiohttp keeps connections for 15 s, httpx for 5, requests and Go's client until the server ends them."""
    with demo.connect() as connection:
        for rest in (0, 5.2, 11):
            time.sleep(rest)
            connection.sendall(post(CHAT, asking("hi", 1)))
            status, headers = head_of(connection)
            assert status == 200 and headers["keep-alive"] == "timeout=75"


def test_RQ10_a_connection_is_closed_when_its_time_is_over(demo_store, tmp_path):
    """Five seconds later than it was promised: a request may be on its way."""
    demo_store()
    with serving(tmp_path, "--kv-tokens", "4096", module="tests.server.resting") as server, server.connect() as kept:
        kept.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert head_of(kept)[1]["keep-alive"] == "timeout=1"
        assert 5 < closed_within(kept, 15) < 9
