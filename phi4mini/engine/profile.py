"""Where a pass's time goes: seconds of each operation, and of what happens outside the kernels.

    with watched(engine) as watch:
        watch.on = True
        engine.step()

Thread 0 reads the machine's time counter before each call of a program (kernels/threads/pool.py). So an operation's
time includes the wait for the slower threads at its end, and there is no gap between the operations of a pass. The
counter's rate is measured against wall time over the same passes. A tick is a fraction of a nanosecond on x86; on ARM
(CNTVCT_EL0) it is 1 to 40 ns, which says little about operations of a microsecond. `Watch.tick` is this machine's.

Promise: the parts of a pass add up to its wall time, because each begins where the one before it ends. Bytes and
operations are what the arithmetic needs by formats and shapes: each matrix and each token's K and V once a pass,
whatever the CPU's caches hold. It handles passes over one sequence only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from phi4mini.engine.compute.forward import Network
from phi4mini.engine.engine import Engine
from phi4mini.formats.matrix import Matrix
from phi4mini.kernels.threads.pool import Call, Pool, Program
from phi4mini.model.arrays import pieces
from phi4mini.model.config import Config

NAMES = {  # display names of the kernels that are no matmul
    "rmsnorm": "norm",
    "rope_append": "rope+append",
    "attend": "attend",
    "merge": "merge",
    "swiglu": "swiglu",
    "gather": "head rows",
    "floors": "second look",
    "refine": "second look",
}
_T = TypeVar("_T")
OUTSIDE = ("prepare", "threads", "draw")  # Python before the kernels; waking and joining threads; Python after them


@dataclass
class Part:
    """One operation of a pass, or all operations of one name together."""

    calls: float = 0
    seconds: float = 0.0
    bytes: int | None = None  # of weights, or of K and V, that it must read
    operations: int | None = None  # a multiply-add counts as two

    def add(self, other: Part) -> None:
        self.calls += other.calls
        self.seconds += other.seconds
        self.bytes = _sum(self.bytes, other.bytes)
        self.operations = _sum(self.operations, other.operations)


@dataclass
class Ran:
    """One run of a program: seconds by the wall clock, and the counter before each call and after the last."""

    program: Program
    start: float
    end: float
    ticks: np.ndarray  # int64 (calls + 1,)
    positions: np.ndarray  # int64 (rows,) of the tokens computed
    outputs: int  # rows of logits


@dataclass
class Step:
    """One step of the engine, and the run of its program if the watch was on."""

    start: float
    end: float
    ran: Ran | None

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass
class Split:
    """The time of the steps of one token, or of one prompt, by operation; `seconds` is their wall time."""

    seconds: float = 0.0
    parts: dict[str, Part] = field(default_factory=dict)

    def add(self, name: str, part: Part) -> None:
        self.parts.setdefault(name, Part()).add(part)


class Watch(Pool):
    """Takes the place of a network's pool. It runs programs on the threads of that pool and, while `on`, notes each."""

    def __init__(self, network: Network) -> None:
        # it has no threads of its own, so Pool.__init__ is not called
        self.network, self.inner = network, network.pool
        self.threads = self.inner.threads
        self.on = False
        self.ran: Ran | None = None
        self._first: Ran | None = None
        self._last: Ran | None = None

    def run(self, program: Program, profile: bool = False) -> None:
        """Run a program; note the run if `on`."""
        start = time.perf_counter()
        self.inner.run(program, profile=profile or self.on)
        end = time.perf_counter()
        if self.on:
            b = self.network.buffers
            at = b.positions[: int(b.rows[0])].copy()
            self.ran = Ran(program, start, end, program.cycles.copy(), at, int(b.outputs[0]))
            self._first, self._last = self._first or self.ran, self.ran

    @property
    def tick(self) -> float:
        """Seconds of one tick of the counter, measured from the end of the first noted run to the end of the last."""
        if self._first is None or self._last is None or self._first is self._last:
            raise RuntimeError("the counter's rate takes two noted runs")
        return (self._last.end - self._first.end) / int(self._last.ticks[-1] - self._first.ticks[-1])


@contextmanager
def watched(engine: Engine) -> Iterator[Watch]:
    """Put a watch between an engine and its pool, and take it away again."""
    watch = Watch(engine.network)
    engine.network.pool = watch
    try:
        yield watch
    finally:
        engine.network.pool = watch.inner


class Splitter:
    """Cuts steps of one engine into parts, by the operation that each call of a program is."""

    def __init__(self, engine: Engine) -> None:
        network = engine.network
        self.config = network.config
        kind = network.layout.kind
        self._kv_bytes = self.config.kv_bytes_per_token(kind) // self.config.num_layers  # type: ignore[arg-type]
        w = network.weights
        self._matrices: dict[int, tuple[str, Matrix]] = {w.head.data.ctypes.data: ("head", w.head)}
        for layer in w.layers:
            for name in ("qkv", "o", "gate_up", "down"):
                for part in pieces(getattr(layer, name)):
                    self._matrices[part.data.ctypes.data] = name, part

    def split(self, steps: Iterable[Step], tick: float) -> Split:
        """All parts of some steps together; `tick` in seconds."""
        made = Split()
        for step in steps:
            made.seconds += step.seconds
            ran = step.ran
            if ran is None:  # the step made no pass
                made.add("prepare", Part(0, step.seconds))
                continue
            kernels = int(ran.ticks[-1] - ran.ticks[0]) * tick
            for call, ticks in zip(ran.program.calls, np.diff(ran.ticks).tolist(), strict=True):
                name, part = self._part(call, ran)
                part.seconds = ticks * tick
                made.add(name, part)
            made.add("prepare", Part(1, ran.start - step.start))
            made.add("threads", Part(1, ran.end - ran.start - kernels))
            made.add("draw", Part(1, step.end - ran.end))
        return made

    def _part(self, call: Call, ran: Ran) -> tuple[str, Part]:
        """A call's name, bytes and operations; without its time."""
        fields = [name for name, _ in call.spec.fields]
        if "weights" in fields and call.spec.emit.__name__ not in NAMES:
            name, matrix = self._matrices[int(call.block[fields.index("weights")])]
            rows = ran.outputs if name == "head" else len(ran.positions)
            return name, Part(1, bytes=matrix.nbytes, operations=2 * rows * matrix.rows * matrix.cols)
        kernel = call.spec.emit.__name__
        if kernel != "attend":
            return NAMES.get(kernel, kernel), Part(1)
        seen = seen_tokens(self.config, ran.positions)
        last = seen_tokens(self.config, ran.positions[-1:])  # one read of K and V serves all rows
        return "attend", Part(1, bytes=last * self._kv_bytes, operations=4 * self.config.q_rows * seen)


def seen_tokens(config: Config, positions: np.ndarray) -> int:
    """Number of pairs of a query at one of `positions` and a key that it sees."""
    return int(np.minimum(positions + 1, config.sliding_window or positions.max() + 1).sum())


def typical(splits: Sequence[Split]) -> Split:
    """The mean of the faster half."""
    quick = quicker(splits, key=lambda s: s.seconds)
    n = len(quick)
    made = Split(sum(s.seconds for s in quick) / n)
    for name in quick[0].parts:
        parts = [s.parts[name] for s in quick]
        made.parts[name] = Part(
            sum(p.calls for p in parts) / n,
            sum(p.seconds for p in parts) / n,
            _mean([p.bytes for p in parts]),
            _mean([p.operations for p in parts]),
        )
    return made


def quicker(values: Sequence[_T], key: Callable[[_T], Any] | None = None) -> list[_T]:
    """The lower half: a pass that lost its core to another program says nothing about this program."""
    return sorted(values, key=key)[: (len(values) + 1) // 2]  # type: ignore[type-var,arg-type]


def _sum(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else a + b


def _mean(values: Sequence[int | None]) -> int | None:
    known = [v for v in values if v is not None]
    return sum(known) // len(known) if known else None
