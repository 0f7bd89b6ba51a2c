"""Row 7: the demo model, 135 million parameters, where the work around the kernels decides; llama.cpp on the same
GGUF.
"""

from __future__ import annotations

from benchmarks.model.bench import Bench
from benchmarks.report import Line, at_least, speed
from benchmarks.rounds import all_ratios, summary
from benchmarks.workers.driver import Worker
from phi4mini.weights.sources.demo import demo_gguf

_PROMPT, _NEW, _DEEP = 512, 64, 4096


def run(bench: Bench, rows: set[int]) -> list[Line]:
    """Prefill of 512 and decode after it, then decode at 4,096; a small model stays in no phase of memory for long."""
    ours, llama = bench.ours("demo"), bench.llama(demo_gguf())
    sides = {"ours": ours} | ({"llama": llama} if llama else {})
    figures: dict[str, dict[str, list[float]]] = {name: {"prefill": [], "decode": [], "deep": []} for name in sides}
    ours.ask("prefill", n=_PROMPT, seed=99)
    ours.ask("decode", n=8)
    for number in range(bench.rounds):
        for name, worker in sides.items():
            figures[name]["prefill"].append(_PROMPT / worker.ask("prefill", n=_PROMPT, seed=number)["seconds"])
        for name, worker in sides.items():
            worker.ask("prefill", n=1, seed=number)
            figures[name]["decode"].append(_NEW / worker.ask("decode", n=_NEW)["seconds"])
    _deep(bench, sides, figures)
    bench.data["small"] = {n: {what: summary(v) for what, v in f.items()} for n, f in figures.items()}
    return [line for what in ("prefill", "decode", "deep") for line in _lines(bench, figures, what)]


def _deep(bench: Bench, sides: dict[str, Worker], figures: dict[str, dict[str, list[float]]]) -> None:
    for worker in sides.values():
        worker.ask("prefill", n=_DEEP, seed=1)
    for _ in range(bench.rounds):
        for name, worker in sides.items():
            figures[name]["deep"].append(_NEW / worker.ask("decode", n=_NEW)["seconds"])


def _lines(bench: Bench, figures: dict[str, dict[str, list[float]]], what: str) -> list[Line]:
    label = {"prefill": f"prefill {_PROMPT}", "decode": "decode at 0", "deep": f"decode at {_DEEP}"}[what]
    target, ours = f"demo, {label}: >= 2 x llama.cpp", figures["ours"][what]
    bench.say(f"demo, {label}: " + ", ".join(f"{name} {speed(f[what])}" for name, f in figures.items()))
    if "llama" not in figures:
        return [Line(7, target, speed(ours), bench.why("llama"))]
    theirs = figures["llama"][what]
    return [at_least(7, target, 2.0, speed(ours), all_ratios(ours, theirs), speed(theirs))]
