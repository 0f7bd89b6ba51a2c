"""A real `phi4mini serve -m demo` in a process of its own, and clients as plain as sockets.

The process has a cache folder of its own, which shares models and compiled kernels with the user's; what it says is
kept. Clients of http.client never retry, and raw sockets send bytes that no library would.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi4mini.files import cache_home

ROOT = Path(__file__).resolve().parents[2]
START = 120.0  # seconds until the demo answers
CHAT = "/v1/chat/completions"
KEY = "a-key-of-the-tests"
QUESTION = "Name the four seasons, and one thing people do in each."


@dataclass
class Answer:
    """What came back, the body as bytes; seconds to its first and last byte."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of an error."""
        return self.json["error"]["code"]

    @property
    def text(self) -> str:
        """What the assistant said."""
        return self.json["choices"][0]["message"]["content"]

    @property
    def events(self) -> list[Any]:
        """The data of a stream's events, [DONE] as it is."""
        lines = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    @property
    def streamed(self) -> str:
        """What the assistant said, joined."""
        chosen = [event["choices"][0] for event in self.events if event != "[DONE]" and event.get("choices")]
        return "".join(choice["delta"].get("content") or "" for choice in chosen)


class Server:
    """A running process."""

    def __init__(self, process: subprocess.Popen[bytes], said: Path) -> None:
        self.process, self._said = process, said
        self.port = 0
        self.headers: dict[str, str] = {}
        self.opened: list[socket.socket] = []  # raw connections, closed with the server if they were not before

    @property
    def said(self) -> str:
        """All of stderr so far."""
        return self._said.read_text("utf-8", "replace")

    @property
    def worker(self) -> int:
        """Process id of the one that serves, which tells it itself when its model is open."""
        return int(re.findall(r"\(process (\d+);", self.said)[-1])

    def wait_for_port(self, seconds: float = START) -> None:
        """Until its address is known, which is when the model is open."""
        wait_until(lambda: self.process.poll() is not None or "(process " in self.said, seconds)
        assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.said[-2000:]}"
        self.port = int(re.findall(r"http://\S+:(\d+)", self.said)[-1])

    def ask(
        self, path: str, body: Any = None, method: str | None = None, timeout: float = 60, **headers: str
    ) -> Answer:
        """One request on a connection of its own. `body`: JSON, or bytes as they are."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method or ("GET" if data is None else "POST"), path, data, sent)
            got = connection.getresponse()
            return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read(), time.monotonic() - began)
        finally:
            connection.close()

    def chat(self, text: str = QUESTION, max_tokens: int = 32, timeout: float = 60, **more: Any) -> Answer:
        """One question, greedy."""
        return self.ask(CHAT, asking(text, max_tokens, **more), timeout=timeout)

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """A raw connection."""
        raw = socket.socket()
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(60)
        self.opened.append(raw)
        raw.connect(("127.0.0.1", self.port))
        return raw

    def raw(self, data: bytes, seconds: float = 20) -> bytes:
        """Send these bytes, and take all until the server closes or nothing has come for so long."""
        with self.connect() as connection:
            connection.sendall(data)
            return all_of(connection, seconds)

    def start_chat(self, text: str = QUESTION, max_tokens: int = 32, **more: Any) -> socket.socket:
        """Send a question and read nothing of the answer."""
        connection = self.connect(more.pop("receive_buffer", None))
        connection.sendall(post(CHAT, asking(text, max_tokens, **more), self.headers))
        return connection

    def metric(self, name: str, labels: str = "") -> float:
        """One figure of /metrics, 0 where there is none yet."""
        text = self.ask("/metrics").body.decode()
        found = re.search(rf"^phi4mini_{name}{re.escape(labels)} (\S+)$", text, re.M)
        return float(found[1]) if found else 0.0

    def rest(self, seconds: float = 20) -> None:
        """Wait until nothing runs and waits, and all pages can be handed out: the baseline."""

        def at_rest() -> bool:
            busy = self.metric("requests_running") + self.metric("requests_waiting")
            return not busy and self.metric("kv_pages") == self.metric("kv_pages_free")

        wait_until(at_rest, seconds)

    def ready(self) -> bool:
        """Whether it answers requests."""
        try:
            return self.ask("/ready", timeout=10).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def status(self, name: str) -> int:
        """A figure of /proc/PID/status, of the process that serves; VmRSS in bytes."""
        text = Path(f"/proc/{self.worker}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+)( kB)?", text, re.M)
        assert found, name
        return int(found[1]) * (1024 if found[2] else 1)

    def descriptors(self) -> int:
        """Open files of the process that serves."""
        return len(os.listdir(f"/proc/{self.worker}/fd"))


def asking(text: str = QUESTION, max_tokens: int = 32, **more: Any) -> dict[str, Any]:
    """The body of a question, greedy."""
    return {"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, "temperature": 0, **more}


def post(path: str, body: Any, headers: Mapping[str, str] | None = None) -> bytes:
    """A request as bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
    ]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


def all_of(connection: socket.socket, seconds: float = 20) -> bytes:
    """All that comes until the other side closes or is silent for so long."""
    parts = []
    connection.settimeout(seconds)
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except (TimeoutError, ConnectionError):
        pass
    return b"".join(parts)


def closed_within(connection: socket.socket, seconds: float) -> float:
    """Seconds until the other side closes; fails if it takes longer than `seconds`."""
    began = time.monotonic()
    connection.settimeout(seconds)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        raise AssertionError(f"still open after {seconds} s") from None
    return time.monotonic() - began


def wait_until(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Fails when the condition has not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a server: none of the user's settings, a cache folder that shares costly files."""
    for name in ("kernels", "models", "stores"):
        (cache_home() / name).mkdir(parents=True, exist_ok=True)
        if not (home / name).exists():
            (home / name).symlink_to(cache_home() / name)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PHI4MINI_")}
    return kept | {"PHI4MINI_HOME": str(home), "PYTHONPATH": str(ROOT)} | more


def start(home: Path, *options: str, module: str = "phi4mini", model: str = "demo", **more: str) -> Server:
    """Start a server without waiting for it; `more` is added to its environment. The caller ends it with `stop`."""
    said = Path(tempfile.mkstemp(prefix="stderr-", dir=home)[1])
    command = [sys.executable, "-m", module, "serve", "-m", model, "--port", "0", "-c", "2048", *options]
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(home, **more), stdout=subprocess.DEVNULL, stderr=stderr
        )
    return Server(process, said)


def stop(server: Server) -> None:
    """End it, however it is."""
    for connection in server.opened:
        connection.close()
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGCONT)
        server.process.terminate()
        try:
            server.process.wait(40)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()


@contextmanager
def serving(home: Path, *options: str, **more: str) -> Iterator[Server]:
    """A server that answers, for as long as the block lasts."""
    server = start(home, *options, **more)
    try:
        server.wait_for_port()
        yield server
    finally:
        stop(server)
