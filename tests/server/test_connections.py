"""Thousands of connections that ask for nothing (row B13)."""

from __future__ import annotations

import resource
import time

import pytest

from tests.server.process import Server, all_of, serving, wait_until

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
