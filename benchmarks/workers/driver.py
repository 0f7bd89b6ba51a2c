"""Workers seen from the driver: started, asked, and held still while another one is measured.

Promises: a worker that is not being asked is stopped (SIGSTOP), so threads that spin while idle take nothing from the
one being timed; one that dies, hangs or reports an error raises `WorkerFailed` with its last words.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 1800.0  # seconds for one command: 8,192 tokens have taken a peer 460


class WorkerFailed(Exception):
    """A worker that gave no answer, and why."""


class Worker:
    """One process with one model. `facts` is what it said about itself when it was ready."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None, tree: Path = ROOT
    ) -> None:
        """`tree`: the checkout that the command runs in."""
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (open for as long as the process)
        self._process = subprocess.Popen(
            list(command),
            cwd=tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env=environment,
        )
        try:
            self.facts = self._read()
        except WorkerFailed:
            self.close()
            raise
        self._hold()

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Wake the worker, have one command done, hold it again. Raises `WorkerFailed`."""
        self._process.send_signal(signal.SIGCONT)
        self._write({"op": op, **arguments})
        answer = self._read()
        self._hold()
        return answer

    def close(self) -> None:
        """End the process and wait for it, so that its memory is free."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                pipe.close()

    def _hold(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP)

    def _write(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
        except BrokenPipeError:
            raise WorkerFailed(f"{self.name} has ended: {self._last_words()}") from None

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        end, line = time.monotonic() + _PATIENCE, b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise WorkerFailed(f"{self.name} gave no answer within {_PATIENCE:.0f} s")
            more = os.read(self._process.stdout.fileno(), 1 << 16)
            if not more:
                raise WorkerFailed(f"{self.name} has ended: {self._last_words()}")
            line += more
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(f"{self.name}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else "it said nothing"
