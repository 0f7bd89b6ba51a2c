"""A server of ours as a process: started on a free port, awaited, held still while a peer is timed, ended.

Promises: it is gone when the block ends, however that happens; one that does not come up raises with its last words;
models and kernels are those of this machine's cache, the prompts it keeps on disk are its own and go with it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.workers.driver import ROOT, WorkerFailed
from phi4mini.files import cache_home

_START, _END = 600.0, 60.0  # seconds: a model may be made first; streams are drained
_SERVE = (sys.executable, "-m", "phi4mini", "serve", "--no-supervise")  # the process that works is the one started
_SHARED = ("kernels", "models", "stores")  # of the cache folder


class Served:
    """`with Served("demo") as server:` gives `server.url` and `server.pid`."""

    def __init__(self, model: str, options: Sequence[str] = (), command: Sequence[str] | None = None) -> None:
        """`command` in place of ours: what to start; the port is appended."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        serve = command or [*_SERVE, "-m", model, *options, "--port"]
        self._home = tempfile.TemporaryDirectory(prefix="phi4mini-served-")
        for name in _SHARED:
            (cache_home() / name).mkdir(parents=True, exist_ok=True)
            Path(self._home.name, name).symlink_to(cache_home() / name)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (open for as long as the process)
        self._process = subprocess.Popen(
            [*serve, str(self.port)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PHI4MINI_HOME": self._home.name},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Served:
        try:
            self._await()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hold(self) -> None:
        """Let it use no core until `wake`."""
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Go on."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and wait."""
        if self._process.poll() is None:
            self.wake()
            self._process.terminate()
            try:
                self._process.wait(_END)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._errors.close()
        self._home.cleanup()

    def _await(self) -> None:
        end = time.monotonic() + _START
        while not self._ready():
            if self._process.poll() is not None:
                raise WorkerFailed(f"the server has ended: {self._last_words()}")
            if time.monotonic() > end:
                raise WorkerFailed(f"the server was not ready within {_START:.0f} s")
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else "it said nothing"


def free_port() -> int:
    """A port on which no process listens at this moment."""
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port: Any = some.getsockname()[1]
        return int(port)
