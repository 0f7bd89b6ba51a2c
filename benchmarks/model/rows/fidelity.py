"""Row 8: how far rounding moves the answer, ours and llama.cpp's, at equal bytes.

On the demo model, over the golden chats and prose, teacher-forced: the blocks as the file has them, our int8 cache and
int8 activations, against our f32 path on the same weights; llama.cpp on its own Q4_1 with its f16 cache. KL is in nats
a token, of the f32 path's distribution from the rounded one's.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.model import outliers
from benchmarks.model.bench import Bench
from benchmarks.report import Line
from benchmarks.workers.driver import Worker
from phi4mini.weights.sources.demo import demo_gguf
from tests.golden.demo import chats, prose_chunks


@dataclass
class Tally:
    """Sums over tokens."""

    tokens: int = 0
    agreed: int = 0
    divergence: float = 0.0

    def add(self, exact: np.ndarray, rounded: np.ndarray) -> None:
        """Rows of logits (n, vocab) of both."""
        self.tokens += len(exact)
        self.agreed += int((exact.argmax(axis=1) == rounded.argmax(axis=1)).sum())
        self.divergence += divergence(exact, rounded)

    @property
    def share(self) -> float:
        return self.agreed / self.tokens

    @property
    def kl(self) -> float:
        return self.divergence / self.tokens


def divergence(exact: np.ndarray, rounded: np.ndarray) -> float:
    """Sum over rows of KL(softmax(exact) || softmax(rounded)), in nats."""
    total = 0.0
    for at in range(0, len(exact), 64):
        p, q = _log_softmax(exact[at : at + 64]), _log_softmax(rounded[at : at + 64])
        total += float((np.exp(p) * (p - q)).sum())
    return total


def run(bench: Bench, rows: set[int]) -> list[Line]:
    """Argmax and KL on the demo, relative error on Phi's shapes."""
    workers = {"exact": bench.ours("demo", "f32", "f32"), "ours": bench.ours("demo")}
    if llama := bench.llama(demo_gguf()):
        workers["llama"] = llama
    tallies = {name: Tally() for name in workers if name != "exact"}
    only = {"ours": 0, "llama": 0}  # tokens where one alone agrees: their difference is known to about sqrt(sum)
    for ids in _sequences(bench):
        logits = _logits(workers, ids)
        right = {name: logits[name].argmax(axis=1) == logits["exact"].argmax(axis=1) for name in tallies}
        for name, tally in tallies.items():
            tally.add(logits["exact"], logits[name])
            only[name] += int((right[name] & ~right["llama" if name == "ours" else "ours"]).sum()) if llama else 0
    for name, tally in tallies.items():
        bench.say(f"fidelity: {name} {tally.agreed} of {tally.tokens} argmax, KL {tally.kl:.5f}")
    relative = {name: outliers.errors(name) for name in outliers.SHAPES}
    bench.data["fidelity"] = {
        "demo": {n: {"tokens": t.tokens, "argmax": t.share, "kl": t.kl} for n, t in tallies.items()},
        "argmax_only": only,
        "relative_error": {name: {"ours": a, "q4_0_x_q8_0": b} for name, (a, b) in relative.items()},
    }
    return [*_demo(bench, tallies), *_shapes(relative)]


def _sequences(bench: Bench) -> list[list[int]]:
    encode = bench.store("demo").tokenizer.encode
    prose = prose_chunks(encode)
    return [*([*chat.prompt, *chat.greedy] for chat in chats()), *(prose[:2] if bench.quick else prose)]


def _logits(workers: dict[str, Worker], ids: list[int]) -> dict[str, np.ndarray]:
    logits = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, worker in workers.items():
            path = Path(folder) / f"{name}.npy"
            worker.ask("logits", ids=ids, path=str(path))
            logits[name] = np.load(path)
    return logits


def _demo(bench: Bench, tallies: dict[str, Tally]) -> list[Line]:
    ours = tallies["ours"]
    figures = f"{ours.agreed} of {ours.tokens} ({ours.share:.2%})", f"{ours.kl:.5f}"
    targets = (
        "demo, argmax as the f32 path: no fewer than llama.cpp",
        "demo, KL to the f32 path: no more than llama.cpp",
    )
    if "llama" not in tallies:
        return [Line(8, t, f, bench.why("llama")) for t, f in zip(targets, figures, strict=True)]
    peer = tallies["llama"]
    agreed = Line(8, targets[0], figures[0], f"{peer.agreed}", ours.agreed / peer.agreed, ours.agreed >= peer.agreed)
    return [agreed, Line(8, targets[1], figures[1], f"{peer.kl:.5f}", ours.kl / peer.kl, ours.kl <= peer.kl)]


def _shapes(relative: dict[str, tuple[float, float]]) -> list[Line]:
    return [
        Line(8, f"{name} with outliers: error no more than Q4_0 x Q8_0", f"{a:.4f}", f"{b:.4f}", a / b, a <= b)
        for name, (a, b) in relative.items()
    ]


def _log_softmax(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide
