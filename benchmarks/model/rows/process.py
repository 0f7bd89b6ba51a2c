"""Row 6: the program as a user starts it: memory, seconds to the first token, and what the very first run compiles."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.model.bench import Bench
from benchmarks.report import Line, at_most
from benchmarks.rounds import median, summary
from benchmarks.workers.driver import ROOT, Worker, WorkerFailed
from phi4mini.model.config import Config

_STARTS, _WORDS, _NEW = 5, 500, 16
_MARGIN = 200e6  # bytes beyond weights and KV cache
_PAGE = 64  # tokens that the cache grows by


@dataclass(frozen=True)
class Ran:
    """One run of the command line: seconds to its first byte of text and to its end, its largest resident memory."""

    first: float
    whole: float
    resident: int
    out: str
    err: str


def run(bench: Bench, rows: set[int]) -> list[Line]:
    """The synthetic model's store by its path, so that a second cache folder does not hide it."""
    opened = bench.store(bench.full)
    command = [sys.executable, "-m", "phi4mini", "run", "--offline", "-m", str(opened.path), "--ignore-eos"]
    short = [*command, "-n", "1", "Hello"]
    start(short)  # page cache and kernels
    warm = [start(short) for _ in range(_STARTS)]
    bench.say(f"start to first token: {[round(r.first, 2) for r in warm]} s")
    long = start([*command, "-n", str(_NEW), "--json", "word " * _WORDS])
    with tempfile.TemporaryDirectory() as home:
        cold = start(short, os.environ | {"PHI4MINI_HOME": home})
    compiled, kernels = _compile(opened.path)
    bench.data["process"] = {
        "first_token_s": summary([r.first for r in warm]),
        "whole_s": summary([r.whole for r in warm]),
        "resident_short": warm[-1].resident,
        "resident_long": long.resident,
        "first_ever_s": cold.whole,
        "compile_s": compiled,
        "kernels": kernels,
    }
    return [_memory(opened.config, opened.weights.nbytes, long), _start(warm), *_first(cold, compiled, kernels)]


def start(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Ran:
    """Run a command to its end. Raises `WorkerFailed` with its last words if it fails."""
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, env=environment)
        assert process.stdout is not None
        out = os.read(process.stdout.fileno(), 1)
        first = time.perf_counter() - began
        out += process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        whole = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        errors.seek(0)
        err = errors.read().decode(errors="replace")
    if process.returncode:
        raise WorkerFailed(f"phi4mini run ended with {process.returncode}: {err.strip()[-200:]}")
    resident = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Ran(first, whole, resident, out.decode(errors="replace"), err)


def _memory(config: Config, weights: int, ran: Ran) -> Line:
    use = json.loads(ran.out)["usage"]
    pages = -(-(use["prompt_tokens"] + use["completion_tokens"]) // _PAGE)
    cache = pages * _PAGE * config.kv_bytes_per_token("int8")
    over = (ran.resident - weights - cache) / 1e6
    figure = f"{ran.resident / 1e9:.3f} GB: {over:+.0f} MB beyond weights and KV"
    peer = f"{weights / 1e9:.3f} + {cache / 1e9:.3f} GB"
    return at_most(6, "resident <= weights + KV + 200 MB", weights + cache + _MARGIN, figure, ran.resident, peer)


def _start(warm: Sequence[Ran]) -> Line:
    seconds = median([r.first for r in warm])
    return at_most(6, "process start to first token <= 1.5 s", 1.5, f"{seconds:.2f} s", seconds)


def _compile(store: Path) -> tuple[float, int]:
    """(seconds, number) of all kernels of all passes: a process that starts and needs them with an empty cache, less
    the same with a full one.
    """
    seconds = []
    with tempfile.TemporaryDirectory() as home:
        for _ in range(2):
            command = [sys.executable, "-m", "benchmarks.workers.ours", str(store)]
            began = time.perf_counter()
            worker = Worker("ours, empty cache", command, os.environ | {"PHI4MINI_HOME": home})
            worker.ask("programs")
            seconds.append(time.perf_counter() - began)
            worker.close()
        return seconds[0] - seconds[1], len(list(Path(home).glob("kernels/*.o")))


def _first(cold: Ran, seconds: float, kernels: int) -> list[Line]:
    said = [line for line in cold.err.splitlines() if re.search(r"compil", line, re.IGNORECASE)]
    figure = f"{seconds:.2f} s for {kernels} kernels"
    line = "one line says so" if len(said) == 1 else f"{len(said)} lines say so"
    told = Line(6, "the first run says that it compiles, in one line", line, met=len(said) == 1)
    return [at_most(6, "first-ever run compiles all kernels in <= 5 s", 5.0, figure, seconds), told]
