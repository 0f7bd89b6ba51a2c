"""What the rows share: which models run where, the machine's ceilings, and what was measured.

A peer that is absent, or that does not start, is None where it is asked for and a reason in `absent`: every row says
so in its line and goes on with the others.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.peers import Absent
from benchmarks.workers.driver import Worker, WorkerFailed
from phi4mini.kernels import peak
from phi4mini.kernels.threads.count import thread_count
from phi4mini.weights.load import ensure_store
from phi4mini.weights.store.store import OpenModel, open_store

CONTEXT = 33_792  # tokens: 32,768 and room for what is decoded after them


class Bench:
    """One run. `data` goes into the JSON; `rounds` is how often each pair is measured."""

    def __init__(self, layers: int, rounds: int, quick: bool) -> None:
        self.layers, self.rounds, self.quick = layers, rounds, quick
        self.threads = thread_count()
        self.data: dict[str, Any] = {}
        self.ceilings: dict[str, list[float]] = {"read_gb_s": [], "dot_gops": []}
        self.absent: dict[str, str] = {}
        self._workers: dict[str, Worker] = {}
        self._began = time.monotonic()

    # models ----------------------------------------------------------------------------------------------------------

    @property
    def full(self) -> str:
        """The name of the synthetic model."""
        return "synthetic" if self.layers == 32 else f"synthetic:{self.layers}"

    def store(self, model: str, quant: str = "q4") -> OpenModel:
        """A model's store, made if need be."""
        return open_store(ensure_store(model, quant))

    def ours(self, model: str, quant: str = "q4", kv: str = "int8", ctx: int | None = None) -> Worker:
        """Our worker on a model."""
        options = ["--quant", quant, "--kv", kv, "--threads", str(self.threads)]
        if ctx:
            options += ["--ctx", str(ctx)]
        return self._worker(
            f"ours {model} {quant} {kv}", [sys.executable, "-m", "benchmarks.workers.ours", model, *options]
        )

    def llama(self, gguf: Path) -> Worker | None:
        """llama.cpp on a GGUF."""
        return self._peer("llama", gguf, [])

    def openvino(self) -> Worker | None:
        """OpenVINO on the synthetic export."""
        return self._peer("openvino", peers.openvino_folder(self.layers), [])

    def why(self, peer: str) -> str:
        """The line for a peer that is not measured."""
        return self.absent.get(peer, f"{peer}: not measured")

    def release(self, part: str = "") -> None:
        """End the workers whose name contains `part`, to have their memory back."""
        for name in [n for n in self._workers if part in n]:
            self._workers.pop(name).close()

    def _peer(self, peer: str, model: Path, more: Sequence[str]) -> Worker | None:
        try:
            python, path = peers.python_of(peer), peers.prepared(model)
            module = f"benchmarks.workers.{peer}"
            command = [str(python), "-m", module, str(path), "--threads", str(self.threads), *more]
            worker = self._worker(f"{peer} {model.name}", command)
        except (Absent, WorkerFailed) as error:
            if self.absent.get(peer) != str(error):
                self.say(str(error))
            self.absent[peer] = str(error)
            return None
        self.data.setdefault("peers", {})[peer] = worker.facts["versions"]
        return worker

    def _worker(self, name: str, command: Sequence[str]) -> Worker:
        if name not in self._workers:
            self.say(f"starting {name}")
            self._workers[name] = Worker(name, command)
        return self._workers[name]

    # ceilings --------------------------------------------------------------------------------------------------------

    def read(self) -> float:
        """GB/s that memory gives right now."""
        self.ceilings["read_gb_s"].append(peak.read_bandwidth(self.threads, 0.4))
        return self.ceilings["read_gb_s"][-1]

    def dots(self) -> float:
        """GOPS of int8 products that the cores give right now."""
        self.ceilings["dot_gops"].append(peak.dot_peak(self.threads, 0.25))
        return self.ceilings["dot_gops"][-1]

    def say(self, text: str) -> None:
        """Progress, to stderr, with the minutes that have passed."""
        print(f"[{(time.monotonic() - self._began) / 60:5.1f} min] {text}", file=sys.stderr, flush=True)
